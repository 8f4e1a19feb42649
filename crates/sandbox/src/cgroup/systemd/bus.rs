//! One connection to the bus that systemd is on, for one command, with one deadline.
//!
//! Ours instead of zbus: a client that makes one or two calls needs no executor, and zbus' has three threads
//! (docs/dependencies.md has the figures). Everything is sent at once, authentication included, as sd-bus does: the other
//! side takes it in order.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, UnixAddr, recv, send};

use super::message::{Answer, Call, HEADER_BYTES, Kind, Message};
use super::unit::Bus;
use super::value::Value;
use crate::cgroup::event::{self, Wait};
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::{Error, Result, peer};

const DRIVER: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// "Whoever the kernel says I am": an empty identity instead of a uid, which would be another one outside of a user
/// namespace.
const AUTHENTICATE: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

/// What listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// A message bus, on which systemd has a name.
    Bus,
    /// systemd itself, on the socket that systemctl uses: for hosts without a bus.
    Systemd,
}

/// An address of a bus, as far as it is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    peer: Peer,
    deadline: Deadline,
    /// Written, not yet sent.
    outgoing: Vec<u8>,
    /// Received, not yet read.
    incoming: Vec<u8>,
    authenticated: bool,
    /// Of the last call.
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

impl Connection {
    /// Connects. Nothing is said yet: it goes with the first call.
    ///
    /// # Errors
    /// Nobody listens where systemd should.
    pub(super) fn open(bus: Bus, deadline: Deadline) -> Result<Self> {
        let mut refusal = None;
        for (address, peer) in addresses(bus)? {
            match connect_to(&address, deadline) {
                Ok(socket) => return Ok(Self::new(socket, peer, deadline)),
                // The first address is the one that should be there.
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        let which = match bus {
            Bus::System => "systemd: the system bus",
            Bus::User => "systemd: the user's bus",
        };
        Err(refusal.unwrap_or_else(|| Error::Refused("no address that can be used".into()))).during(|| which)
    }

    fn new(socket: OwnedFd, peer: Peer, deadline: Deadline) -> Self {
        let mut new = Self {
            socket,
            peer,
            deadline,
            outgoing: AUTHENTICATE.to_vec(),
            incoming: Vec::new(),
            authenticated: false,
            serial: 0,
            signals: Vec::new(),
        };
        if peer == Peer::Bus {
            new.queue_for_bus("Hello", &[], Answer::Expected);
        }
        new
    }

    /// The deadline from now on: a connection serves one command, which may have several parts.
    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Asks the bus for the end of jobs of `unit`; systemd itself tells everything unasked.
    pub(super) fn listen_for_job(&mut self, unit: &str) {
        if self.peer == Peer::Bus {
            let rule = format!(
                "type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{SYSTEMD}.Manager',\
                 member='JobRemoved',arg2='{unit}'"
            );
            self.queue_for_bus("AddMatch", &[Value::Str(rule)], Answer::None);
        }
    }

    fn queue_for_bus(&mut self, member: &str, arguments: &[Value], answer: Answer) {
        let call = Call {
            destination: Some(DRIVER),
            path: "/org/freedesktop/DBus",
            interface: DRIVER,
            member,
            arguments,
            answer,
        };
        self.queue(call);
    }

    /// Calls a method of systemd's manager, `org.freedesktop.systemd1(5)`.
    ///
    /// # Errors
    /// What systemd answers, or that it does not.
    pub(super) fn call(&mut self, member: &str, arguments: &[Value]) -> Result<Message> {
        let destination = self.systemd();
        let interface = format!("{SYSTEMD}.Manager");
        let serial = self.queue(Call {
            destination,
            path: MANAGER_PATH,
            interface: &interface,
            member,
            arguments,
            answer: Answer::Expected,
        });
        self.await_answer(serial).during(|| format!("systemd: {member}"))
    }

    /// Waits until systemd has done what it put off to after its last answer: it takes a new message only then.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn ping(&mut self) -> Result<()> {
        let destination = self.systemd();
        let interface = format!("{DRIVER}.Peer");
        let serial = self.queue(Call {
            destination,
            path: "/",
            interface: &interface,
            member: "Ping",
            arguments: &[],
            answer: Answer::Expected,
        });
        self.await_answer(serial).map(drop).during(|| "systemd: Ping")
    }

    fn systemd(&self) -> Option<&'static str> {
        (self.peer == Peer::Bus).then_some(SYSTEMD)
    }

