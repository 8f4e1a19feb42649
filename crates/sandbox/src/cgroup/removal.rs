//! Taking a cgroup away: kill what is left, wait until it is gone, remove the directories bottom-up.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::PollFlags;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::Cgroup;
use super::dir::{Dir, tree};
use super::event;
use crate::error::CallContext;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::{Error, Result};

/// Removes the directories of `cgroup`. `unified` is its directory in cgroup2, where the host has one.
pub(super) fn remove(cgroup: &dyn Cgroup, unified: Option<&Dir>, deadline: Instant) -> Result<()> {
    // An empty cgroup without children, the usual case, is gone after one call per hierarchy.
    let mut left = Vec::new();
    for directory in &cgroup.location().directories {
        if !remove_one(&directory.path)? {
            left.push(directory.path.as_path());
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    cgroup.kill()?;
    if let Some(unified) = unified {
        // Whether it empties in time or not, what stays is named below.
        event::wait_for(unified, "populated", false, deadline)?;
    }
    for path in left {
        remove_tree(path, deadline)?;
    }
    Ok(())
}

/// rmdir(2). False if something is in it; one that is gone is removed.
fn remove_one(path: &Path) -> Result<bool> {
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EBUSY) => Ok(false),
        Err(errno) => Err(Error::call(format!("rmdir({path:?})"), errno)),
    }
}

/// Removes `path` and the cgroups that the container made below it; kills and waits for processes that are in this
/// hierarchy alone (on v1 a process may sit in different cgroups of different hierarchies).
fn remove_tree(path: &Path, deadline: Instant) -> Result<()> {
    let dir = Dir::new(path);
    loop {
        let mut busy = false;
        for directory in tree(path).call(|| format!("readdir({path:?})"))? {
            busy |= !remove_one(&directory)?;
        }
        if !busy {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(stayed(&dir)?);
        }
        let pidfds = kill_each(&dir)?;
        if pidfds.is_empty() {
            // EBUSY without a process: the last one is between its last line in cgroup.procs and its release of the
            // cgroup (kernel ≥ 6.19 unlinks a task after its last context switch). v1 has no event for that, and the
            // time is a few scheduler ticks at most.
            std::thread::sleep(Duration::from_millis(1));
        } else {
            event::sleep_on(&pidfds, PollFlags::POLLIN, deadline)?;
        }
    }
}

/// Sends SIGKILL to every process in `dir` and below, by pidfd: a pid that was reused since it was read is not signalled.
pub(super) fn kill_each(dir: &Dir) -> Result<Vec<OwnedFd>> {
    let mut opened: BTreeMap<Pid, OwnedFd> = BTreeMap::new();
    for pid in dir.pids()? {
        match pidfd_open(pid) {
            Ok(pidfd) => drop(opened.insert(pid, pidfd)),
            Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::call(format!("pidfd_open({pid})"), errno)),
        }
    }
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    // What is still listed now was there when its pidfd was opened: the fd is that very process.
    let listed = dir.pids()?;
    opened.retain(|pid, _| listed.binary_search(pid).is_ok());
    for (pid, pidfd) in &opened {
        match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::call(format!("pidfd_send_signal({pid}, SIGKILL)"), errno)),
        }
    }
    Ok(opened.into_values().collect())
}

/// The error for what is in `dir` at the deadline.
fn stayed(dir: &Dir) -> Result<Error> {
    let pids = dir.pids()?;
    let processes: Vec<String> = pids.iter().take(3).map(|&pid| describe(pid)).collect();
    let more = if pids.len() > 3 { format!(" and {} more", pids.len() - 3) } else { String::new() };
    let what = if processes.is_empty() { "no process is listed".to_owned() } else { processes.join(", ") };
    Ok(Error::Refused(format!("cgroup {:?} is still in use: {what}{more}", dir.path())))
}

/// `pid 42 (state D, wchan nfs_wait)`.
fn describe(pid: Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the state is the word after the last one.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
    let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let wchan = if wchan.is_empty() || wchan == "0" { "none" } else { wchan.as_str() };
    format!("pid {pid} (state {state}, wchan {wchan})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_state_and_wchan() {
        let text = describe(Pid::this());
        assert!(
            text.starts_with(&format!("pid {} (state R, wchan ", Pid::this())) || text.contains("state S"),
            "{text}"
        );
        assert_eq!(describe(Pid::from_raw(i32::MAX)), format!("pid {} (state ?, wchan none)", i32::MAX));
    }
}
