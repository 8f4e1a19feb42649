//! close_range(2), dup3(2) onto numbers.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::check;

/// `close_range(first, ~0U, CLOSE_RANGE_CLOEXEC)`: everything from `first` up closes at the next exec.
///
/// Linux 5.11. <https://man7.org/linux/man-pages/man2/close_range.2.html>
///
/// # Errors
/// `ENOSYS` on an older kernel.
pub fn cloexec_from(first: u32) -> nix::Result<()> {
    // SAFETY: integers only; setting close-on-exec invalidates no descriptor that safe code owns.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Keeps stdio, the `preserve` descriptors after it and those in `keep`, and closes all others. The kept ones are
/// renumbered to follow the preserved ones and close at exec.
///
/// For a process that is about to exec or exit: it closes descriptors that others may still believe they own, so
/// everything that is to live must come through `keep`.
///
/// Linux 5.9 (close_range).
///
/// # Errors
/// `EMFILE` when the limit on open files leaves no room.
pub fn close_others<const N: usize>(preserve: u32, keep: [OwnedFd; N]) -> nix::Result<[OwnedFd; N]> {
    let first = RawFd::try_from(3 + preserve).map_err(|_| Errno::EBADF)?;
    let count = RawFd::try_from(N).map_err(|_| Errno::EINVAL)?;
    // Above the range they move to, so that no move overwrites one that has yet to move.
    let mut above = Vec::with_capacity(N);
    for fd in keep {
        // SAFETY: the descriptor is owned, so open; F_DUPFD_CLOEXEC takes the lowest free number wanted as an int.
        let raised = check(unsafe {
            libc::c_long::from(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first + count))
        })?;
        // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
        above.push(unsafe { OwnedFd::from_raw_fd(raised as RawFd) });
    }
    for (target, fd) in (first..).zip(&above) {
        // SAFETY: a target number may belong to a descriptor that is being given up, as documented.
        check(unsafe { libc::c_long::from(libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC)) })?;
    }
    for fd in above {
        let _closed_below = fd.into_raw_fd();
    }
    // SAFETY: integers only. The process gives up all descriptors from here on, as documented.
    check(unsafe { libc::syscall(libc::SYS_close_range, (first + count) as u32, u32::MAX, 0) })?;
    let mut number = first;
    Ok(std::array::from_fn(|_| {
        let raw = number;
        number += 1;
        // SAFETY: dup3 above made `raw` for us, once per index.
        unsafe { OwnedFd::from_raw_fd(raw) }
    }))
}

/// Whether descriptor `number` is open.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointer and fails with EBADF for a closed number.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Clears close-on-exec of descriptor `number`, for one that the container inherits.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherit(number: RawFd) -> nix::Result<()> {
    // SAFETY: F_SETFD takes an int.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })).map(drop)
}

/// `dup3(fd, number, 0)`: makes `fd` the standard descriptor `number` (0, 1 or 2), inherited by exec.
///
/// # Errors
/// `EBADF`, `EBUSY`.
pub fn become_stdio(fd: &OwnedFd, number: RawFd) -> nix::Result<()> {
    debug_assert!((0..3).contains(&number));
    // SAFETY: stdio is owned by nobody in this crate; replacing what it refers to is the purpose.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), number) })).map(drop)
}
