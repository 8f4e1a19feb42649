//! seccomp(2), pidfd_getfd(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use seccompiler::sock_filter;

use super::check;

/// `struct sock_fprog`, `<linux/filter.h>`.
#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const sock_filter,
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, program)`. The descriptor of the notifications with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0), close-on-exec; None without.
///
/// seccompiler's own loader sets no_new_privs, which is the configuration's to say, and takes no flags.
///
/// Linux 3.17. <https://man7.org/linux/man-pages/man2/seccomp.2.html>
///
/// # Errors
/// `EACCES` without no_new_privs and CAP_SYS_ADMIN, `EINVAL` for a bad program or flag, `EBUSY` when there is a listener
/// already, `ENOMEM` for too many filters.
pub fn set_mode_filter(program: &[sock_filter], flags: libc::c_ulong) -> nix::Result<Option<OwnedFd>> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = Program { len, filter: program.as_ptr() };
    // SAFETY: `program` points to `len` instructions of the kernel's layout, which live through the call; the kernel
    // copies them. With the flags of this crate (no TSYNC) the result is 0, a descriptor, or -1.
    let result =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = RawFd::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// `pidfd_getfd(pidfd, number, 0)`: a duplicate of a descriptor of another process, close-on-exec.
///
/// Linux 5.6. <https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html>
///
/// # Errors
/// `EPERM` when the process may not be traced, `EBADF` when it has no such descriptor, `ESRCH` when it is gone.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: integers only; the pidfd is borrowed and thus open.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
