//! sd_notify(3) for a container: its program says READY=1 into a socket of its own, and the service manager of the host is
//! told, in the words that are true on the host.
//!
//! With NOTIFY_SOCKET in the runtime's environment the container gets a read-only mount at `/run/notify` with a socket
//! `notify.sock` in it. What is passed on is the line `READY=` alone, so that a container can neither name another main
//! process nor reload or stop its service; then MAINPID, and BARRIER, after which it is safe to exit.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, send, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::Mount;

use crate::deadline::{Deadline, Wait};
use crate::error::CallContext;
use crate::plan::mounts::{MountPlan, plan_mounts};
use crate::plan::{IdMappings, Plan};
use crate::store::{Entry, unlink_if_there};
use crate::sys::{self, pidfd::pidfd_open};
use crate::{Error, Result, family, peer};

/// The socket's directory, in the container's state directory.
pub const DIRECTORY: &str = "notify";

const SOCKET: &str = "notify.sock";

/// Where the container has it.
pub(crate) const IN_CONTAINER: &str = "/run/notify";

/// How long the service manager has to take a message, and to say that it has taken all, as in sd_notify_barrier(3).
const BARRIER: Duration = Duration::from_secs(30);

/// Adds the mount and the variable to the plan of the container whose state is in `state_dir`.
///
/// # Errors
/// A state directory that is not absolute.
pub(crate) fn plan(plan: &mut Plan, state_dir: &Path) -> Result<()> {
    plan.mounts.extend(mounts(state_dir, &plan.hook_state.bundle, &plan.id_mappings)?);
    plan.process.set_env("NOTIFY_SOCKET", &format!("{IN_CONTAINER}/{SOCKET}"))
}

/// The mount.
///
/// # Errors
/// As [`plan`].
pub(crate) fn mounts(state_dir: &Path, bundle: &Path, id_mappings: &IdMappings) -> Result<Vec<MountPlan>> {
    let mut mount = Mount::default();
    mount
        .set_destination(IN_CONTAINER.into())
        .set_typ(Some("bind".into()))
        .set_source(Some(state_dir.join(DIRECTORY)))
        .set_options(Some(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec()));
    plan_mounts(&[mount], bundle, id_mappings)
}

/// Whether the container has a socket.
///
/// # Errors
/// The call that failed.
pub(crate) fn is_there(entry: &Entry) -> Result<bool> {
    match fstatat(entry.dir(), DIRECTORY, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(false),
        found => found.map(|_| true).call(|| "fstatat(\"notify\")"),
    }
}

/// Makes the directory.
///
/// # Errors
/// The call that failed.
pub(crate) fn prepare(entry: &Entry) -> Result<()> {
    // Whatever the caller's mask: the container's user has to reach it.
    let mode = Mode::from_bits_truncate(0o755);
    mkdirat(entry.dir(), DIRECTORY, mode).call(|| "mkdir(\"notify\")")?;
    fchmodat(entry.dir(), DIRECTORY, mode, FchmodatFlags::FollowSymlink).call(|| "chmod(\"notify\")")
}

/// Waits until the container is ready, if anybody wants to know. That the service manager does not listen is no failure of
/// the container.
///
/// # Errors
/// The container is not ready in time.
pub(crate) fn wait(proxy: Option<Proxy>, init: Pid, deadline: Deadline) -> Result<()> {
    match proxy.map_or(Ok(Wait::Done), |proxy| proxy.wait(init, deadline)) {
        Ok(Wait::Done) => Ok(()),
        Ok(Wait::Late) => {
            let who = family::describe(init);
            Err(deadline.late(format_args!("the container has not said READY=1 to its NOTIFY_SOCKET: {who}")))
        }
        Err(error) => {
            tracing::warn!("{error}");
            Ok(())
        }
    }
}

/// The container's socket, and the connection to the service manager.
#[derive(Debug)]
pub struct Proxy {
    container: OwnedFd,
    host: OwnedFd,
}

