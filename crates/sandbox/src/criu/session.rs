//! One CRIU at work: forked, asked, answered.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use prost::Message;

use super::rpc::{Notification, Options, Request, Response, Type};
use crate::deadline::{Deadline, TO_UNDO, Wait};
use crate::error::CallContext;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::{execve, exit_child};
use crate::sys::path::open;
use crate::sys::pidfd::pidfd_open;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, family, sys};

/// What the child sends instead of becoming CRIU begins with this byte, which begins no message of protobuf: there is no
/// field 0.
const FAILED: u8 = 0;

/// The largest message: CRIU's own limit for what comes in one piece.
const MESSAGE_BYTES: usize = 64 * 1024;

/// CRIU tells that something is about to be done, or has been.
#[derive(Debug)]
pub struct Notice {
    /// What: `post-restore`.
    pub script: String,
    /// The container's init, on the host.
    pub pid: i32,
    /// What came along: with `orphan-pts-master` a terminal.
    pub fd: Option<OwnedFd>,
}

/// How the child becomes CRIU.
pub struct Birth<'a> {
    /// The program.
    pub program: &'a CString,
    /// The cgroup2 directory that it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Descriptors it keeps, under their numbers.
    pub kept: &'a [BorrowedFd<'a>],
    /// The directory of the images.
    pub images: &'a Path,
    /// Where it works and logs, if not there.
    pub work: Option<&'a Path>,
}

/// A child that is to become CRIU. Killed when dropped.
#[derive(Debug)]
pub struct Unborn {
    socket: OwnedFd,
    child: Child,
}

/// CRIU at work. Killed when dropped, unless it is [`Session::abandon`]ed.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    child: Child,
    directories: Directories,
}

/// The descriptors of CRIU's directories: its own.
#[derive(Debug, Clone, Copy)]
struct Directories {
    images: RawFd,
    work: Option<RawFd>,
}

/// Killed when dropped, unless it was reaped.
#[derive(Debug)]
struct Child(Option<Pid>);

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            // Ours and unreaped: the pid is its own still.
            let _may_be_dead = kill(process, Signal::SIGKILL);
            let _status = waitpid(process, None);
        }
    }
}

impl Child {
    /// Waits for something to read on `socket`, or its end.
    fn await_message(&self, socket: &OwnedFd, deadline: Deadline) -> Result<()> {
        match deadline.poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)]).call(|| "poll(criu)")? {
            Wait::Done => Ok(()),
            Wait::Late => Err(self.late(deadline)),
        }
    }

    fn late(&self, deadline: Deadline) -> Error {
        deadline.late(format_args!("criu is not done: {}", self.0.map_or_else(String::new, family::describe)))
    }
}

impl Unborn {
    /// Forks. The child, whose pid is returned too, waits for [`Self::proceed`], calls `prepare` and becomes CRIU.
    ///
    /// # Errors
    /// The call that failed.
    pub fn fork(proof: SingleThreaded, birth: &Birth<'_>, prepare: impl FnOnce() -> Result<()>) -> Result<(Self, Pid)> {
        let (ours, theirs) = pair()?;
        match clone3(proof, 0, birth.cgroup, None).call(|| "clone3()")? {
            Side::Parent(process) => Ok((Self { socket: ours, child: Child(Some(process)) }, process)),
            Side::Child => {
                drop(ours);
                become_criu(birth, &theirs, prepare)
            }
        }
    }

    /// Lets the child go on, now that it is where it is to be, and returns when it is prepared.
    ///
    /// # Errors
    /// What failed in the child; it is not prepared in time.
    pub fn proceed(self, deadline: Deadline) -> Result<Session> {
        send(self.socket.as_raw_fd(), b" ", MsgFlags::MSG_NOSIGNAL).map(drop).call(|| "send(criu)")?;
        let mut buffer = [0; 4096];
        self.child.await_message(&self.socket, deadline)?;
        let (message, socket) = receive(&self.socket, &mut buffer)?;
        let mut numbers = std::str::from_utf8(message).unwrap_or_default().split(' ').map(str::parse::<RawFd>);
        match (socket, numbers.next()) {
            (Some(socket), Some(Ok(images))) => {
                let work = numbers.next().and_then(std::result::Result::ok);
                Ok(Session { socket, child: self.child, directories: Directories { images, work } })
            }
            _ => Err(Error::Refused("criu's process has sent no socket".into())),
        }
    }
}

/// A connection on which messages stay whole.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).call(|| "socketpair()")
}

/// One message; what the child says instead of becoming CRIU is an error.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<(&'a [u8], Option<OwnedFd>)> {
    let (length, fd) = loop {
        match sys::socket::receive_fd(socket.as_fd(), buffer) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => break (0, None),
            received => break received.call(|| "recvmsg(criu)")?,
        }
    };
    match &buffer[..length] {
        [] => Err(Error::Refused("criu ended without an answer".into())),
        [FAILED, text @ ..] => Err(Error::Refused(String::from_utf8_lossy(text).into_owned())),
        message => Ok((message, fd)),
    }
}

impl Session {
    /// Lets CRIU end by itself, after an answer.
    ///
    /// # Errors
    /// It does not in time.
    pub fn finish(&mut self, deadline: Deadline) -> Result<()> {
        match self.end(deadline)? {
            Wait::Done => Ok(()),
            Wait::Late => Err(self.child.late(deadline)),
        }
    }

