//! `state`, `list`, `ps`.

use super::{Runtime, State, Status};
use crate::cgroup::{self, Cgroup, Freezer};
use crate::init::fifo;
use crate::store::{Entry, Init, Record};
use crate::{Error, Result};

impl Runtime {
    /// What the container is doing now.
    ///
    /// # Errors
    /// [`Error::NotExist`], or a state that cannot be read.
    pub fn state(&self, id: &str) -> Result<State> {
        let entry = self.store().open(id)?;
        // No record: its create is between its first two calls, or was killed there.
        let record = entry.record()?.ok_or(Error::NotExist)?;
        let init = entry.init()?;
        let status = status_with(&entry, init, cgroup::open(&record.cgroup).as_ref())?;
        let running = init.filter(|_| status != Status::Stopped);
        Ok(describe(record, status, running.map_or(0, |init| init.pid.as_raw())))
    }

    /// Every container under the root, by name; one whose state cannot be read comes as an error with its name.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn list(&self) -> Result<Vec<(String, Result<State>)>> {
        let names = self.store().names()?;
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Ok(names
            .into_iter()
            .filter_map(|name| match self.state(&name) {
                // Deleted since we read the directory.
                Err(Error::NotExist) => None,
                Ok(mut state) => {
                    state.owner = self.owner(&name, &users);
                    Some((name, Ok(state)))
                }
                Err(error) => Some((name, Err(error))),
            })
            .collect())
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

    /// The name of the user whose directory the container's state is, in `users` of the form of passwd(5); empty if it has
    /// none.
    fn owner(&self, id: &str, users: &str) -> String {
        use std::os::unix::fs::MetadataExt;
        let uid = std::fs::metadata(self.root.join(id)).map(|metadata| metadata.uid().to_string());
        uid.ok()
            .and_then(|uid| {
                users.lines().find_map(|line| {
                    let mut fields = line.split(':');
                    let name = fields.next()?;
                    (fields.nth(1)? == uid).then(|| name.to_owned())
                })
            })
            .unwrap_or_default()
    }
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
        annotations: record.annotations,
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
