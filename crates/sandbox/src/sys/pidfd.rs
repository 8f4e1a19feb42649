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
/// `ESRCH` when there is no such process. That is also what `EINVAL` means here: without flags some kernels (6.12; not 6.18)
/// have it for a number that is no process's any more but still that of a process group or session.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: two integers, no pointers.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) });
    let fd = opened.map_err(|errno| if errno == Errno::EINVAL { Errno::ESRCH } else { errno })?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_open(0, 0)`: whether there is the call, for no process has that number.
///
/// # Errors
/// `ENOSYS`, or what a seccomp filter around us says.
pub fn probe() -> nix::Result<()> {
    // SAFETY: two integers, no pointers.
    match check(unsafe { libc::syscall(libc::SYS_pidfd_open, 0, 0) }) {
        Err(Errno::EINVAL) => Ok(()),
        answer => answer.map(drop),
    }
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
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn the_number_of_a_process_group_without_its_leader_is_no_process() {
        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 600 > /dev/null & echo $!"]).process_group(0).stdout(Stdio::piped());
        let leader = leader.spawn().unwrap();
        let number = Pid::from_raw(leader.id().cast_signed());
        let printed = leader.wait_with_output().unwrap().stdout;
        let opened = pidfd_open(number);
        let member = Pid::from_raw(String::from_utf8(printed).unwrap().trim().parse().unwrap());
        nix::sys::signal::kill(member, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(opened.unwrap_err(), Errno::ESRCH);
    }
}
