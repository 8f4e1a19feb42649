//! `kill`, `pause`, `resume`.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{Runtime, Status, deadline};
use crate::cgroup::{self, Cgroup, Freezer};
use crate::error::CallContext;
use crate::store::{Entry, Record};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::{Error, Result};

impl Runtime {
    /// Sends `signal` to init, or with `all` to every process; `all` makes a stopped container no error. SIGKILL to a container
    /// without a pid namespace of its own reaches every process: nothing else would ever end them.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        let everything = all || (signal == libc::SIGKILL && !record.own_pid_namespace);
        match entry.init()?.ok_or(Error::NotRunning).and_then(crate::store::Init::open) {
            Ok(init) => send(init.as_fd(), signal)?,
            Err(Error::NotRunning) if all => {}
            Err(error) => return Err(error),
        }
        if everything {
            signal_all(cgroup.as_ref(), signal)?;
        }
        if signal == libc::SIGKILL && cgroup.frozen()? == Freezer::Frozen {
            // On cgroup v1 a frozen process dies only when it thaws.
            cgroup.freeze(Freezer::Thawed, deadline())?;
        }
        Ok(())
    }

    /// Freezes every process.
    ///
    /// # Errors
    /// A container that is not running.
    pub fn pause(&self, id: &str) -> Result<()> {
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&entry, cgroup.as_ref())? {
            Status::Running | Status::Created => {}
            Status::Paused => return Err(Error::Refused("container already paused".into())),
            _ => return Err(Error::NotRunning),
        }
        cgroup.freeze(Freezer::Frozen, deadline()).inspect_err(|_| {
            // Half frozen is worse than running.
            let _as_it_was = cgroup.freeze(Freezer::Thawed, deadline());
        })
    }

    /// Thaws every process.
    ///
    /// # Errors
    /// `container not paused`.
    pub fn resume(&self, id: &str) -> Result<()> {
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&entry, cgroup.as_ref())? {
            Status::Paused => cgroup.freeze(Freezer::Thawed, deadline()),
            _ => Err(Error::Refused("container not paused".into())),
        }
    }

    /// The entry and record of a container.
    pub(super) fn find(&self, id: &str) -> Result<(Entry, Record)> {
        let entry = self.store().open(id)?;
        let record = entry.record()?.ok_or(Error::NotExist)?;
        Ok((entry, record))
    }
}

fn send(process: std::os::fd::BorrowedFd<'_>, signal: i32) -> Result<()> {
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(()),
        Err(Errno::ESRCH) => Err(Error::NotRunning),
        Err(errno) => Err(errno).call(|| format!("pidfd_send_signal({signal})")),
    }
}

fn signal_all(cgroup: &dyn Cgroup, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL {
        return cgroup.kill();
    }
    for pid in cgroup.pids()? {
        // By handle, and only if it still is in the cgroup: between the list and the handle the pid can change its owner.
        let Ok(process) = pidfd_open(pid) else { continue };
        if cgroup.pids()?.contains(&pid) {
            match send(process.as_fd(), signal) {
                Ok(()) | Err(Error::NotRunning) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
