//! ioctl_tty(2), pty(7).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Rows and columns of a terminal, in characters.
pub type Size = libc::winsize;

/// `ioctl(ptmx, TIOCSPTLCK, 0)`, then `ioctl(ptmx, TIOCGPTPEER, O_RDWR|O_NOCTTY|O_CLOEXEC)`: opens the other side of a
/// pty without a path that somebody could have changed. Linux 4.13.
///
/// # Errors
/// `ENOTTY` when `ptmx` is no pty master.
pub fn open_peer(ptmx: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives through the call.
    check(libc::c_long::from(unsafe { libc::ioctl(ptmx.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an int and returns a new descriptor.
    let fd = check(libc::c_long::from(unsafe { libc::ioctl(ptmx.as_raw_fd(), libc::TIOCGPTPEER, flags) }))?;
    let fd = libc::c_int::try_from(fd).map_err(|_| nix::errno::Errno::EBADF)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `ioctl(tty, TIOCSCTTY, 0)`: makes `tty` the controlling terminal of this session's leader.
///
/// # Errors
/// `EPERM` when the caller leads no session or the terminal belongs to another.
pub fn set_controlling(tty: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an int.
    check(libc::c_long::from(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// `ioctl(tty, TIOCGWINSZ, &size)`.
///
/// # Errors
/// `ENOTTY`.
pub fn size(tty: BorrowedFd<'_>) -> nix::Result<Size> {
    let mut size = Size { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills one winsize, which lives through the call.
    check(libc::c_long::from(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }))?;
    Ok(size)
}

/// `ioctl(tty, TIOCSWINSZ, &size)`.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(tty: BorrowedFd<'_>, size: Size) -> nix::Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
    check(libc::c_long::from(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })).map(drop)
}
