//! pidfds: a process that cannot be mistaken for a later one with its number.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

/// `pidfd_open(pid, 0)`. Kernel ≥ 5.3. Readable (poll(2)) once the process has ended; close-on-exec.
///
/// <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>
///
/// # Errors
/// ESRCH if there is no such process.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: no pointers; both arguments are integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).expect("the kernel returns fds as int");
    // SAFETY: the kernel has just returned this fd as a new one, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)`. Kernel ≥ 5.1.
///
/// <https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html>
///
/// # Errors
/// ESRCH if the process has ended and was waited for, EPERM.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> nix::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo asks the kernel to fill one in as kill(2) does; the other arguments are integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    Errno::result(result).map(drop)
}
