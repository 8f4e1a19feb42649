//! `state`, `list`, `ps`.

use std::sync::Arc;

use super::{Runtime, State, Status};
use crate::cgroup::{self, Cgroup, Freezer};
use crate::init::fifo;
use crate::store::{Entry, Init, Record};
use crate::userns::name_of;
use crate::{Error, Result};

impl Runtime {
    /// What the container is doing now.
    ///
    /// # Errors
    /// [`Error::NotExist`], or a state that cannot be read.
    pub fn state(&self, id: &str) -> Result<State> {
        state_of(&self.store().open(id)?)
    }

    /// Every container under the root, by name; one whose state cannot be read comes as an error with its name.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Result<State>)>> {
        let store = self.store();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let state = |name: &str| {
            let entry = store.open(name)?;
            let state = state_of(&entry)?;
            let owner = name_of(&users, entry.owner()?.as_raw()).unwrap_or_default().to_owned();
            Ok(State { owner, ..state })
        };
        let states = store.names()?.into_iter().map(|name| (state(&name), name));
        // Deleted since we read the directory.
        let there = states.filter(|(state, _)| !matches!(state, Err(Error::NotExist)));
        Ok(there.map(|(state, name)| (name, state)).collect())
    }

    /// The names of all containers under the root, sorted.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        self.store().names()
    }

    /// The pids of the container on the host.
    ///
    /// # Errors
    /// [`Error::NotExist`].
    pub fn ps(&self, id: &str) -> Result<Vec<i32>> {
        let entry = self.store().open(id)?;
        let record = entry.record()?.ok_or(Error::NotExist)?;
        if !record.cgroup.directories.is_empty() {
            return Ok(cgroup::open(&record.cgroup).pids()?.iter().map(|pid| pid.as_raw()).collect());
        }
        match entry.init()? {
            Some(init) if init.is_alive()? => crate::family::of(init.pid),
            _ => Ok(Vec::new()),
        }
    }
}

fn state_of(entry: &Entry) -> Result<State> {
    // No record: its create is between its first two calls, or was killed there.
    let record = entry.record()?.ok_or(Error::NotExist)?;
    let init = entry.init()?;
    let status = status_with(entry, init, cgroup::open(&record.cgroup).as_ref())?;
    let running = init.filter(|_| status != Status::Stopped);
    Ok(describe(record, status, running.map_or(0, |init| init.pid.as_raw())))
}

/// Asks the kernel what a container is doing.
pub(super) fn status(entry: &Entry, cgroup: &dyn Cgroup) -> Result<Status> {
    status_with(entry, entry.init()?, cgroup)
}

/// As [`status`], of a container with this init.
fn status_with(entry: &Entry, init: Option<Init>, cgroup: &dyn Cgroup) -> Result<Status> {
    let Some(init) = init else {
        // Held by the create that is at work; not held: that create was killed.
        return Ok(if entry.is_unlocked() { Status::Stopped } else { Status::Creating });
    };
    if !init.is_alive()? {
        return Ok(Status::Stopped);
    }
    if cgroup.frozen()? == Freezer::Frozen {
        return Ok(Status::Paused);
    }
    Ok(if fifo::is_awaited(entry)? { Status::Created } else { Status::Running })
}

fn describe(record: Record, status: Status, pid: i32) -> State {
    State {
        oci_version: record.oci_version,
        id: record.id,
        pid,
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: Arc::unwrap_or_clone(record.annotations),
        owner: String::new(),
    }
}

impl Status {
    /// The name of the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}