    fn queue(&mut self, call: Call<'_>) -> u32 {
        self.serial += 1;
        self.outgoing.extend(call.encode(self.serial));
        self.serial
    }

    fn await_answer(&mut self, serial: u32) -> Result<Message> {
        self.flush()?;
        loop {
            let message = self.receive()?;
            match message.kind {
                // Of an earlier call, too: nothing that is asked later can be right then.
                Kind::Error => return Err(Error::Refused(message.failure())),
                Kind::Reply if message.reply_to == Some(serial) => return Ok(message),
                Kind::Signal => self.signals.push(message),
                Kind::Reply | Kind::Other => {}
            }
        }
    }

    /// Waits for `JobRemoved` of the job at `path` and returns its result: `done`, or how it ended else.
    ///
    /// # Errors
    /// It does not come in time.
    pub(super) fn await_job(&mut self, path: &str) -> Result<String> {
        let mut early = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match early.next() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind != Kind::Signal || message.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            // JobRemoved(u number, o job, s unit, s result)
            if let [job, _unit, result] = message.strings()?.as_slice()
                && job == path
            {
                return Ok(result.clone());
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        let mut rest = self.outgoing.as_slice();
        while !rest.is_empty() {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EINTR) => {}
                // SO_SNDTIMEO of peer::connect.
                Err(Errno::EAGAIN) => return Err(self.late()),
                Err(errno) => return Err(errno).call(|| "send(bus)"),
            }
        }
        self.outgoing.clear();
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        while !self.authenticated {
            match take_line(&mut self.incoming) {
                Some(line) if line.starts_with("OK") => self.authenticated = true,
                Some(line) if line.starts_with("DATA") => {}
                Some(line) => return Err(Error::Refused(format!("the bus does not let us in: {line:?}"))),
                None => self.fill()?,
            }
        }
        loop {
            if let Some(header) = self.incoming.first_chunk::<HEADER_BYTES>() {
                let length = Message::length(header)?;
                if self.incoming.len() >= length {
                    let message = Message::decode(&self.incoming[..length]);
                    self.incoming.drain(..length);
                    return message;
                }
            }
            self.fill()?;
        }
    }

    /// The error for an answer that does not come: from whom.
    fn late(&self) -> Error {
        match peer::maker(&self.socket) {
            Some(who) => self.deadline.late(format_args!("no answer from {who}")),
            None => self.deadline.late("no answer"),
        }
    }

    /// Waits for more bytes.
    fn fill(&mut self) -> Result<()> {
        if event::sleep_on(std::slice::from_ref(&self.socket), PollFlags::POLLIN, self.deadline)? == Wait::Late {
            return Err(self.late());
        }
        let mut chunk = [0; 4096];
        match recv(self.socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(Error::Refused("the bus has hung up".into())),
            Ok(count) => {
                self.incoming.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno).call(|| "recv(bus)"),
        }
    }
}

fn take_line(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
    bytes.drain(..end + 2);
    Some(line)
}

fn connect_to(address: &Address, deadline: Deadline) -> Result<OwnedFd> {
    let (unix, name) = match address {
        Address::Path(path) => (UnixAddr::new(path), format!("{path:?}")),
        Address::Abstract(name) => (UnixAddr::new_abstract(name), format!("\"@{}\"", String::from_utf8_lossy(name))),
    };
    peer::connect(&unix.call(|| format!("connect({name})"))?, &name, deadline)
}

