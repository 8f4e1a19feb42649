//! Which process is a container's init.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::CallContext;
use crate::sys::path::open;
use crate::{Error, Result};

/// `init`: which process is the container's. The start time makes it exact: pids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// The pid on the host.
    pub pid: Pid,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub start_time: u64,
}

impl Init {
    /// The text of the link `init`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (pid, start_time) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        Some(Self { pid: Pid::from_raw(pid), start_time: start_time.parse().ok()? })
    }

    /// The record of a process that exists, which the caller knows not to be reaped meanwhile.
    ///
    /// # Errors
    /// No such process.
    pub fn of(pid: Pid) -> Result<Self> {
        match process_stat(pid)? {
            Some(stat) => Ok(Self { pid, start_time: stat.start_time }),
            None => Err(Error::call(format!("open(\"/proc/{pid}/stat\")"), Errno::ENOENT)),
        }
    }

    /// Whether the process still runs: it exists, it is this one, and it is not a zombie.
    ///
    /// # Errors
    /// procfs cannot be read.
    pub fn is_alive(self) -> Result<bool> {
        Ok(process_stat(self.pid)?.is_some_and(|stat| stat.start_time == self.start_time && !stat.ended))
    }

    /// A handle on the process, if it still is this one.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn open(self) -> Result<OwnedFd> {
        let pidfd = match crate::sys::pidfd::pidfd_open(self.pid) {
            Err(Errno::ESRCH) => return Err(Error::NotRunning),
            opened => opened.call(|| format!("pidfd_open({})", self.pid))?,
        };
        // Looked at after the handle was taken: what it says is true of the handle's process.
        if self.is_alive()? { Ok(pidfd) } else { Err(Error::NotRunning) }
    }
}

/// The text of the link `init`.
impl std::fmt::Display for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.start_time)
    }
}

/// Whether a signal has stopped the process. One that is gone is not.
///
/// # Errors
/// procfs cannot be read.
pub fn is_stopped(pid: Pid) -> Result<bool> {
    Ok(process_stat(pid)?.is_some_and(|stat| stat.stopped))
}

struct ProcessStat {
    start_time: u64,
    ended: bool,
    stopped: bool,
}

/// Reads `/proc/<pid>/stat`, proc_pid_stat(5); None when there is no such process.
fn process_stat(pid: Pid) -> Result<Option<ProcessStat>> {
    let path = format!("/proc/{pid}/stat");
    let mut text = [0; 1024];
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let length = match open(path.as_str(), flags, Mode::empty()).and_then(|file| nix::unistd::read(file, &mut text)) {
        Ok(length) => length,
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno).call(|| format!("read({path:?})")),
    };
    parse_stat(&text[..length]).map(Some).ok_or_else(|| Error::Refused(format!("{path:?}: unexpected text")))
}

/// The state letter and field 22. The second field, the command's name, may contain anything but ends with the last `)`.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(text.get(name_end + 2..)?).ok()?.split(' ');
    let state = fields.next()?;
    let start_time = fields.nth(18)?.trim_end().parse().ok()?;
    Some(ProcessStat { start_time, ended: matches!(state, "Z" | "X"), stopped: state == "T" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_forge_its_start_time() {
        let text = b"7 (a) Z 1 (b)) R 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.start_time, stat.ended, stat.stopped), (4711, false, false));
        let text = b"7 (a) R) T 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert!(parse_stat(text).unwrap().stopped);
        assert!(parse_stat(b"7 (a").is_none() && parse_stat(b"").is_none());
    }
}
