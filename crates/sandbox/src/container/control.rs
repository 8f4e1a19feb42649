//! `kill`, `pause`, `resume`.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::{Runtime, Status};
use crate::cgroup::{self, Cgroup, Freezer};
use crate::deadline::{Deadline, TO_CHANGE, TO_UNDO};
use crate::error::CallContext;
use crate::store::{Entry, Record};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::{Error, Result};

impl Runtime {
    /// Sends `signal` to init, or with `all` to every process; `all` makes a stopped container no error. SIGKILL to a container
    /// without a pid namespace of its own reaches every process, with init gone too: nothing else would ever end them.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        let Some(init) = entry.init()? else {
            // Nothing of it runs but a create, whose stages end with it. What is in the cgroup may be another's, which create refuses;
            // and what is frozen for the signal, by a kill that is killed then, would not end.
            return if all { Ok(()) } else { Err(Error::NotRunning) };
        };
        let handle = match init.open() {
            Ok(handle) => Some(handle),
            Err(Error::NotRunning) => None,
            Err(error) => return Err(error),
        };
        let orphans = signal == libc::SIGKILL && !record.own_pid_namespace;
        let everything = all || orphans;
        if handle.is_none() && !all && (!orphans || cgroup.pids()?.is_empty()) {
            return Err(Error::NotRunning);
        }
        let mut reached = if everything && signal != libc::SIGKILL {
            signal_all(cgroup.as_ref(), signal, deadline)?
        } else {
            BTreeSet::new()
        };
        if let Some(handle) = handle
            // Not among the others: in no cgroup of ours, or they are not asked for.
            && reached.insert(init.pid)
        {
            match send(handle.as_fd(), signal) {
                Err(Error::NotRunning) if everything => {}
                sent => sent?,
            }
        }
        if signal == libc::SIGKILL {
            if everything {
                cgroup.kill()?;
            }
            if cgroup.frozen()? == Freezer::Frozen {
                // On cgroup v1 a frozen process dies only when it thaws.
                cgroup.freeze(Freezer::Thawed, deadline)?;
            }
        }
        Ok(())
    }

    /// Freezes every process.
    ///
    /// # Errors
    /// A container that is not running.
    pub fn pause(&self, id: &str) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&entry, cgroup.as_ref())? {
            Status::Running | Status::Created => {}
            Status::Paused => return Err(Error::Refused("container already paused".into())),
            _ => return Err(Error::NotRunning),
        }
        cgroup.freeze(Freezer::Frozen, deadline).inspect_err(|_| {
            // Half frozen is worse than running.
            let _as_it_was = cgroup.freeze(Freezer::Thawed, Deadline::after(TO_UNDO));
        })
    }

    /// Thaws every process.
    ///
    /// # Errors
    /// `container not paused`.
    pub fn resume(&self, id: &str) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&entry, cgroup.as_ref())? {
            Status::Paused => cgroup.freeze(Freezer::Thawed, deadline),
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

/// How long `kill --all` waits for the freezer. It goes on without.
const FREEZE_FOR_SIGNAL: Duration = Duration::from_secs(2);

/// Sends `signal` once to every process of the cgroup, frozen meanwhile so that none forks away from the list; a container
/// that is paused stays so, and gets the signal when it is resumed. Returns whom it has reached.
fn signal_all(cgroup: &dyn Cgroup, signal: i32, deadline: Deadline) -> Result<BTreeSet<Pid>> {
    if cgroup.frozen()? == Freezer::Frozen {
        return signal_each(cgroup, signal);
    }
    let frozen = cgroup.freeze(Freezer::Frozen, deadline.sooner(FREEZE_FOR_SIGNAL));
    let reached = signal_each(cgroup, signal);
    match frozen {
        // Not to be left frozen because time is up.
        Ok(()) => cgroup.freeze(Freezer::Thawed, Deadline::after(TO_UNDO))?,
        // A process that cannot be frozen, no freezer, no cgroup: `freeze` has left nothing half frozen.
        Err(error) => tracing::debug!("signalled without freezing: {error}"),
    }
    reached
}

/// Sends `signal` to every process in the list, and looks again until the list has nobody new: at once if it is frozen.
fn signal_each(cgroup: &dyn Cgroup, signal: i32) -> Result<BTreeSet<Pid>> {
    let mut reached = BTreeSet::new();
    let until = Instant::now() + FREEZE_FOR_SIGNAL;
    loop {
        let mut opened = Vec::new();
        for pid in cgroup.pids()?.into_iter().filter(|pid| !reached.contains(pid)) {
            match pidfd_open(pid) {
                Ok(process) => opened.push((pid, process)),
                Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).call(|| format!("pidfd_open({pid})")),
            }
        }
        if opened.is_empty() {
            return Ok(reached);
        }
        // By handle, and only if it still is in the cgroup: between the list and the handle the pid can change its owner.
        let listed = cgroup.pids()?;
        for (pid, process) in opened {
            if listed.binary_search(&pid).is_ok() {
                match send(process.as_fd(), signal) {
                    Ok(()) | Err(Error::NotRunning) => {}
                    Err(error) => return Err(error),
                }
            }
            reached.insert(pid);
        }
        if Instant::now() >= until {
            return Ok(reached);
        }
    }
}
