//! rtnetlink(7): requests, and what the kernel answers, for the few that are needed. No crate: those there are bring an
//! async runtime or the whole of the protocol.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const HEADER_BYTES: usize = 16;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// All objects, not one.
pub const NLM_F_DUMP: u16 = 0x300;
/// Make the object.
pub const NLM_F_CREATE: u16 = 0x400;
/// Take the place of one that exists.
pub const NLM_F_REPLACE: u16 = 0x100;

/// A socket of NETLINK_ROUTE. It belongs to the network namespace in which it was opened, wherever its owner goes.
#[derive(Debug)]
pub struct Route(OwnedFd);

/// A message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `RTM_*`.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Route {
    /// `socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)`
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn open() -> nix::Result<Self> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).map(Self)
    }

    /// Sends one request, and collects the answer until the kernel says that it is whole.
    ///
    /// # Errors
    /// What the kernel answers to the request.
    pub fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> nix::Result<Vec<Message>> {
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        // Sequence number and port: one request at a time on a socket of its own needs neither.
        request.extend([0; 8]);
        request.extend(body);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answers = Vec::new();
        // The kernel fills at most 32 KiB at once.
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            if let Some(result) = take_messages(&buffer[..count], &mut answers) {
                return result.map(|()| answers);
            }
        }
    }
}

/// Adds the messages of a datagram to `answers`. Some when the last of all has come.
fn take_messages(mut datagram: &[u8], answers: &mut Vec<Message>) -> Option<nix::Result<()>> {
    while datagram.len() >= HEADER_BYTES {
        let length = word(datagram, 0)? as usize;
        let kind = half(datagram, 4)?;
        let Some(body) = datagram.get(HEADER_BYTES..length) else { return Some(Err(Errno::EBADMSG)) };
        match kind {
            NLMSG_ERROR | NLMSG_DONE => {
                // Both begin with a negative errno, or zero; a DONE may have nothing.
                let errno = word(body, 0).map_or(0, u32::cast_signed);
                return Some(if errno == 0 { Ok(()) } else { Err(Errno::from_raw(-errno)) });
            }
            kind => answers.push(Message { kind, body: body.to_vec() }),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Adds an attribute, `struct rtattr` with padding.
pub fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The attributes from byte `at` of a message's body on.
pub fn attributes(body: &[u8], at: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(at..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        // The two highest bits are flags: nested, and in network order.
        let kind = half(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The 32 bits at byte `at`.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut body = vec![0; 8];
        push_attribute(&mut body, 3, b"eth0\0");
        push_attribute(&mut body, 28, &7_u32.to_ne_bytes());
        assert_eq!(body.len(), 8 + 12 + 8);
        let read: Vec<_> = attributes(&body, 8).collect();
        assert_eq!(read, [(3, b"eth0\0".as_slice()), (28, &7_u32.to_ne_bytes())]);
        for cut in 0..body.len() {
            assert!(attributes(&body[..cut], 8).count() < 2);
        }
        assert_eq!(attributes(&[2, 0, 1, 0, 0, 0, 0, 0], 0).count(), 0, "a length below that of its own header");
    }

    #[test]
    fn a_datagram_of_any_bytes_ends() {
        let mut answers = Vec::new();
        for length in [0_u32, 1, 15, 16, 20, u32::MAX] {
            let mut datagram = length.to_ne_bytes().to_vec();
            datagram.resize(24, 0);
            let _result = take_messages(&datagram, &mut answers);
        }
        assert!(answers.len() <= 4);
    }
}
