//! `delete`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use oci_spec::runtime::Hook;

use super::{Runtime, Status};
use crate::cgroup::{self, Cgroup};
use crate::deadline::{Deadline, TO_CHANGE, Wait};
use crate::error::{CallContext, Context};
use crate::plan::{HookPlan, HookState};
use crate::step::Step;
use crate::store::{Init, Locked, Record};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::{Error, Result, hook, intel_rdt, timing};

/// How long a killed init may take to end before its cgroup is looked at. With it go all in its pid namespace, and the cgroup is empty
/// then, mostly. Else `cgroup.events` is waited for, of which the kernel tells once in ten milliseconds (`CGROUP_FILE_NOTIFY_MIN_INTV`).
const AT_ONCE: Duration = Duration::from_millis(10);

impl Runtime {
    /// Removes a stopped container, or one that was never started; with `force` kills it first, and an unknown one is no
    /// error.
    ///
    /// # Errors
    /// A running container without `force`; what could not be removed.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        let locked = match self.store().open(id).and_then(|entry| entry.lock(deadline)) {
            Err(Error::NotExist) if force => return Ok(()),
            locked => locked?,
        };
        let record = match locked.record() {
            // What could not be read this time may be there the next.
            Err(broken) if force && broken.errno().is_none() => {
                return self.delete_without_record(id, locked, &broken, deadline);
            }
            record => record?,
        };
        let Some(record) = record else {
            // Its create was killed between the first two calls: there is nothing but the name.
            return locked.remove();
        };
        let cgroup = cgroup::open(&record.cgroup);
        let Some(init) = locked.init()? else {
            detach_root(&record).at(Step::Remove)?;
            return delete_unfinished(locked, cgroup.as_ref(), &record.resctrl, deadline);
        };
        if !force {
            match super::inspect::status(&locked, cgroup.as_ref())? {
                Status::Stopped | Status::Created => {}
                status => {
                    return Err(Error::Refused(format!(
                        "cannot delete container {id} that is not stopped: {}",
                        status.name()
                    )));
                }
            }
        }
        kill_init(init).at(Step::Remove)?;
        // Not to be waited for any longer: it may be frozen, and dies when its cgroup is seen to.
        let _may_be_late = await_end(init, deadline.sooner(AT_ONCE));
        let hooks = if record.hooks.poststop { poststop_hooks(&locked)? } else { Vec::new() };
        remove(locked, Some(init), cgroup.as_ref(), &hooks, &record, deadline)
    }

    /// Deletes a container whose state file cannot be read, as far as the rest of its directory says what it is.
    fn delete_without_record(&self, id: &str, locked: Locked, broken: &Error, deadline: Deadline) -> Result<()> {
        tracing::warn!("{broken}: deleting by what else is known");
        let init = locked.init()?;
        let spec = locked.spec()?;
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        let location = cgroup::locate(self.cgroup_driver, path, id).at(Step::Remove)?;
        if let Some(init) = init {
            // As far as can be told the cgroup is the one that create has made: from elsewhere it may be another's.
            let cgroup = cgroup::open(&location);
            let theirs = !init.is_alive().at(Step::Remove)? || cgroup.pids().at(Step::Remove)?.contains(&init.pid);
            kill_init(init).at(Step::Remove)?;
            if theirs {
                cgroup.remove(deadline).at(Step::Remove)?;
            }
            await_end(init, deadline).at(Step::Remove)?;
        }
        delete_unfinished(locked, cgroup::open(&location).as_ref(), &[], deadline)
    }
}

/// Deletes what a killed create has left. Its stages end by themselves, since the wire is closed, on a busy machine not at once.
/// What else runs in the cgroup is not this container's: the record is written before the cgroup is made, and create refuses one in use.
fn delete_unfinished(locked: Locked, cgroup: &dyn Cgroup, resctrl: &[PathBuf], deadline: Deadline) -> Result<()> {
    for pid in cgroup.pids().at(Step::Remove)? {
        if let Ok(pidfd) = pidfd_open(pid)
            && await_pidfd(&pidfd, deadline)? == Wait::Late
        {
            tracing::warn!("left the cgroup of an unfinished create alone: process {pid} runs in it");
            return locked.remove();
        }
    }
    cgroup.remove(deadline).at(Step::Remove)?;
    intel_rdt::remove(resctrl).at(Step::Remove)?;
    locked.remove()
}

/// Kills what is left in the cgroup, removes it and the state, and runs the poststop hooks: their failure is logged, as the
/// specification says.
///
/// # Errors
/// What stayed. The state stays with it, to be deleted again.
pub(super) fn remove(
    locked: Locked,
    init: Option<Init>,
    cgroup: &dyn Cgroup,
    poststop: &[Hook],
    record: &Record,
    deadline: Deadline,
) -> Result<()> {
    cgroup.remove(deadline).at(Step::Remove)?;
    if let Some(init) = init {
        await_end(init, deadline).at(Step::Remove)?;
    }
    intel_rdt::remove(&record.resctrl).at(Step::Remove)?;
    detach_root(record).at(Step::Remove)?;
    locked.remove().at(Step::Remove)?;
    timing::lap(Step::Remove);
    let state = || hook_state(record).json(Status::Stopped, 0);
    for hook in poststop {
        if let Err(error) = hook::run_all(Step::Poststop, std::slice::from_ref(hook), state, deadline) {
            tracing::warn!("{error}");
        }
    }
    Ok(())
}

/// Takes away what was mounted in the namespace of the caller, for a container without one.
fn detach_root(record: &Record) -> Result<()> {
    record.callers_root.map_or(Ok(()), |root| root.detach(&record.rootfs))
}

/// Kills init. It may be frozen, and then dies once [`remove`] has seen to its cgroup: waiting is done there.
pub(super) fn kill_init(init: Init) -> Result<()> {
    let pidfd = match init.open() {
        Err(Error::NotRunning) => return Ok(()),
        pidfd => pidfd?,
    };
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).call(|| format!("pidfd_send_signal({}, SIGKILL)", init.pid)),
    }
}

/// Waits until the process behind `init` has ended.
///
/// # Errors
/// It has not by the deadline.
pub(super) fn await_end(init: Init, deadline: Deadline) -> Result<()> {
    let pidfd = match init.open() {
        Err(Error::NotRunning) => return Ok(()),
        pidfd => pidfd?,
    };
    match await_pidfd(&pidfd, deadline)? {
        Wait::Done => Ok(()),
        Wait::Late => Err(deadline.late(format_args!("init does not end: {}", cgroup::describe_process(init.pid)))),
    }
}

fn await_pidfd(pidfd: &OwnedFd, deadline: Deadline) -> Result<Wait> {
    deadline.poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)]).call(|| "poll(pidfd)")
}

fn poststop_hooks(locked: &Locked) -> Result<Vec<Hook>> {
    let spec = locked.spec()?;
    Ok(HookPlan::new(&spec).poststop)
}

/// What hooks are told of a container that exists.
pub(super) fn hook_state(record: &Record) -> HookState {
    HookState {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        annotations: Arc::clone(&record.annotations),
    }
}
