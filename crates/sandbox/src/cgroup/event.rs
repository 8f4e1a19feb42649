//! Waiting without sleeping: `cgroup.events` of cgroup2 wakes poll(2) when a line of it changes, a pidfd when its
//! process ends.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use super::Location;
use super::dir::Dir;
use crate::deadline::Deadline;
pub(super) use crate::deadline::Wait;
use crate::error::CallContext;
use crate::{Error, Result};

/// Notices when a cgroup runs out of memory.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    /// v1: the kernel adds to the eventfd when the cgroup runs out of memory, and once when it is removed.
    Eventfd { eventfd: EventFd, dir: Dir },
    /// v2: the line `oom_kill` of `memory.events` counts the processes killed in the cgroup and below, and poll(2) wakes when
    /// the file changes (as inotify(7) does: both hang on the same call in the kernel).
    MemoryEvents { events: OwnedFd, dir: Dir, seen: u64 },
    /// No memory controller.
    Nothing,
}

impl OomWatch {
    /// Watches the cgroup from here on.
    ///
    /// # Errors
    /// The call that failed. Without a memory controller nothing is ever noticed.
    pub fn new(location: &Location) -> Result<Self> {
        let has_memory = |hierarchy: &str| hierarchy.split(',').any(|controller| controller == "memory");
        let directories = &location.directories;
        if let Some(v1) = directories.iter().find(|directory| has_memory(&directory.hierarchy)) {
            return Self::on_v1(Dir::new(&v1.path));
        }
        match directories.iter().find(|directory| directory.hierarchy.is_empty()) {
            Some(v2) => Self::on_v2(Dir::new(&v2.path)),
            None => Ok(Self(Source::Nothing)),
        }
    }

    /// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>, section 9 and 10.
    fn on_v1(dir: Dir) -> Result<Self> {
        let eventfd =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).call(|| "eventfd2(0)")?;
        let control = dir
            .open("memory.oom_control", OFlag::O_RDONLY)
            .call(|| format!("open({:?})", dir.path().join("memory.oom_control")))?;
        // Once registered it needs the file no longer.
        dir.write("cgroup.event_control", &format!("{} {}", eventfd.as_fd().as_raw_fd(), control.as_raw_fd()))?;
        Ok(Self(Source::Eventfd { eventfd, dir }))
    }

    fn on_v2(dir: Dir) -> Result<Self> {
        let events = match dir.open("memory.events", OFlag::O_RDONLY) {
            Ok(events) => events,
            Err(Errno::ENOENT) => return Ok(Self(Source::Nothing)),
            Err(errno) => return Err(Error::call(format!("open({:?})", dir.path().join("memory.events")), errno)),
        };
        // What was killed before we came is not news.
        let seen = oom_kills(&events).call(|| format!("read({:?})", dir.path().join("memory.events")))?;
        Ok(Self(Source::MemoryEvents { events, dir, seen }))
    }

    /// What to poll(2), and for which events.
    pub fn polled(&self) -> Option<PollFd<'_>> {
        match &self.0 {
            Source::Eventfd { eventfd, .. } => Some(PollFd::new(eventfd.as_fd(), PollFlags::POLLIN)),
            Source::MemoryEvents { events, .. } => Some(PollFd::new(events.as_fd(), PollFlags::POLLPRI)),
            Source::Nothing => None,
        }
    }

    /// Whether memory ran out since this was asked last. Never for a cgroup that is gone. To be asked before every poll(2):
    /// that reports changes since the last read.
    ///
    /// # Errors
    /// The read that failed.
    pub fn take(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::Eventfd { eventfd, dir } => match eventfd.read() {
                Ok(_) => Ok(dir.path().exists()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno).call(|| "read(eventfd)"),
            },
            Source::MemoryEvents { events, dir, seen } => match oom_kills(events) {
                Ok(kills) => Ok(std::mem::replace(seen, kills) < kills),
                Err(Errno::ENODEV) => {
                    // The file of a cgroup that was removed reports a change for ever.
                    self.0 = Source::Nothing;
                    Ok(false)
                }
                Err(errno) => Err(errno).call(|| format!("read({:?})", dir.path().join("memory.events"))),
            },
            Source::Nothing => Ok(false),
        }
    }
}

/// The line `oom_kill` of `memory.events`.
fn oom_kills(events: &OwnedFd) -> nix::Result<u64> {
    let mut text = [0u8; 512];
    let count = pread(events, &mut text, 0)?;
    let text = std::str::from_utf8(&text[..count]).unwrap_or("");
    Ok(value(text, "oom_kill").and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// Waits until the line `key` of `cgroup.events` (`populated`, `frozen`) is `value`. A cgroup that is gone is neither
/// populated nor frozen.
pub(super) fn wait_for(dir: &Dir, key: &str, value: bool, deadline: Deadline) -> Result<Wait> {
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
    value(text, key).map(|value| value == "1")
}

/// The value of one line of a flat keyed file.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::trim)
}

/// poll(2) until one of `fds` reports or the deadline has passed.
pub(super) fn sleep_on(fds: &[OwnedFd], events: PollFlags, deadline: Deadline) -> Result<Wait> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd.as_fd(), events)).collect();
    deadline.poll(&mut polled).call(|| "poll()")
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
