//! Cgroups: one trait, three implementations behind it (v1, v2, a unit of systemd with either), chosen once.

mod convert;
mod delegation;
mod device;
mod dir;
mod event;
mod field;
mod files;
mod host;
pub mod join;
mod journal;
pub mod outline;
pub mod permission;
mod removal;
#[cfg(test)]
mod scratch;
pub mod stat;
mod systemd;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use serde::{Deserialize, Serialize};

pub use delegation::delegate;
pub use device::{device_program, own_devices};
pub use event::OomWatch;
pub(crate) use removal::{describe as describe_process, describe_all as describe_processes};
pub use stat::Stats;
pub use systemd::{Bus, Unit};

use crate::deadline::Deadline;
use crate::{Error, Result};

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This program, with mkdir in cgroupfs.
    Cgroupfs,
    /// systemd, asked over D-Bus for a unit.
    Systemd,
    /// Nobody: the container stays where its caller is. Its processes cannot be told from others then: they are not
    /// limited, listed, frozen, nor killed as a whole.
    Disabled,
}

/// One directory of the container in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Controllers of the hierarchy (`cpu,cpuacct`), `name=systemd`, or empty for cgroup2.
    pub hierarchy: String,
    /// The host path of the container's directory: `/sys/fs/cgroup/memory/user/web`.
    pub path: PathBuf,
}

/// Where a container's cgroup is. Recorded in its state before the first mkdir, so that a killed runtime
/// leaves something that `delete --force` finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Who made it.
    pub driver: Driver,
    /// v1: one per hierarchy (on a hybrid host the cgroup2 one too, last). v2: exactly one. Disabled: none.
    pub directories: Vec<Directory>,
    /// The unit of systemd that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// The paths of `linux.devices` that are those of default devices: see [`own_devices`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_devices: Vec<PathBuf>,
}

impl Location {
    /// Of no unit, and for a container without devices of its own.
    pub(crate) fn new(driver: Driver, directories: Vec<Directory>) -> Self {
        Self { driver, directories, unit: None, own_devices: Vec::new() }
    }
}

/// Whether a container's processes may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freezer {
    /// Every process is stopped.
    Frozen,
    /// Processes run.
    Thawed,
}

/// The cgroup of one container, in every hierarchy that the host has.
pub trait Cgroup {
    /// Where it is.
    fn location(&self) -> &Location;

    /// Makes the directories (prepares parents: cpuset values on v1, `cgroup.subtree_control` on v2), and refuses
    /// a cgroup that exists and holds processes or is frozen.
    ///
    /// # Errors
    /// The call that failed; what was made before is removed again. Do not [`Cgroup::remove`] after that: where
    /// `create` refused, the processes inside are somebody else's.
    fn create(&self, deadline: Deadline) -> Result<()>;

    /// Whether it cannot be without a process inside: a scope of systemd, not yet started. Then
    /// [`Cgroup::create_around`] is called instead of [`Cgroup::create`].
    fn wants_process(&self) -> bool {
        false
    }

