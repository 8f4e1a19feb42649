//! `delete`.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Hook;

use super::{Runtime, Status, deadline};
use crate::cgroup::{self, Cgroup};
use crate::error::{CallContext, Context};
use crate::plan::{HookPlan, HookState};
use crate::step::Step;
use crate::store::{Init, Locked, Record};
use crate::sys::pidfd::pidfd_send_signal;
use crate::{Error, Result, hook};

impl Runtime {
    /// Removes a stopped container, or one that was never started; with `force` kills it first, and an unknown one is no
    /// error.
    ///
    /// # Errors
    /// A running container without `force`; what could not be removed.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let locked = match self.store().open(id).and_then(|entry| entry.lock(deadline())) {
            Err(Error::NotExist) if force => return Ok(()),
            locked => locked?,
        };
        let Some(record) = locked.record()? else {
            // Its create was killed between the first two calls: there is nothing but the name.
            return locked.remove();
        };
        let cgroup = cgroup::open(&record.cgroup);
        let init = locked.init()?;
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
        if let Some(init) = init {
            kill_init(init).at(Step::Remove)?;
        }
        let hooks = if record.hooks.poststop { poststop_hooks(&locked)? } else { Vec::new() };
        remove(locked, init, cgroup.as_ref(), &hooks, &hook_state(&record))
    }
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
    state: &HookState,
) -> Result<()> {
    cgroup.remove(deadline()).at(Step::Remove)?;
    if let Some(init) = init {
        await_end(init).at(Step::Remove)?;
    }
    locked.remove().at(Step::Remove)?;
    for hook in poststop {
        if let Err(error) = hook::run_all(Step::Poststop, std::slice::from_ref(hook), &state.json(Status::Stopped, 0)) {
            tracing::warn!("{error}");
        }
    }
    Ok(())
}

/// Kills init. It may be frozen, and then dies once [`remove`] has seen to its cgroup: waiting is done there.
fn kill_init(init: Init) -> Result<()> {
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
fn await_end(init: Init) -> Result<()> {
    let until = deadline();
    let pidfd = match init.open() {
        Err(Error::NotRunning) => return Ok(()),
        pidfd => pidfd?,
    };
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(Error::Refused(format!("process {} does not end", init.pid)));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno).call(|| "poll(pidfd)"),
        }
    }
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
        status: Status::Stopped,
        pid: 0,
        bundle: record.bundle.clone(),
        annotations: record.annotations.clone(),
    }
}
