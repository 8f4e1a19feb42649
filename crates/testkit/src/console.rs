//! Terminals: the socket that receives a container's pty, and a pty to run a command on.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::{DEADLINE, TempDir};

/// A `--console-socket`.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    _dir: TempDir,
}

impl ConsoleSocket {
    /// Listens. The path is short: sun_path holds 108 bytes.
    #[expect(clippy::new_without_default, reason = "makes a file")]
    pub fn new() -> Self {
        let dir = TempDir::new("tty");
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, path, _dir: dir }
    }

    /// What to give to `--console-socket`.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Receives the terminal: one message with a name and exactly one fd.
    ///
    /// # Panics
    /// If none comes, or the message is another.
    pub fn receive(&self) -> Terminal {
        Terminal::new(self.receive_fd().1)
    }

    /// Receives what else comes over such a socket (`--pidfd-socket`): a name and exactly one fd.
    ///
    /// # Panics
    /// If none comes, or the message is another.
    pub fn receive_fd(&self) -> (String, OwnedFd) {
        assert!(readable(&self.listener, DEADLINE), "no one connects to the console socket");
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, flags).unwrap();
        assert!(message.bytes > 0, "the message carries a name");
        let fds: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
        let [fd] = <[OwnedFd; 1]>::try_from(fds).expect("exactly one fd");
        (String::from_utf8_lossy(&name[..message.bytes]).into_owned(), fd)
    }
}

/// The master side of a pty.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    seen: Vec<u8>,
}

impl Terminal {
    fn new(master: OwnedFd) -> Self {
        Self { file: master.into(), seen: Vec::new() }
    }

    /// Types.
    pub fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `text` has appeared; what was seen up to and with it is consumed and returned.
    ///
    /// # Panics
    /// If it does not appear.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                let (consumed, rest) = seen.split_at(at + text.len());
                self.seen = rest.as_bytes().to_vec();
                return consumed.to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(self.read_more(left), "{text:?} does not appear; what does: {seen:?}");
        }
    }

    /// Reads until the other side hangs up; what was seen since the last [`Self::expect`].
    pub fn read_to_end(&mut self) -> String {
        while self.read_more(DEADLINE) {}
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Its size in rows and columns.
    pub fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.file).unwrap();
        (size.ws_row, size.ws_col)
    }

    /// Changes its size; the foreground processes get SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.file, size).unwrap();
    }

    /// The local modes of the line (`stty`): whether ECHO is on, and ICANON.
    pub fn modes(&self) -> (bool, bool) {
        use rustix::termios::{LocalModes, tcgetattr};
        let modes = tcgetattr(&self.file).unwrap().local_modes;
        (modes.contains(LocalModes::ECHO), modes.contains(LocalModes::ICANON))
    }

    /// False at the end, or when nothing comes in time.
    fn read_more(&mut self, timeout: Duration) -> bool {
        let mut buffer = [0; 4096];
        if !readable(&self.file, timeout) {
            return false;
        }
        // EIO is how a master reads the hang-up of its last slave.
        let count = self.file.read(&mut buffer).unwrap_or(0);
        self.seen.extend(&buffer[..count]);
        count > 0
    }
}

/// A pty for a command that wants a terminal of its own.
#[derive(Debug)]
pub struct Pty {
    /// Our side.
    pub terminal: Terminal,
    slave: OwnedFd,
}

impl Pty {
    /// Opens one of this size.
    pub fn new(rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        let terminal = Terminal::new(master);
        terminal.resize(rows, columns);
        Self { terminal, slave }
    }

    /// The other side.
    pub fn slave(&self) -> &OwnedFd {
        &self.slave
    }

    /// Runs the command as the leader of a session on this terminal, and keeps our side of it.
    pub fn spawn(self, invocation: crate::Invocation) -> (crate::Running, Terminal) {
        let stdio = [(); 3].map(|()| self.slave.try_clone().unwrap());
        // setsid(1) makes the terminal the controlling one; std has no safe way to.
        let running = invocation.through_shell("exec setsid --ctty \"$@\"").stdio(stdio).spawn();
        (running, self.terminal)
    }
}

/// Whether there is something to read, or the other side is gone, before the timeout.
fn readable(file: &impl std::os::fd::AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
}

impl AsRef<Path> for ConsoleSocket {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}
