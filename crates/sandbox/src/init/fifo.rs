//! The exec fifo: where a created container waits for `start`.
//!
//! `create` fills the fifo to the brim, and init waits until there is room. `start` opens it for reading and drains it:
//! that is the signal. Then init writes frames (see [`super::wire`]) into it, and the end of file, as exec closes init's
//! descriptor, says that the program runs. So nothing has to be opened by init inside the container, `start` learns why
//! exec failed, and whether a container still waits is the kernel's knowledge: the fifo has a reader, init itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifoat, read, write};

use super::wire::{self, FRAME_BYTES, FromStage};
use crate::deadline::{Deadline, Wait};
use crate::error::CallContext;
use crate::store::Entry;
use crate::{Error, Result};

const NAME: &str = "exec.fifo";
/// The smallest pipe: one page. The kernel rounds up.
const PIPE_BYTES: libc::c_int = 4096;

/// init's side.
#[derive(Debug)]
pub struct ExecFifo(OwnedFd);

/// Makes the fifo of a container and fills it.
///
/// # Errors
/// The call that failed.
pub fn make(entry: &Entry) -> Result<ExecFifo> {
    let path = || entry.path().join(NAME);
    mkfifoat(entry.dir(), NAME, Mode::from_bits_truncate(0o600)).call(|| format!("mkfifo({:?})", path()))?;
    // For reading too: then the open does not wait for a reader, and a `start` that dies breaks no pipe.
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fifo = openat(entry.dir(), NAME, flags, Mode::empty()).call(|| format!("open({:?})", path()))?;
    fcntl(&fifo, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).call(|| "fcntl(F_SETPIPE_SZ)")?;
    let filler = [0; PIPE_BYTES as usize];
    loop {
        match write(&fifo, &filler) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(ExecFifo(fifo)),
            Err(errno) => return Err(Error::call(format!("write({:?})", path()), errno)),
        }
    }
}

impl AsFd for ExecFifo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ExecFifo {
    /// Waits for `start`, for ever.
    ///
    /// # Errors
    /// The call that failed.
    pub fn wait(&self) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                polled => {
                    polled.call(|| "poll(exec fifo)")?;
                    return self.send(&FromStage::Starting);
                }
            }
        }
    }

    /// Tells `start`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn send(&self, message: &FromStage) -> Result<()> {
        wire::write_fifo(self.0.as_fd(), message)
    }

    /// The descriptor, to keep it when others are closed.
    pub fn fd_mut(&mut self) -> &mut OwnedFd {
        &mut self.0
    }
}

/// Whether init waits at the fifo: it exists, and init has it open.
///
/// # Errors
/// The call that failed.
pub fn is_awaited(entry: &Entry) -> Result<bool> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(entry.dir(), NAME, flags, Mode::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT | Errno::ENXIO) => Ok(false),
        Err(errno) => Err(Error::call(format!("open({:?})", entry.path().join(NAME)), errno)),
    }
}

/// Lets init go, and returns when its program runs, or `deadline` has passed.
///
/// # Errors
/// What init reports: a startContainer hook or exec that failed. Or init died.
pub(crate) fn release(entry: &Entry, deadline: Deadline) -> Result<Wait> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fifo =
        openat(entry.dir(), NAME, flags, Mode::empty()).call(|| format!("open({:?})", entry.path().join(NAME)))?;
    // As much as a pipe holds at most by default; one read takes all there is.
    let mut content = vec![0; 65536];
    let mut started = false;
    loop {
        let count = match read(&fifo, &mut content) {
            Err(Errno::EAGAIN) => {
                let mut polled = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
                match deadline.poll(&mut polled).call(|| "poll(exec fifo)")? {
                    Wait::Done => continue,
                    Wait::Late => return Ok(Wait::Late),
                }
            }
            Err(Errno::EINTR) => continue,
            count => count.call(|| "read(exec fifo)")?,
        };
        if count == 0 {
            // Killed before it saw us, or running.
            return if started {
                Ok(Wait::Done)
            } else {
                Err(Error::Refused("the container's init was killed".into()))
            };
        }
        for frame in content[..count].chunks(FRAME_BYTES) {
            let mut whole = [0; FRAME_BYTES];
            whole[..frame.len()].copy_from_slice(frame);
            match whole[0] {
                0 => {} // the filler
                _ => match wire::decode(&whole)? {
                    FromStage::Failed(error) => return Err(error),
                    _ => started = true,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::time::Duration;

    #[test]
    fn init_waits_until_start_drains_the_fifo_and_closing_it_is_success() {
        let root = std::env::temp_dir().join(format!("tare-fifo-{}", std::process::id()));
        let store = Store::new(&root);
        let locked = store.claim("web").unwrap();
        let fifo = make(&locked).unwrap();
        assert!(is_awaited(&locked).unwrap());
        let soon = Deadline::after(Duration::from_secs(5));

        let init = std::thread::spawn(move || {
            fifo.wait().unwrap();
            fifo
        });
        let starter = store.open("web").unwrap();
        let start = std::thread::spawn(move || release(&starter, soon));
        drop(init.join().unwrap());
        assert_eq!(start.join().unwrap().unwrap(), Wait::Done);
        assert!(!is_awaited(&locked).unwrap());
        assert!(release(&locked, soon).unwrap_err().to_string().contains("init was killed"));
        locked.remove().unwrap();

        // Nobody looks whether there is room.
        let locked = store.claim("slow").unwrap();
        let fifo = make(&locked).unwrap();
        assert_eq!(release(&locked, Deadline::after(Duration::from_millis(20))).unwrap(), Wait::Late);
        drop(fifo);
        locked.remove().unwrap();

        let locked = store.claim("bad").unwrap();
        let fifo = make(&locked).unwrap();
        let init = std::thread::spawn(move || {
            fifo.wait().unwrap();
            fifo.send(&FromStage::Failed(Error::Refused("exec failed".into()))).unwrap();
        });
        assert_eq!(release(&locked, soon).unwrap_err().to_string(), "exec failed");
        init.join().unwrap();
        locked.remove().unwrap();
        std::fs::remove_dir_all(root).unwrap();
    }
}