    /// Lets CRIU take back what it has done and end by itself. Killed half way it would leave its code in the processes that
    /// it saves: so one that works on is let, and named.
    pub fn abandon(mut self) {
        if !matches!(self.end(Deadline::after(TO_UNDO)), Ok(Wait::Done))
            && let Some(process) = self.child.0.take()
        {
            tracing::warn!("criu has not given up, the container may be saved yet: {}", family::describe(process));
        }
    }

    /// Hangs up, and waits for the end of CRIU.
    fn end(&mut self, deadline: Deadline) -> Result<Wait> {
        let Some(process) = self.child.0 else { return Ok(Wait::Done) };
        shutdown(self.socket.as_raw_fd(), Shutdown::Both).call(|| "shutdown(criu)")?;
        let pidfd = pidfd_open(process).call(|| format!("pidfd_open({process})"))?;
        let ended = deadline.poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)]).call(|| "poll(criu)")?;
        if ended == Wait::Done {
            waitpid(process, None).call(|| format!("waitpid({process})"))?;
            self.child.0 = None;
        }
        Ok(ended)
    }

    /// Asks, and answers what CRIU notifies of with `on`, whose failure is CRIU's too.
    ///
    /// # Errors
    /// What `on` said; a CRIU that could not be started, ended without an answer, or has none in time. That it refused is an
    /// answer.
    pub fn ask(
        &self,
        typ: Type,
        mut opts: Options,
        on: &mut dyn FnMut(Notice) -> Result<()>,
        deadline: Deadline,
    ) -> Result<Response> {
        opts.images_dir_fd = self.directories.images;
        opts.work_dir_fd = self.directories.work;
        self.send(&Request { r#type: typ as i32, opts: Some(opts), ..Request::default() })?;
        let mut failed = None;
        loop {
            self.child.await_message(&self.socket, deadline)?;
            let (response, fd) = self.receive()?;
            if response.r#type != Type::Notify as i32 {
                return failed.map_or(Ok(response), Err);
            }
            let Notification { script, pid } = response.notify.unwrap_or_default();
            let notice = Notice { script: script.unwrap_or_default(), pid: pid.unwrap_or_default(), fd };
            tracing::debug!("criu: {} {}", notice.script, notice.pid);
            let answered = on(notice);
            let answer =
                Request { r#type: Type::Notify as i32, notify_success: Some(answered.is_ok()), ..Request::default() };
            failed = failed.or(answered.err());
            self.send(&answer)?;
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), &request.encode_to_vec(), MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                // It has failed to start: what it said of that is still to be read.
                Err(Errno::EPIPE) => return Ok(()),
                sent => return sent.map(drop).call(|| "send(criu)"),
            }
        }
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0; MESSAGE_BYTES];
        let (message, fd) = receive(&self.socket, &mut buffer)?;
        let response = Response::decode(message).map_err(|error| Error::Refused(format!("criu: {error}")))?;
        Ok((response, fd))
    }
}

/// The child's way.
fn become_criu(birth: &Birth<'_>, parent: &OwnedFd, prepare: impl FnOnce() -> Result<()>) -> ! {
    let fail = |socket: &OwnedFd, error: Error| -> ! {
        let message = [&[FAILED], error.to_string().as_bytes()].concat();
        // A parent that is gone cannot be told.
        let _gone = send(socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL);
        exit_child(1)
    };
    let prepared = (|| {
        if recv(parent.as_raw_fd(), &mut [0], MsgFlags::empty()).call(|| "recv(parent)")? == 0 {
            return Err(Error::Refused("the parent is gone".into()));
        }
        prepare()?;
        // From here, since CRIU works in them: the parent's may be in another mount namespace.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = |path: &Path| open(path, flags, Mode::empty()).call(|| format!("open({path:?})"));
        let (images, work) = (directory(birth.images)?, birth.work.map(directory).transpose()?);
        sys::signal::reset().call(|| "sigaction(SIGPIPE)")?;
        for fd in birth.kept {
            sys::fd::inherit(fd.as_raw_fd()).call(|| format!("fcntl({}, F_SETFD)", fd.as_raw_fd()))?;
        }
        // CRIU looks for descriptors that a request names in the process that has made the socket.
        let (theirs, own) = pair()?;
        sys::fd::inherit(own.as_raw_fd()).call(|| "fcntl(socket, F_SETFD)")?;
        let numbers = work.as_ref().map_or(String::new(), |work| format!(" {}", work.as_raw_fd()));
        let numbers = format!("{}{numbers}", images.as_raw_fd());
        sys::socket::send_fd(parent.as_fd(), numbers.as_bytes(), theirs.as_fd()).call(|| "sendmsg(parent)")?;
        // They live on in CRIU.
        Ok((own, images.into_raw_fd(), work.map(OwnedFd::into_raw_fd)))
    })();
    let own = match prepared {
        Ok((own, ..)) => own,
        Err(error) => fail(parent, error),
    };
    let number = CString::new(own.as_raw_fd().to_string()).unwrap_or_default();
    let argv = [c"criu".to_owned(), c"swrk".to_owned(), number];
    let errno = execve(birth.program, &argv, &environment());
    fail(&own, Error::call(format!("execve({:?})", birth.program), errno))
}

/// Ours: CRIU looks for iptables(8) and others in PATH.
fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect()
}
