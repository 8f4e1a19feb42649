//! clone3(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::Pid;

use super::check;
use super::thread::SingleThreaded;

/// `CLONE_INTO_CGROUP`, Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the fork runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller, with the child's pid in the caller's pid namespace.
    Parent(Pid),
    /// The child.
    Child,
}

/// `clone3({flags, exit_signal: SIGCHLD, cgroup}, sizeof(struct clone_args))`: forks, into new namespaces and into
/// the cgroup2 directory `cgroup` when given. With `CLONE_PARENT` the child becomes a sibling.
///
/// Linux 5.7 for `cgroup`, 5.3 without. <https://man7.org/linux/man-pages/man2/clone.2.html>
///
/// # Errors
/// `EAGAIN` (pids limit), `EPERM` (namespaces without privilege), `EBUSY` or `EOPNOTSUPP` (the cgroup cannot hold
/// processes), `ENOSYS` (a seccomp filter or an old kernel), `ENOSPC` (too many namespaces).
pub fn clone3(_proof: SingleThreaded, flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Side> {
    // SAFETY: clone_args is plain integers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // CLONE_PARENT makes the kernel use the parent's own exit signal and refuse another.
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args.cgroup = cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64);
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call. Without CLONE_VM the child has its
    // own copy of the memory, on the same stack address; `_proof` says that no other thread existed, so no lock of
    // libc is held by a thread that the child lacks. libc's atfork handlers are skipped: none is registered. Its cached
    // thread id goes stale in the child, which only raise(3) and recursive mutexes read, and we use neither.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    match libc::pid_t::try_from(pid) {
        Ok(0) => Ok(Side::Child),
        Ok(pid) => Ok(Side::Parent(Pid::from_raw(pid))),
        Err(_) => unreachable!("the kernel's pids fit pid_t"),
    }
}
