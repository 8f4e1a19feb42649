//! How long a command may wait: one budget for all of it, carried to whatever waits.

use std::fmt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};

use crate::Error;

/// For making a container or a process in one: hooks, and what they wait for, are slow.
pub(crate) const TO_MAKE: Duration = Duration::from_secs(300);
/// For everything else: a killed process that is to be gone, a cgroup that is to freeze, systemd, another command on the
/// same container.
pub(crate) const TO_CHANGE: Duration = Duration::from_secs(30);
/// For taking back what a command that failed has made: its own budget may be what has run out.
pub(crate) const TO_UNDO: Duration = Duration::from_secs(10);

/// When a command has waited long enough.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// None: never.
    end: Option<Instant>,
    budget: Duration,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// What was waited for is so.
    Done,
    /// The deadline passed first.
    Late,
}

impl Deadline {
    /// It never passes.
    pub const NEVER: Self = Self { end: None, budget: Duration::MAX };

    /// So long from now. What is too long for a clock never passes.
    pub fn after(budget: Duration) -> Self {
        Self { end: Instant::now().checked_add(budget), budget }
    }

    /// This one, or `budget` from now if that is sooner.
    #[must_use]
    pub fn sooner(self, budget: Duration) -> Self {
        let other = Self::after(budget);
        match (self.end, other.end) {
            (Some(end), Some(others)) if end <= others => self,
            (Some(_), None) => self,
            _ => other,
        }
    }

    /// What is left; zero when it has passed, None if it never does.
    pub fn left(self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// poll(2) until one of `fds` reports or the deadline has passed.
    pub(crate) fn poll(self, fds: &mut [PollFd<'_>]) -> nix::Result<Wait> {
        loop {
            let timeout = match self.left() {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(Wait::Late),
                // Rounded up, or the last fraction of a millisecond would be spun away. A long one comes round again.
                Some(left) => PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
            };
            match poll(fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(Wait::Done),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The error for a deadline that has passed: what was waited for, and who did not come.
    pub(crate) fn late(self, what: impl fmt::Display) -> Error {
        Error::Refused(format!("timed out after {self}: {what}"))
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.budget.subsec_millis() {
            0 => write!(out, "{} s", self.budget.as_secs()),
            _ => write!(out, "{} ms", self.budget.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sooner_of_two_holds_and_says_its_own_budget() {
        let minute = Deadline::after(Duration::from_secs(60));
        assert_eq!(minute.sooner(Duration::from_millis(1500)).to_string(), "1500 ms");
        assert_eq!(minute.sooner(Duration::from_secs(3600)).to_string(), "60 s");
        assert_eq!(Deadline::NEVER.sooner(Duration::from_secs(5)).to_string(), "5 s");
        assert!(minute.sooner(Duration::ZERO).passed() && !minute.passed());
        assert_eq!(minute.late("nobody came").to_string(), "timed out after 60 s: nobody came");
    }

    #[test]
    fn what_is_too_long_for_a_clock_never_passes() {
        assert_eq!(Deadline::after(Duration::MAX).left(), None);
        assert!(!Deadline::NEVER.passed());
    }

    #[test]
    fn a_poll_ends_with_the_deadline_and_not_before() {
        let begun = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(30));
        assert_eq!(deadline.poll(&mut []), Ok(Wait::Late));
        assert!(begun.elapsed() >= Duration::from_millis(30) && deadline.passed());
    }
}
