//! `start`.

use std::path::Path;

use super::{Runtime, Status, deadline, delete};
use crate::error::Context;
use crate::init::fifo;
use crate::notify::{self, Proxy};
use crate::plan::HookPlan;
use crate::step::Step;
use crate::store::unlink_if_there;
use crate::{Error, Result, cgroup, hook};

impl Runtime {
    /// Lets the created process go; with `notify_socket`, that of the service manager, waits until it says that it is ready.
    ///
    /// # Errors
    /// `cannot start an already running container`, `cannot start a container that has stopped`, or why exec failed.
    pub fn start(&self, id: &str, notify_socket: Option<&Path>) -> Result<()> {
        let locked = self.store().open(id)?.lock(deadline())?;
        let record = locked.record()?.ok_or(Error::NotExist)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&locked, cgroup.as_ref())? {
            Status::Created => {}
            Status::Running => return Err(Error::Refused("cannot start an already running container".into())),
            Status::Stopped => return Err(Error::Refused("cannot start a container that has stopped".into())),
            Status::Paused => return Err(Error::Refused("cannot start a paused container".into())),
            Status::Creating => return Err(Error::Refused("cannot start a container that is being created".into())),
        }
        let notify = notify_socket.map(|host| Proxy::bind(&locked, host)).transpose()?.flatten();
        fifo::release(&locked, None).at(Step::AwaitStart)?;
        unlink_if_there(locked.dir(), "exec.fifo")?;
        if !record.hooks.poststart && notify.is_none() {
            return Ok(());
        }
        let init = locked.init()?.ok_or(Error::NotRunning)?;
        if record.hooks.poststart {
            let spec = locked.spec()?;
            let state = delete::hook_state(&record).json(Status::Running, init.pid.as_raw());
            hook::run_all(Step::Poststart, &HookPlan::new(&spec).poststart, &state).inspect_err(|_| {
                // "Generate an error, stop the container": the error is the hook's.
                let _stopped = delete::kill_init(init).and_then(|()| delete::await_end(init));
            })?;
        }
        // Others may look at it, stop it, delete it, while we wait.
        drop(locked);
        notify::wait(notify, init.pid);
        Ok(())
    }
}