/// Where to find systemd, the best first.
fn addresses(bus: Bus) -> Result<Vec<(Address, Peer)>> {
    let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match bus {
        Bus::System => match env("DBUS_SYSTEM_BUS_ADDRESS") {
            Some(given) => parse_addresses(&given).during(|| "DBUS_SYSTEM_BUS_ADDRESS"),
            None => Ok(vec![
                (Address::Path("/run/dbus/system_bus_socket".into()), Peer::Bus),
                (Address::Path("/run/systemd/private".into()), Peer::Systemd),
            ]),
        },
        Bus::User => {
            if let Some(given) = env("DBUS_SESSION_BUS_ADDRESS") {
                return parse_addresses(&given).during(|| "DBUS_SESSION_BUS_ADDRESS");
            }
            let dir = env("XDG_RUNTIME_DIR")
                .map_or_else(|| PathBuf::from(format!("/run/user/{}", super::host::outer_uid())), PathBuf::from);
            Ok(vec![
                (Address::Path(dir.join("bus")), Peer::Bus),
                (Address::Path(dir.join("systemd/private")), Peer::Systemd),
            ])
        }
    }
}

/// `unix:path=/run/bus,guid=…;unix:abstract=…`: those of them that can be used.
fn parse_addresses(given: &OsString) -> Result<Vec<(Address, Peer)>> {
    let mut usable = Vec::new();
    for address in given.as_bytes().split(|&byte| byte == b';') {
        let Some(pairs) = address.strip_prefix(b"unix:") else { continue };
        for pair in pairs.split(|&byte| byte == b',') {
            let address = if let Some(path) = pair.strip_prefix(b"path=") {
                Address::Path(Path::new(std::ffi::OsStr::from_bytes(&unescape(path))).to_owned())
            } else if let Some(name) = pair.strip_prefix(b"abstract=") {
                Address::Abstract(unescape(name))
            } else {
                continue;
            };
            usable.push((address, Peer::Bus));
        }
    }
    if usable.is_empty() {
        return Err(Error::Refused(format!("{given:?} has no \"unix:path=\" or \"unix:abstract=\"")));
    }
    Ok(usable)
}

/// `%2d` is a byte.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) if byte == b'%' => {
                out.push(escaped);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn addresses_of_sockets_are_found_among_others() {
        let parse = |text: &str| parse_addresses(&OsString::from(text)).map_err(|error| error.to_string());
        let path = |path: &str| (Address::Path(path.into()), Peer::Bus);
        assert_eq!(parse("unix:path=/run/user/1000/bus"), Ok(vec![path("/run/user/1000/bus")]));
        assert_eq!(
            parse("tcp:host=x;unix:guid=12,path=/a%20b%;unix:abstract=/tmp/x"),
            Ok(vec![path("/a b%"), (Address::Abstract(b"/tmp/x".to_vec()), Peer::Bus)])
        );
        assert!(parse("unix:runtime=yes").unwrap_err().contains("no \"unix:path=\""));
    }

    #[test]
    fn a_bus_that_does_not_answer_costs_no_more_than_the_deadline() {
        let dir = std::env::temp_dir().join(format!("tare-mute-bus-{}", std::process::id()));
        let _mute = std::os::unix::net::UnixListener::bind(&dir).unwrap();
        let begun = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(50));
        let socket = connect_to(&Address::Path(dir.clone()), deadline).unwrap();
        let error = Connection::new(socket, Peer::Bus, deadline).ping().unwrap_err();
        // Who has bound the socket is this test.
        let text = format!("systemd: Ping: timed out after 50 ms: no answer from pid {} ", Pid::this());
        assert!(error.to_string().starts_with(&text), "{error}");
        // Nobody accepts: the backlog fills up, and connect(2) itself has to wait.
        let mut held = Vec::new();
        let error = loop {
            let deadline = Deadline::after(Duration::from_millis(20));
            match connect_to(&Address::Path(dir.clone()), deadline) {
                Ok(socket) if held.len() < 10_000 => held.push(socket),
                Ok(_) => panic!("a backlog without end"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().ends_with("timed out after 20 ms: nobody accepts"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::fs::remove_file(dir).unwrap();
    }

    #[test]
    fn who_is_not_let_in_is_told_so() {
        use std::io::Write;
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        let deadline = Deadline::after(Duration::from_secs(5));
        let error = Connection::new(ours.into(), Peer::Systemd, deadline).ping().unwrap_err();
        assert_eq!(error.to_string(), "systemd: Ping: the bus does not let us in: \"REJECTED EXTERNAL\"");
    }
}
