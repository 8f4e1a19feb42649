//! clone3(2).

use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
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

/// Where the kernel writes the pid of a child before the child runs, `CLONE_PARENT_SETTID`: memory that is shared over forks.
/// Whoever forks may be killed in that moment; the pid is there all the same.
#[derive(Debug)]
pub struct Birth(NonNull<AtomicI32>);

impl Birth {
    const BYTES: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicI32>()).unwrap();

    /// Of nobody yet.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> nix::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes: it lies over nothing.
        let page = unsafe { mmap_anonymous(None, Self::BYTES, protection, MapFlags::MAP_SHARED) }?;
        let birth = Self(page.cast());
        // The page is there from now on, at the expense of the cgroup that we are in now.
        birth.pid().store(0, Ordering::Relaxed);
        Ok(birth)
    }

    fn pid(&self) -> &AtomicI32 {
        // SAFETY: the mapping is as large, aligned to a page, and lives as long as `self`. Any bytes are a valid integer, and
        // those who share it, other processes and the kernel, write it whole.
        unsafe { self.0.as_ref() }
    }

    /// The child, in the pid namespace of the one that forked; once.
    pub fn take(&self) -> Option<Pid> {
        Some(self.pid().swap(0, Ordering::Acquire)).filter(|pid| *pid > 0).map(Pid::from_raw)
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        let _unmapped = unsafe { munmap(self.0.cast(), Self::BYTES.get()) };
    }
}

/// `clone3({flags, exit_signal: SIGCHLD, cgroup}, sizeof(struct clone_args))`: forks, into new namespaces and into
/// the cgroup2 directory `cgroup` when given. With `CLONE_PARENT` the child becomes a sibling. `birth` is told of it.
///
/// Linux 5.7 for `cgroup`, 5.3 without. <https://man7.org/linux/man-pages/man2/clone.2.html>
///
/// # Errors
/// `EAGAIN` (pids limit), `EPERM` (namespaces without privilege), `EBUSY` or `EOPNOTSUPP` (the cgroup cannot hold
/// processes), `ENOSYS` (a seccomp filter or an old kernel), `ENOSPC` (too many namespaces).
pub fn clone3(
    _proof: SingleThreaded,
    flags: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    birth: Option<&Birth>,
) -> nix::Result<Side> {
    // SAFETY: clone_args is plain integers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // CLONE_PARENT makes the kernel use the parent's own exit signal and refuse another.
    if flags & libc::CLONE_PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(birth) = birth {
        args.flags |= libc::CLONE_PARENT_SETTID as u64;
        args.parent_tid = birth.0.as_ptr() as u64;
    }
    args.cgroup = cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64);
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call, as does `birth`, to which the kernel
    // writes a pid_t. Without CLONE_VM the child has its
    // own copy of the memory, on the same stack address; `_proof` says that no other thread existed, so no lock of
    // libc is held by a thread that the child lacks. libc's atfork handlers are skipped: none is registered. Its cached
    // thread id goes stale in the child, which only raise(3), abort(3) and recursive mutexes read: start.rs ends a panic without them.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    match libc::pid_t::try_from(pid) {
        Ok(0) => Ok(Side::Child),
        Ok(pid) => Ok(Side::Parent(Pid::from_raw(pid))),
        Err(_) => unreachable!("the kernel's pids fit pid_t"),
    }
}