    /// As [`Cgroup::create`], with `process`, which has one thread, inside.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    fn create_around(&self, process: Pid, _deadline: Deadline) -> Result<()> {
        Err(Error::Refused(format!("process {process} enters its cgroup by itself")))
    }

    /// Writes the limits that `resources` names and leaves the others, for `create`; devices are
    /// [`Cgroup::allow_devices`]' part. A field that the host has no controller or file for is an error that names it, one
    /// that this version of cgroups has nothing for is logged.
    ///
    /// # Errors
    /// The write that failed, with field, file and value.
    fn apply(&self, resources: &LinuxResources) -> Result<()>;

    /// Changes the limits that `resources` names of a cgroup in use, and leaves the others: all of it or nothing, as far as
    /// the kernel lets a limit be put back. Lowers memory so that nobody is killed where that can be avoided. Device rules
    /// are changed if there is a list, last, and never with an instant of none.
    ///
    /// # Errors
    /// The write that failed, with field, file and value; what could not be put back. `memory.checkBeforeUpdate`: more
    /// memory is in use than the new limit.
    fn update(&self, resources: &LinuxResources, deadline: Deadline) -> Result<()>;

    /// Denies every device but those that `rules` (`linux.resources.devices`) allow, in order, and those that every
    /// container has, less its [`own_devices`]. `create` calls this always, with no rules if there are none (GHSA-g54h-m393-cpwq: without it
    /// everything is open); `update` only if the update names devices, or it would reset them.
    ///
    /// # Errors
    /// A rule that is malformed or that cgroup v1 cannot express; the write or bpf(2) call that failed.
    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()>;

    /// The cgroup2 directory for `clone3(CLONE_INTO_CGROUP)`; None on a host without cgroup2.
    ///
    /// # Errors
    /// The open that failed.
    fn clone_target(&self) -> Result<Option<OwnedFd>>;

    /// The v1 `tasks` files, open for writing: a single-threaded process enters by writing `0` to each. Unlike
    /// a pid written to `cgroup.procs`, that takes no global lock and waits for no RCU grace period: since kernel
    /// 5.16 (9a3284fad42f, "cgroup: Optimize single thread migration") `cgroup_procs_write_start` takes
    /// `cgroup_threadgroup_rwsem` only `if (pid || threadgroup)`, and `tasks` with `0` is neither.
    ///
    /// # Errors
    /// The open that failed.
    fn entrances(&self) -> Result<Vec<OwnedFd>>;

    /// Every process in the cgroup and below it, in this process' pid namespace.
    ///
    /// # Errors
    /// The read that failed; a cgroup that is gone is empty.
    fn pids(&self) -> Result<Vec<Pid>>;

    /// Freezes or thaws, and waits until it is so or `deadline` has passed.
    ///
    /// # Errors
    /// The write that failed, or what did not freeze in time.
    fn freeze(&self, freezer: Freezer, deadline: Deadline) -> Result<()>;

    /// Whether it is frozen.
    ///
    /// # Errors
    /// The read that failed.
    fn frozen(&self) -> Result<Freezer>;

    /// Kills everything inside, frozen or not: `cgroup.kill` where there is one (kernel ≥ 5.14; on a hybrid host in
    /// its cgroup2), else freeze, signal, thaw. Does not wait.
    ///
    /// # Errors
    /// The call that failed.
    fn kill(&self) -> Result<()>;

    /// Kills what is left, waits (`cgroup.events`, pidfds) until nothing is, removes the directories bottom-up.
    ///
    /// # Errors
    /// What stayed: pid, state, wchan.
    fn remove(&self, deadline: Deadline) -> Result<()>;

    /// What the cgroup has used so far.
    ///
    /// # Errors
    /// The read that failed; a controller or file that the host lacks counts nothing.
    fn stats(&self) -> Result<Stats>;
}

/// How long `kill` waits for the freezer where there is no `cgroup.kill`. It goes on without: `remove` looks again.
const FREEZE_FOR_KILL: Duration = Duration::from_secs(2);

/// Works out where the cgroup of container `id` goes. `cgroups_path` is `linux.cgroupsPath`; empty is absent. `..` is
/// resolved lexically, so that the path stays below the root of each hierarchy.
///
/// # Errors
/// A path that names no cgroup of its own (`/`); for systemd one that is not `slice:prefix:name`; a host without cgroups or
/// without systemd.
pub fn locate(driver: Driver, cgroups_path: Option<&Path>, id: &str) -> Result<Location> {
    match driver {
        Driver::Cgroupfs => host::locate(Path::new(host::ROOT), cgroups_path, id),
        Driver::Systemd => systemd::locate(Path::new(host::ROOT), cgroups_path, id),
        Driver::Disabled => Ok(Location::new(driver, Vec::new())),
    }
}

