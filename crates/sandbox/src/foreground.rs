//! Waiting for a process in the foreground: signals go to it, its exit code comes back, its terminal is ours.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;
use crate::error::CallContext;
use crate::notify::Proxy;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::sys::{self, tty};

/// All signals of this process as a stream. To be taken before the first fork, so that none is lost.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals and reads them instead.
    ///
    /// # Errors
    /// The call that failed.
    pub fn take() -> Result<Self> {
        let all = sys::signal::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).call(|| "sigprocmask()")?;
        SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).call(|| "signalfd()")
    }
}

/// Waits for `process`, a child; what it says on `notify` is passed on, with ourselves as the main process: we are what
/// the service manager has started, and what has the exit code. Returns its exit code, or 128 + the signal that killed it.
///
/// # Errors
/// The call that failed.
pub fn wait(process: Pid, signals: &Signals, ptmx: Option<OwnedFd>, mut notify: Option<Proxy>) -> Result<i32> {
    let pidfd = pidfd_open(process).call(|| format!("pidfd_open({process})"))?;
    let mut terminal = ptmx.map(Terminal::new).transpose()?;
    loop {
        let (readable, writable, input) = match &terminal {
            Some(terminal) => (Some(&terminal.ptmx), !terminal.pending.is_empty(), terminal.wants_input()),
            None => (None, false, false),
        };
        let mut fds = vec![PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(notify.as_ref().map(|proxy| PollFd::new(proxy.fd(), PollFlags::POLLIN)));
        if let Some(ptmx) = readable {
            let events = if writable { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            fds.push(PollFd::new(ptmx.as_fd(), events));
        }
        if input {
            fds.push(PollFd::new(sys::fd::stdin(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.call(|| "poll()")?,
        };
        let input_ready = input && fds.last().and_then(PollFd::any).unwrap_or(false);
        notify = notify.filter(|proxy| !relayed(proxy));
        if let Some(terminal) = &mut terminal {
            terminal.relay(input_ready)?;
        }
        // One, and poll(2) tells of the next: it has to be asked in any case.
        if let Some(signal) = signals.0.read_signal().call(|| "read(signalfd)")? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            match number {
                libc::SIGCHLD => {
                    if let Some(code) = reap(process)? {
                        if let Some(terminal) = &mut terminal {
                            terminal.drain()?;
                        }
                        return Ok(code);
                    }
                }
                libc::SIGWINCH if terminal.is_some() => {
                    terminal.as_ref().map_or(Ok(()), Terminal::resize)?;
                }
                // Go programs send it to themselves all the time; runc does not pass it on either.
                libc::SIGURG => {}
                // Ours, for writing to a reader that left; the relay sees EPIPE.
                libc::SIGPIPE => {}
                _ => match pidfd_send_signal(pidfd.as_fd(), number) {
                    // It has just ended: SIGCHLD is on its way.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).call(|| format!("pidfd_send_signal({number})")),
                },
            }
        }
    }
}

/// Whether there is nothing more to be told.
fn relayed(proxy: &Proxy) -> bool {
    proxy.relay(nix::unistd::getpid()).unwrap_or_else(|error| {
        // The container runs all the same.
        tracing::warn!("{error}");
        true
    })
}

/// Reaps every child that has ended; the exit code if `process` is among them. As a subreaper there may be others.
fn reap(process: Pid) -> Result<Option<i32>> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == process => found = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == process => found = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(found),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).call(|| "waitpid()"),
        }
    }
}

/// The master side of the container's pty, joined to our standard input and output.
struct Terminal {
    ptmx: OwnedFd,
    /// Typed, not yet taken by the pty.
    pending: Vec<u8>,
    input_open: bool,
    output_open: bool,
    /// What our own terminal was set to, to be restored.
    before: Option<Termios>,
}

impl Terminal {
    fn new(ptmx: OwnedFd) -> Result<Self> {
        fcntl(&ptmx, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).call(|| "fcntl(ptmx, O_NONBLOCK)")?;
        let before = tcgetattr(sys::fd::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(sys::fd::stdin(), SetArg::TCSANOW, &raw).call(|| "tcsetattr(stdin)")?;
        }
        let terminal = Self { ptmx, pending: Vec::new(), input_open: true, output_open: true, before };
        terminal.resize()?;
        Ok(terminal)
    }

    /// Gives the pty the size of our own terminal, if we have one.
    fn resize(&self) -> Result<()> {
        match tty::size(sys::fd::stdin()) {
            Ok(size) if self.before.is_some() && size.ws_row > 0 => {
                tty::set_size(self.ptmx.as_fd(), size).call(|| "ioctl(TIOCSWINSZ)")
            }
            _ => Ok(()),
        }
    }

    fn wants_input(&self) -> bool {
        self.input_open && self.pending.is_empty()
    }

    fn relay(&mut self, input_ready: bool) -> Result<()> {
        if input_ready {
            let mut chunk = [0; 4096];
            match nix::unistd::read(sys::fd::stdin(), &mut chunk) {
                Ok(0) => self.input_open = false,
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Our terminal hung up.
                Err(_) => self.input_open = false,
            }
        }
        if !self.pending.is_empty() {
            match nix::unistd::write(&self.ptmx, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.pending.clear(),
            }
        }
        self.drain()
    }

    /// Copies what the container wrote, as far as it is there.
    fn drain(&mut self) -> Result<()> {
        let mut chunk = [0; 16384];
        loop {
            match nix::unistd::read(&self.ptmx, &mut chunk) {
                Ok(0) | Err(Errno::EAGAIN | Errno::EIO) => return Ok(()), // EIO: nobody has the other side open
                Ok(count) if self.output_open => {
                    // A reader that left must not end the container.
                    self.output_open =
                        std::io::stdout().write_all(&chunk[..count]).is_ok() && std::io::stdout().flush().is_ok();
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).call(|| "read(ptmx)"),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _gone_with_its_terminal = tcsetattr(sys::fd::stdin(), SetArg::TCSANOW, before);
        }
    }
}
