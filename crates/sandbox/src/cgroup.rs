//! Cgroups: one trait, a v1 and a v2 implementation behind it, chosen once.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This program, with mkdir in cgroupfs.
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays where its caller is.
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
    /// The call that failed; what was made before is removed again.
    fn create(&self) -> Result<()>;

    /// Writes the limits. A field the host cannot honour is an error that names it.
    ///
    /// # Errors
    /// The write that failed, with file and value.
    fn apply(&self, resources: &LinuxResources) -> Result<()>;

    /// The cgroup2 directory for `clone3(CLONE_INTO_CGROUP)`; None on a host without cgroup2.
    ///
    /// # Errors
    /// The open that failed.
    fn clone_target(&self) -> Result<Option<OwnedFd>>;

    /// The v1 `tasks` files, open for writing: a single-threaded process enters by writing `0` to each. Unlike
    /// a pid written to `cgroup.procs`, that takes no global lock and waits for no RCU grace period.
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
    fn freeze(&self, freezer: Freezer, deadline: Instant) -> Result<()>;

    /// Whether it is frozen.
    ///
    /// # Errors
    /// The read that failed.
    fn frozen(&self) -> Result<Freezer>;

    /// Kills everything inside: `cgroup.kill` where there is one, else freeze, signal, thaw. Does not wait.
    ///
    /// # Errors
    /// The call that failed.
    fn kill(&self) -> Result<()>;

    /// Kills what is left, waits (`cgroup.events`, pidfds) until nothing is, removes the directories bottom-up.
    ///
    /// # Errors
    /// What stayed: pid, state, wchan.
    fn remove(&self, deadline: Instant) -> Result<()>;
}

/// Works out where the cgroup of container `id` goes. `cgroups_path` is `linux.cgroupsPath`.
///
/// # Errors
/// A path that leaves the hierarchy.
pub fn locate(driver: Driver, cgroups_path: Option<&Path>, id: &str) -> Result<Location> {
    let _ = (cgroups_path, id);
    Ok(Location { driver, directories: Vec::new() })
}

/// The manager for a location.
pub fn open(location: &Location) -> Box<dyn Cgroup> {
    let _ = location;
    unimplemented!("skeleton")
}
