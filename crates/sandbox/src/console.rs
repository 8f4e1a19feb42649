//! The container's terminal: made inside its devpts, handed to whoever asked for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, socketpair};

use crate::error::{CallContext, Context};
use crate::sys::{self, tty};
use crate::{Error, Result};

/// What the message with the terminal's descriptor says: receivers use it as the descriptor's name.
const NAME: &[u8] = b"/dev/ptmx";

/// Connects to the socket at `path`, on which somebody waits for a descriptor.
///
/// # Errors
/// Nobody listens; a path longer than a socket address.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).call(|| "socket()")?;
    let address = UnixAddr::new(path).call(|| format!("connect({path:?})"))?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).call(|| format!("connect({path:?})"))?;
    Ok(socket)
}

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
    sys::socket::send_fd(receiver, NAME, ptmx).call(|| "sendmsg(console socket)")
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
