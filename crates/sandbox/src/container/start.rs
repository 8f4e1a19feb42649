//! `start`.

use std::path::Path;

use super::{Runtime, Status, delete};
use crate::cgroup::Cgroup;
use crate::deadline::{Deadline, TO_MAKE, TO_UNDO, Wait};
use crate::error::Context;
use crate::init::fifo;
use crate::notify::{self, Proxy};
use crate::plan::HookPlan;
use crate::step::Step;
use crate::store::{Init, Locked, unlink_if_there};
use crate::{Error, Result, cgroup, family, hook, timing};

impl Runtime {
    /// Lets the created process go; with `notify_socket`, that of the service manager, waits until it says that it is ready.
    ///
    /// # Errors
    /// `cannot start an already running container`, `cannot start a container that has stopped`, or why exec failed.
    pub fn start(&self, id: &str, notify_socket: Option<&Path>) -> Result<()> {
        let deadline = self.deadline(TO_MAKE);
        let locked = self.store().open(id)?.lock(deadline)?;
        let record = locked.record()?.ok_or(Error::NotExist)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&locked, cgroup.as_ref())? {
            Status::Created => {}
            Status::Running => return Err(Error::Refused("cannot start an already running container".into())),
            Status::Stopped => return Err(Error::Refused("cannot start a container that has stopped".into())),
            Status::Paused => return Err(Error::Refused("cannot start a paused container".into())),
            Status::Creating => return Err(Error::Refused("cannot start a container that is being created".into())),
        }
        timing::lap(Step::Plan);
        let notify = notify_socket.map(|host| Proxy::bind(&locked, host, deadline)).transpose()?.flatten();
        if fifo::release(&locked, deadline).at(Step::AwaitStart)? == Wait::Late {
            return Err(not_started(&locked, cgroup.as_ref(), deadline)).at(Step::AwaitStart);
        }
        unlink_if_there(locked.dir(), "exec.fifo")?;
        timing::lap(Step::AwaitStart);
        if !record.hooks.poststart && notify.is_none() {
            return Ok(());
        }
        let init = locked.init()?.ok_or(Error::NotRunning)?;
        if record.hooks.poststart {
            let spec = locked.spec()?;
            let state = || delete::hook_state(&record).json(Status::Running, init.pid.as_raw());
            // "Generate an error, stop the container": the error is the hook's.
            hook::run_all(Step::Poststart, &HookPlan::new(&spec).poststart, state, deadline)
                .inspect_err(|_| stop(init))?;
        }
        // Others may look at it, stop it, delete it, while we wait.
        drop(locked);
        notify::wait(notify, init.pid, self.only_if_asked(deadline)).inspect_err(|_| stop(init))
    }
}

/// Ends init after a failure, which is what is reported. What stays is found by `delete --force`.
fn stop(init: Init) {
    let _stopped = delete::kill_init(init).and_then(|()| delete::await_end(init, Deadline::after(TO_UNDO)));
}

/// The error for a program that is not executed in time, with the processes that keep it from that. It is not to be later
/// either, as with a startContainer hook that fails: init is killed.
fn not_started(locked: &Locked, cgroup: &dyn Cgroup, deadline: Deadline) -> Error {
    let init = locked.init().ok().flatten();
    let who = match cgroup.pids().unwrap_or_default().as_slice() {
        [] => init.map_or_else(String::new, |init| family::describe(init.pid)),
        pids => cgroup::describe_processes(pids),
    };
    if let Some(init) = init {
        stop(init);
    }
    deadline.late(format_args!("the container's init has not executed its program: {who}"))
}