impl Proxy {
    /// Makes the socket of a container; None if it was created without.
    ///
    /// # Errors
    /// The call that failed.
    pub(crate) fn bind(entry: &Entry, host: &Path, deadline: Deadline) -> Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = match nix::fcntl::openat(entry.dir(), DIRECTORY, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened.call(|| "open(\"notify\")")?,
        };
        let host = connect_to(host)?;
        // Or a manager that does not read would keep a command in the foreground from passing on signals.
        peer::limit_sends(&host, deadline.sooner(BARRIER))?;
        let container = datagram_socket()?;
        unlink_if_there(&directory, SOCKET)?;
        // By the descriptor: a socket's address holds no more than 107 bytes.
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let address = UnixAddr::new(path.as_str()).call(|| format!("bind({path:?})"))?;
        bind(container.as_raw_fd(), &address).call(|| format!("bind({path:?})"))?;
        // For whatever user the container's program is.
        let mode = Mode::from_bits_truncate(0o777);
        fchmodat(&directory, SOCKET, mode, FchmodatFlags::FollowSymlink).call(|| "chmod(\"notify.sock\")")?;
        Ok(Some(Self { container, host }))
    }

    /// The container's socket, to wait for.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }

    /// Reads what the container has said; once that is READY, passes it on with the main process. Whether it did.
    ///
    /// # Errors
    /// The service manager takes no messages.
    pub(crate) fn relay(&self, main: Pid) -> Result<bool> {
        let mut datagram = [0; 4096];
        loop {
            let length = match recv(self.container.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).call(|| "recv(notify socket)"),
            };
            if let Some(ready) = ready_line(&datagram[..length]) {
                self.tell(&[ready, b"\n"].concat())?;
                self.tell(format!("MAINPID={main}\n").as_bytes())?;
                return Ok(true);
            }
        }
    }

    /// Waits until the container is ready or its init has ended, and until the service manager has heard of it.
    ///
    /// # Errors
    /// The service manager takes no messages.
    fn wait(&self, init: Pid, deadline: Deadline) -> Result<Wait> {
        let pidfd = match pidfd_open(init) {
            Err(Errno::ESRCH) => return Ok(Wait::Done),
            opened => opened.call(|| format!("pidfd_open({init})"))?,
        };
        loop {
            let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if deadline.poll(&mut fds).call(|| "poll(notify socket)")? == Wait::Late {
                return Ok(Wait::Late);
            }
            let ended = fds[1].any().unwrap_or(false);
            // What it said before it ended counts.
            if self.relay(init)? {
                self.barrier(deadline.sooner(BARRIER))?;
                return Ok(Wait::Done);
            }
            if ended {
                return Ok(Wait::Done);
            }
        }
    }

    /// sd_notify_barrier(3): the service manager closes the descriptor it is sent when it has read all before it. Who exits
    /// earlier may be gone when it asks whose message that was.
    fn barrier(&self, deadline: Deadline) -> Result<()> {
        let (closed, sent) = pipe2(OFlag::O_CLOEXEC).call(|| "pipe2()")?;
        sys::socket::send_fd(self.host.as_fd(), b"BARRIER=1", sent.as_fd()).call(|| "sendmsg(NOTIFY_SOCKET)")?;
        drop(sent);
        // A manager that does not know it lets the time pass: no error.
        if deadline.poll(&mut [PollFd::new(closed.as_fd(), PollFlags::empty())]).call(|| "poll(barrier)")? == Wait::Late
        {
            tracing::warn!("NOTIFY_SOCKET: no answer to BARRIER=1 within {deadline}");
        }
        Ok(())
    }

    fn tell(&self, message: &[u8]) -> Result<()> {
        send(self.host.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map(drop).call(|| "send(NOTIFY_SOCKET)")
    }
}

fn datagram_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).call(|| "socket()")
}

/// Connects to the service manager: a path, or with `@` in front a name in the abstract namespace.
fn connect_to(host: &Path) -> Result<OwnedFd> {
    let call = || format!("connect(NOTIFY_SOCKET {host:?})");
    let address = match host.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        [b'/', ..] => UnixAddr::new(host),
        _ => return Err(Error::Refused(format!("NOTIFY_SOCKET: {host:?} is neither absolute nor abstract"))),
    }
    .call(call)?;
    let connection = datagram_socket()?;
    connect(connection.as_raw_fd(), &address).call(call)?;
    Ok(connection)
}

/// The line of a message that says READY.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_only_ready_is_passed_on() {
        for (message, expected) in [
            (b"READY=1".as_slice(), Some(b"READY=1".as_slice())),
            (b"STATUS=up\nREADY=1\nMAINPID=1\n", Some(b"READY=1")),
            (b"MAINPID=1\nSTOPPING=1", None),
            (b"XREADY=1", None),
            (b"", None),
        ] {
            assert_eq!(ready_line(message), expected);
        }
    }

    #[test]
    fn a_name_that_is_no_socket_is_refused() {
        assert!(connect_to(Path::new("relative")).unwrap_err().to_string().contains("neither absolute nor abstract"));
        assert!(connect_to(Path::new("/no/such/socket")).is_err());
        assert!(connect_to(Path::new("@tare-no-such-socket")).is_err());
    }
}
