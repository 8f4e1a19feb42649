//! Sockets that somebody else listens on, who may neither accept nor read: nobody is waited for past the deadline.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect as connect_socket, getsockopt, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;

use crate::cgroup::describe_process;
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::{Result, sys};

/// Connects to the socket at `path`.
///
/// # Errors
/// Nobody listens, or accepts in time; a path longer than a socket address.
pub(crate) fn connect_to(path: &Path, deadline: Deadline) -> Result<OwnedFd> {
    let name = format!("{path:?}");
    connect(&UnixAddr::new(path).call(|| format!("connect({name})"))?, &name, deadline)
}

/// socket(2) and connect(2), which on AF_UNIX waits while the other side's backlog is full. `name` is the address in an error.
///
/// # Errors
/// Nobody listens, or accepts in time.
pub(crate) fn connect(address: &UnixAddr, name: &str, deadline: Deadline) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).call(|| "socket()")?;
    limit_sends(&socket, deadline)?;
    loop {
        match connect_socket(socket.as_raw_fd(), address) {
            Ok(()) => return Ok(socket),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(deadline.late("nobody accepts")).during(|| format!("connect({name})")),
            Err(errno) => return Err(errno).call(|| format!("connect({name})")),
        }
    }
}

/// Has connect(2) and send(2) on `socket` end with EAGAIN at the deadline: SO_SNDTIMEO.
///
/// # Errors
/// The call that failed.
pub(crate) fn limit_sends(socket: &impl AsFd, deadline: Deadline) -> Result<()> {
    let Some(left) = deadline.left() else { return Ok(()) };
    // Zero would be for ever.
    let timeout = TimeVal::microseconds(i64::try_from(left.as_micros().max(1)).unwrap_or(i64::MAX));
    setsockopt(socket, sockopt::SendTimeout, &timeout).call(|| "setsockopt(SO_SNDTIMEO)")
}

/// Sends all of `payload`, and `fd` with its first byte, on a stream. `what` is the socket in an error.
///
/// # Errors
/// The call that failed; nobody reads it in time.
pub(crate) fn send_fd(
    socket: &OwnedFd,
    payload: &[u8],
    fd: BorrowedFd<'_>,
    deadline: Deadline,
    what: &str,
) -> Result<()> {
    let mut rest = payload;
    while !rest.is_empty() {
        // What is longer than the buffer goes in parts; each is waited for as long as there is time left.
        limit_sends(socket, deadline)?;
        let sent = if rest.len() == payload.len() {
            sys::socket::send_fd(socket.as_fd(), rest, fd)
        } else {
            send(socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL)
        };
        match sent {
            Ok(count) => rest = &rest[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let who = maker(socket).map_or_else(String::new, |who| format!(": {who}"));
                return Err(deadline.late(format_args!("nobody reads{who}"))).during(|| format!("sendmsg({what})"));
            }
            Err(errno) => return Err(errno).call(|| format!("sendmsg({what})")),
        }
    }
    Ok(())
}

/// Who has made the socket at the other side, in words for an error; None is somebody outside of our pid namespace.
pub(crate) fn maker(socket: &OwnedFd) -> Option<String> {
    let pid = getsockopt(socket, sockopt::PeerCredentials).map(|peer| Pid::from_raw(peer.pid())).ok()?;
    (pid.as_raw() > 0).then(|| describe_process(pid))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn who_does_not_accept_is_waited_for_no_longer_than_the_deadline() {
        let path = std::env::temp_dir().join(format!("tare-peer-{}", std::process::id()));
        let _mute = UnixListener::bind(&path).unwrap();
        let mut held = Vec::new();
        let error = loop {
            match connect_to(&path, Deadline::after(SOON)) {
                Ok(socket) if held.len() < 10_000 => held.push(socket),
                Ok(_) => panic!("a backlog without end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), format!("connect({path:?}): timed out after 50 ms: nobody accepts"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_longer_than_the_buffer_arrives_whole_or_the_reader_that_does_not_read_is_named() {
        let payload = vec![b'x'; 1 << 22];
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        let begun = Instant::now();
        let late = send_fd(&ours, &payload, theirs.as_fd(), Deadline::after(SOON), "agent").unwrap_err().to_string();
        let text = format!("sendmsg(agent): timed out after 50 ms: nobody reads: pid {} ", Pid::this());
        assert!(late.starts_with(&text), "{late}");
        assert!(begun.elapsed() < Duration::from_secs(30));

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (ours, other) = (OwnedFd::from(ours), theirs.try_clone().unwrap());
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 1 << 22];
            theirs.read_exact(&mut all).map(|()| all)
        });
        send_fd(&ours, &payload, other.as_fd(), Deadline::after(Duration::from_secs(30)), "agent").unwrap();
        assert!(reader.join().unwrap().unwrap() == payload);
    }
}
