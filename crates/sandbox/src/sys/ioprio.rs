//! ioprio_set(2).

use nix::unistd::Pid;

use super::check;

const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// `ioprio_set(IOPRIO_WHO_PROCESS, pid, ioprio)`; pid 0 is the caller.
///
/// <https://man7.org/linux/man-pages/man2/ioprio_set.2.html>
///
/// # Errors
/// `EPERM` (the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE), `EINVAL`, `ESRCH`.
pub fn ioprio_set(pid: Pid, ioprio: libc::c_int) -> nix::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), ioprio) }).map(drop)
}
