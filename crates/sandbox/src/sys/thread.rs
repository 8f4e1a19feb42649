//! Proof that the process has one thread, asked for by everything that forks without exec.

use crate::error::{CallContext, Error};

/// A process with a single thread. Only then may a child of clone3(2) go on running ordinary code: no other thread
/// can have held a lock of the allocator at the moment of the fork.
#[derive(Debug, Clone, Copy)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads: the link count of `/proc/self/task` is their number plus two.
    ///
    /// # Errors
    /// More than one thread, or no procfs on `/proc`.
    pub fn verify() -> crate::Result<Self> {
        let task = nix::sys::stat::stat("/proc/self/task").call(|| "stat(\"/proc/self/task\")")?;
        match task.st_nlink {
            3 => Ok(Self(())),
            links => Err(Error::Refused(format!(
                "the calling process has {} threads: a container can be created from a single-threaded process only",
                links.saturating_sub(2)
            ))),
        }
    }
}
