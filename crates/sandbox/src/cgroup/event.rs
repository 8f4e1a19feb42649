//! Waiting without sleeping: `cgroup.events` of cgroup2 wakes poll(2) when a line of it changes, a pidfd when its
//! process ends.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::pread;

use super::dir::Dir;
use crate::error::CallContext;
use crate::{Error, Result};

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// What was waited for is so.
    Done,
    /// The deadline passed first.
    Late,
}

/// Waits until the line `key` of `cgroup.events` (`populated`, `frozen`) is `value`. A cgroup that is gone is neither
/// populated nor frozen.
pub(super) fn wait_for(dir: &Dir, key: &str, value: bool, deadline: Instant) -> Result<Wait> {
    let events = match dir.open("cgroup.events", OFlag::O_RDONLY) {
        Ok(events) => events,
        Err(Errno::ENOENT | Errno::ENODEV) if !value => return Ok(Wait::Done),
        Err(errno) => return Err(Error::call(format!("open({:?})", dir.path().join("cgroup.events")), errno)),
    };
    loop {
        // Read before every poll: POLLPRI reports changes since the last read of this very open file.
        let mut text = [0u8; 256];
        let count = match pread(&events, &mut text, 0) {
            Ok(count) => count,
            Err(Errno::ENODEV) if !value => return Ok(Wait::Done),
            Err(errno) => return Err(Error::call(format!("read({:?})", dir.path().join("cgroup.events")), errno)),
        };
        if flag(std::str::from_utf8(&text[..count]).unwrap_or(""), key) == Some(value) {
            return Ok(Wait::Done);
        }
        if sleep_on(std::slice::from_ref(&events), PollFlags::POLLPRI, deadline)? == Wait::Late {
            return Ok(Wait::Late);
        }
    }
}

/// The value of one line of a flat keyed file of zeroes and ones.
pub(super) fn flag(text: &str, key: &str) -> Option<bool> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(|value| value.trim() == "1")
}

/// poll(2) until one of `fds` reports or the deadline has passed.
pub(super) fn sleep_on(fds: &[OwnedFd], events: PollFlags, deadline: Instant) -> Result<Wait> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd.as_fd(), events)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Wait::Late);
        }
        // Rounded up, or the last fraction of a millisecond would be spun away.
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(Wait::Done),
            Err(errno) => return Err(errno).call(|| "poll()"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_cgroup_events_is_found_by_its_whole_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(flag(text, "populated"), Some(true));
        assert_eq!(flag(text, "frozen"), Some(false));
        assert_eq!(flag(text, "froz"), None);
    }
}
