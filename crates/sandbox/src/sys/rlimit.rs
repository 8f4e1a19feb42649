//! prlimit(2).

use nix::unistd::Pid;

use super::check;

/// The type of `RLIMIT_*`, on which the C libraries do not agree.
#[cfg(target_env = "gnu")]
pub type Resource = libc::c_uint;
/// The type of `RLIMIT_*`, on which the C libraries do not agree.
#[cfg(not(target_env = "gnu"))]
pub type Resource = libc::c_int;

/// `prlimit(pid, resource, &{soft, hard}, NULL)`; pid 0 is the caller. `u64::MAX` is "unlimited".
///
/// <https://man7.org/linux/man-pages/man2/prlimit.2.html>
///
/// # Errors
/// `EPERM` when the hard limit rises without CAP_SYS_RESOURCE in the initial user namespace, `EINVAL` when soft > hard.
pub fn set(pid: Pid, resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let no_old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `limit` lives through the call; a null old limit is not written.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, &raw const limit, no_old) }).map(drop)
}
