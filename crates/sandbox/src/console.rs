//! The container's terminal: made inside its devpts, handed to whoever asked for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::{CallContext, Context};
use crate::sys::{self, tty};
use crate::{Error, Result};

/// What the message with the terminal's descriptor says: receivers use it as the descriptor's name.
const NAME: &[u8] = b"/dev/ptmx";

/// A connection to ourselves, for a terminal in the foreground: (ours, the stage's).
///
/// # Errors
/// `EMFILE`.
pub fn own_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).call(|| "socketpair()")
}

/// Opens the other side of `ptmx`, gives it the size, sends `ptmx` away, and makes the other side this session's
/// controlling terminal and its standard input, output and error.
///
/// # Errors
/// The call that failed.
pub fn take(ptmx: &OwnedFd, peer: &OwnedFd, receiver: BorrowedFd<'_>, size: Option<(u16, u16)>) -> Result<()> {
    if let Some((ws_row, ws_col)) = size {
        let size = tty::Size { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tty::set_size(ptmx.as_fd(), size).call(|| "ioctl(TIOCSWINSZ)").during(|| "process.consoleSize")?;
    }
    hand_over(receiver, ptmx.as_fd())?;
    tty::set_controlling(peer.as_fd()).call(|| "ioctl(TIOCSCTTY)")?;
    for number in 0..3 {
        sys::fd::become_stdio(peer, number).call(|| format!("dup2(console, {number})"))?;
    }
    Ok(())
}

/// Sends the master side of a terminal away.
///
/// # Errors
/// Nobody takes it.
pub fn hand_over(receiver: BorrowedFd<'_>, ptmx: BorrowedFd<'_>) -> Result<()> {
    // Nothing was sent before: the kernel takes it, whether anybody reads or not.
    sys::socket::send_fd(receiver, NAME, ptmx).map(drop).call(|| "sendmsg(console socket)")
}

/// Receives the terminal that a stage sent.
///
/// # Errors
/// The stage sent nothing.
pub fn receive(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut name = [0; 4096];
    match sys::socket::receive_fd(socket.as_fd(), &mut name).call(|| "recvmsg(console)")? {
        (_, Some(ptmx)) => Ok(ptmx),
        (_, None) => Err(Error::Refused("the container's init sent no terminal".into())),
    }
}
