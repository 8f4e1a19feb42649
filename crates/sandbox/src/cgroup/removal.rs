//! Taking a cgroup away: kill what is left, wait until it is gone, remove the directories bottom-up.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::poll::PollFlags;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::Cgroup;
use super::dir::{Dir, tree};
use super::event::{self, Wait};
use crate::deadline::Deadline;
use crate::error::CallContext;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::{Error, Result};

/// Removes the directories of `cgroup`. `unified` is its directory in cgroup2, where the host has one.
pub(super) fn remove(cgroup: &dyn Cgroup, unified: Option<&Dir>, deadline: Deadline) -> Result<()> {
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
    match unified {
        // Whether it empties in time or not, what stays is named below.
        Some(unified) => drop(kill_until_empty(cgroup, unified, deadline)?),
        None => cgroup.kill()?,
    }
    for path in left {
        remove_tree(path, deadline)?;
    }
    Ok(())
}

/// How long to wait for the killed before they are killed again: a process can have entered since, or have dropped the
/// signal.
const BEFORE_KILLING_AGAIN: Duration = Duration::from_millis(500);

/// Kills everything, waits for `cgroup.events` to say that nothing is left, and kills again what has come or stayed.
fn kill_until_empty(cgroup: &dyn Cgroup, unified: &Dir, deadline: Deadline) -> Result<Wait> {
    loop {
        cgroup.kill()?;
        let next = deadline.sooner(BEFORE_KILLING_AGAIN);
        if event::wait_for(unified, "populated", false, next)? == Wait::Done {
            return Ok(Wait::Done);
        }
        if deadline.passed() {
            return Ok(Wait::Late);
        }
    }
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
fn remove_tree(path: &Path, deadline: Deadline) -> Result<()> {
    let dir = Dir::new(path);
    loop {
        let mut busy = false;
        for directory in tree(path).call(|| format!("readdir({path:?})"))? {
            busy |= !remove_one(&directory)?;
        }
        if !busy {
            return Ok(());
        }
        if deadline.passed() {
            return Err(stayed(&dir, deadline)?);
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

/// The error for what is in `dir` at the deadline: processes, or else the cgroups that are left.
fn stayed(dir: &Dir, deadline: Deadline) -> Result<Error> {
    let pids = dir.pids()?;
    let left = if pids.is_empty() {
        let below = tree(dir.path()).call(|| format!("readdir({:?})", dir.path()))?;
        the_first(below.iter().map(|path| format!("no process is listed in {path:?}")))
    } else {
        describe_all(&pids)
    };
    Ok(deadline.late(format_args!("cgroup {:?} is still in use: {left}", dir.path())))
}

/// Three of them, and how many there are besides.
fn the_first(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(3);
    let first = all.take(3).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// [`describe`], for the first of several.
pub(crate) fn describe_all(pids: &[Pid]) -> String {
    the_first(pids.iter().map(|&pid| describe(pid)))
}

/// The processes of a cgroup that sleep uninterruptibly, for the error about one that does not freeze: nothing says which it
/// was, but these are the ones that can. Begins with a colon, unless it is empty.
pub(super) fn sleepers(dir: &Dir) -> Result<String> {
    let described = dir.pids()?.into_iter().map(describe);
    let sleeping: Vec<String> = described.filter(|text| text.contains("(state D, ")).take(3).collect();
    Ok(if sleeping.is_empty() { String::new() } else { format!(": {}", sleeping.join(", ")) })
}

/// `pid 42 "cp" (state D, wchan nfs_wait)`: what a process that does not end is doing.
pub(crate) fn describe(pid: Pid) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name in parentheses may hold anything; the state is the word after the last one.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
    let wchan = read("wchan");
    let wchan = if wchan.is_empty() || wchan == "0" { "none" } else { wchan.as_str() };
    format!("pid {pid} {:?} (state {state}, wchan {wchan})", read("comm").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::scratch::{Process, Scratch, enter_pure_cgroup2, needs_v1, soon};
    use nix::sys::ptrace;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::time::Instant;

    #[test]
    fn a_process_is_described_by_name_state_and_wchan() {
        let text = describe(Pid::this());
        assert!(text.starts_with(&format!("pid {} \"", Pid::this())), "{text}");
        assert!(text.contains("(state R, wchan ") || text.contains("(state S, wchan "), "{text}");
        assert_eq!(describe(Pid::from_raw(i32::MAX)), format!("pid {} \"\" (state ?, wchan none)", i32::MAX));
    }

    /// A process that a tracer holds on its way out: the kernel drops every further signal, SIGKILL too.
    struct Held(Process);

    impl Held {
        fn within(scratch: &Scratch) -> Self {
            let held = scratch.sleeper();
            let pid = Pid::from_raw(held.pid());
            ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).unwrap();
            kill(pid, Signal::SIGKILL).unwrap();
            let status = waitpid(pid, None).unwrap();
            assert!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
            Self(held)
        }

        fn let_go(self) {
            let _killed_again = ptrace::detach(Pid::from_raw(self.0.pid()), None);
        }
    }

    fn what_stays_is_named(scratch: &Scratch) {
        let held = Held::within(scratch);
        let pid = held.0.pid();
        let begun = Instant::now();
        let removed = scratch.0.remove(Deadline::after(Duration::from_millis(700)));
        let took = begun.elapsed();
        let listed = scratch.0.pids().unwrap();
        held.let_go();
        let error = removed.unwrap_err().to_string();
        assert!(error.contains(&format!("is still in use: pid {pid} \"sleep\" (state ")), "{error}");
        assert!(listed.contains(&Pid::from_raw(pid)));
        assert!(took < Duration::from_secs(5), "{took:?}");
        scratch.0.remove(soon()).unwrap();
        assert!(scratch.gone());
    }

    #[test]
    fn what_stays_at_the_deadline_is_named_on_v1() {
        needs_v1!();
        what_stays_is_named(&Scratch::created());
    }

    #[test]
    fn what_stays_at_the_deadline_is_named_on_v2() {
        enter_pure_cgroup2();
        what_stays_is_named(&Scratch::created());
    }

    #[test]
    fn a_process_that_enters_after_the_kill_is_killed_too() {
        enter_pure_cgroup2();
        let scratch = Scratch::created();
        let _first = scratch.sleeper();
        let held = Held::within(&scratch);
        let late = Process::sleeping();
        let procs = scratch.dir("").join("cgroup.procs");
        std::thread::scope(|scope| {
            let removal = scope.spawn({
                let location = scratch.0.location().clone();
                // In our mount namespace, but with a manager of its own: one is for one thread.
                move || crate::cgroup::open(&location).remove(soon())
            });
            // Whatever it has killed by now, this one comes later.
            std::thread::sleep(Duration::from_millis(100));
            std::fs::write(&procs, late.pid().to_string()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            held.let_go();
            removal.join().unwrap().unwrap();
        });
        assert!(scratch.gone());
    }

    #[test]
    fn nested_cgroups_that_the_container_froze_are_thawed_and_removed_on_v1() {
        needs_v1!();
        let scratch = Scratch::created();
        let process = scratch.sleeper();
        let inner = scratch.dir("freezer").join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("cgroup.procs"), process.pid().to_string()).unwrap();
        std::fs::write(inner.join("freezer.state"), "FROZEN").unwrap();
        scratch.0.remove(soon()).unwrap();
        assert!(scratch.gone());
    }
}