/// The manager for a location. Nothing is read or opened yet.
pub fn open(location: &Location) -> Box<dyn Cgroup> {
    open_below(Path::new(host::ROOT), location)
}

/// The manager for a cgroup that is to be. A unit of systemd is started with its limits, its device rules, and the properties
/// among the annotations.
///
/// # Errors
/// An annotation that is no property; for systemd, limits that cannot be had.
pub fn prepare<'a>(
    location: &Location,
    id: &str,
    resources: &LinuxResources,
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Box<dyn Cgroup>> {
    match &location.unit {
        Some(unit) => {
            let manager = systemd::Manager::new(Path::new(host::ROOT), location, unit);
            Ok(Box::new(manager.prepare(id, resources, annotations)?))
        }
        None => Ok(open(location)),
    }
}

/// As [`open`], on a host whose cgroup2 is mounted at `root`.
fn open_below(root: &Path, location: &Location) -> Box<dyn Cgroup> {
    if let Some(unit) = &location.unit {
        return Box::new(systemd::Manager::new(root, location, unit));
    }
    match location.directories.as_slice() {
        [] => Box::new(Disabled(location.clone())),
        [only] if only.hierarchy.is_empty() && !is_beside_v1(root, &only.path) => {
            Box::new(v2::Manager::new(root, location, &only.path))
        }
        _ => Box::new(v1::Manager::new(location)),
    }
}

/// Whether this directory of cgroup2 is all that a user may have on a hybrid host.
fn is_beside_v1(root: &Path, path: &Path) -> bool {
    // Where every distribution mounts it then. The name alone could be that of a cgroup.
    path.starts_with(root.join("unified")) && !host::is_cgroup2(root)
}

/// Refuses a cgroup that was there before and is in use: its limits would become another container's.
fn refuse_occupied(pids: &[Pid], freezer: Freezer) -> Result<()> {
    if !pids.is_empty() {
        return Err(Error::Refused(format!("container's cgroup is not empty: {} process(es) found", pids.len())));
    }
    if freezer == Freezer::Frozen {
        return Err(Error::Refused("container's cgroup unexpectedly frozen".into()));
    }
    Ok(())
}

/// No cgroup: nothing to make, to limit or to remove. Who asks for it keeps the container in order by other means;
/// only what cannot be had is refused.
#[derive(Debug)]
struct Disabled(Location);

impl Cgroup for Disabled {
    fn location(&self) -> &Location {
        &self.0
    }

    fn create(&self, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &LinuxResources) -> Result<()> {
        Ok(())
    }

    fn update(&self, _: &LinuxResources, _: Deadline) -> Result<()> {
        Err(Error::Refused("cannot limit a container without a cgroup".into()))
    }

    fn allow_devices(&self, _: &[LinuxDeviceCgroup]) -> Result<()> {
        Ok(())
    }

    fn clone_target(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }

    fn entrances(&self) -> Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        Ok(Vec::new())
    }

    fn freeze(&self, _: Freezer, _: Deadline) -> Result<()> {
        Err(Error::Refused("cannot freeze a container without a cgroup".into()))
    }

    fn frozen(&self) -> Result<Freezer> {
        Ok(Freezer::Thawed)
    }

    fn kill(&self) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        Ok(Stats::default())
    }
}

/// For fuzzing: whether each line of a /proc/PID/cgroup, or of a mountinfo, is understood.
#[cfg(fuzzing)]
pub fn read_proc(text: &str) -> bool {
    host::read_proc(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_there_is_no_directory() {
        let location = locate(Driver::Disabled, Some(Path::new("/a")), "web").unwrap();
        assert_eq!(location.directories, []);
        let cgroup = open(&location);
        cgroup.create(Deadline::NEVER).unwrap();
        assert!(cgroup.clone_target().unwrap().is_none() && cgroup.entrances().unwrap().is_empty());
        assert!(cgroup.freeze(Freezer::Frozen, Deadline::NEVER).is_err());
        cgroup.remove(Deadline::NEVER).unwrap();
    }
}
