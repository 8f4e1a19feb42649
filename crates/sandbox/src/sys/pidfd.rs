//! pidfd_open(2), pidfd_send_signal(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::check;

/// `pidfd_open(pid, 0)`: a handle that keeps meaning this process even if its pid is given to another.
///
/// Linux 5.3. <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>
///
/// # Errors
/// `ESRCH` when there is no such process. Linux 6.12 says `EINVAL` (6.18 `ESRCH`) as long as the number of a process that was
/// reaped lives on as that of a process group or session; without flags it has no other meaning than "no such process".
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: two integers, no pointers.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) });
    let fd = opened.map_err(|errno| if errno == Errno::EINVAL { Errno::ESRCH } else { errno })?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(pidfd, signal, NULL, 0)`.
///
/// Linux 5.1. <https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html>
///
/// # Errors
/// `ESRCH` when the process has been reaped, `EINVAL` for no such signal.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> nix::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo means what kill(2) would send; the descriptor is borrowed and thus open.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use nix::sys::signal::{Signal, killpg};

    use super::*;

    #[test]
    fn a_number_that_lives_on_as_a_process_group_is_no_process() {
        let mut leader =
            Command::new("sh").args(["-c", "sleep 1000 & exit"]).process_group(0).spawn().expect("sh starts");
        let pid = Pid::from_raw(leader.id().try_into().expect("a pid"));
        leader.wait().expect("it ends");
        let opened = pidfd_open(pid);
        killpg(pid, Signal::SIGKILL).expect("sleep is in the group");
        assert_eq!(opened.err(), Some(Errno::ESRCH));
    }
}
