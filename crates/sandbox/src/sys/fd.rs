//! close_range(2), dup3(2) onto numbers.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

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
/// `EMFILE` when the limit on open files leaves no room; then nothing has changed.
pub fn close_others<const N: usize>(preserve: u32, keep: [&mut OwnedFd; N]) -> nix::Result<()> {
    let first = RawFd::try_from(3 + preserve).map_err(|_| Errno::EBADF)?;
    let count = RawFd::try_from(N).map_err(|_| Errno::EINVAL)?;
    // Above the range they move to, so that no move overwrites one that has yet to move.
    let mut above = Vec::with_capacity(N);
    for fd in &keep {
        // SAFETY: the descriptor is owned, so open; F_DUPFD_CLOEXEC takes the lowest number wanted as an int.
        let raised = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first + count) };
        check(libc::c_long::from(raised))?;
        // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
        above.push(unsafe { OwnedFd::from_raw_fd(raised) });
    }
    for ((target, fd), kept) in (first..).zip(&above).zip(keep) {
        // SAFETY: a target number may belong to a descriptor that is being given up, as documented.
        check(libc::c_long::from(unsafe { libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC) }))?;
        // SAFETY: dup3 just made `target` for us, and no number is made twice.
        let moved = unsafe { OwnedFd::from_raw_fd(target) };
        // The old number was overwritten, or is closed below.
        let _given_up = std::mem::replace(kept, moved).into_raw_fd();
    }
    for fd in above {
        let _closed_below = fd.into_raw_fd();
    }
    let rest = libc::c_uint::try_from(first + count).map_err(|_| Errno::EBADF)?;
    // SAFETY: integers only. The process gives up all descriptors from here on, as documented.
    check(unsafe { libc::syscall(libc::SYS_close_range, rest, u32::MAX, 0) }).map(drop)
}

/// Closes everything but stdio, the `preserve` descriptors after it and those in `keep`, which stay where they are. For a
/// forked child, whose parent's descriptors nobody will use any more.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_except(preserve: u32, keep: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first = 3 + preserve;
    for number in kept.into_iter().chain([u32::MAX]) {
        if number > first {
            // SAFETY: integers only. The child gives up these descriptors, as documented.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) })?;
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

/// Clears close-on-exec of descriptor `number`, for one that the container inherits.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherit(number: RawFd) -> nix::Result<()> {
    // SAFETY: F_SETFD takes an int.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })).map(drop)
}

/// A descriptor of our caller's by its number, which was named on the command line.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn borrow_callers(number: RawFd) -> nix::Result<BorrowedFd<'static>> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: F_GETFD takes no argument.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: open, as just seen, and nobody's in this process: what our caller has opened is never closed.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
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

/// Descriptor 0, which may be closed: then calls on it fail with `EBADF`.
pub fn stdin() -> BorrowedFd<'static> {
    // SAFETY: stdio is open for the life of the process, or closed for all of it (main opens what its caller closed).
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Descriptor 1; as [`stdin`].
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as for stdin.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Descriptor 2; as [`stdin`].
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for stdin.
    unsafe { BorrowedFd::borrow_raw(2) }
}
