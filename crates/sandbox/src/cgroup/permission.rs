//! Cgroups of a user who owns none, or some: rootless containers.
//!
//! Such a container goes without the cgroups that its user may not make, as in runc: as long as nobody has asked for one
//! by name (`linux.cgroupsPath`), nor for a limit that takes one. The question is put before anything is made, so that the
//! container's record names what will be there.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::dir::is_cgroupfs;
use super::outline::{Version, Write, usual, version, writes};
use super::{Cgroup, Directory, Driver, Location};
use crate::error::{CallContext, Context};
use crate::{Error, Result, userns};

/// Whether an errno says that somebody else may, but not this user. EROFS is how a container sees its cgroups.
fn is_denial(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

/// Where the cgroup of a rootless container goes: as [`super::locate`], without what this user may not make.
///
/// # Errors
/// A limit of `resources` that takes what is left out, by its field; as [`super::locate`].
pub fn locate(driver: Driver, cgroups_path: Option<&Path>, id: &str, resources: &LinuxResources) -> Result<Location> {
    let is_named = cgroups_path.is_some_and(|path| !path.as_os_str().is_empty());
    match super::locate(driver, cgroups_path, id) {
        located if is_named || driver != Driver::Cgroupfs => located,
        // Inside a container that has none.
        Err(error) if !asks_for_limits(resources)? => {
            tracing::debug!("{error}: going without a cgroup");
            Ok(Location::new(driver, Vec::new()))
        }
        located => permitted(located?, resources),
    }
}

/// Whether anything but devices is to be limited.
fn asks_for_limits(resources: &LinuxResources) -> Result<bool> {
    // Any field has a file on cgroup v2, or is refused there.
    Ok(!limits(&usual(Version::V2, None, "any"), resources)?.is_empty())
}

/// What would be written, but for devices: what a user namespace cannot make it needs not be denied.
fn limits(location: &Location, resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut resources = resources.clone();
    resources.set_devices(None);
    let mut writes = writes(location, &resources)?;
    writes.retain(|write| write.field != "linux.resources.devices");
    Ok(writes)
}

/// `location` without the directories that this user may not make.
fn permitted(location: Location, resources: &LinuxResources) -> Result<Location> {
    let mut kept = Vec::new();
    let mut denied = Vec::new();
    for directory in &location.directories {
        match may_make(directory) {
            Ok(()) => kept.push(directory.clone()),
            Err(errno) => denied.push((directory.path.as_path(), errno)),
        }
    }
    if denied.is_empty() {
        return Ok(location);
    }
    for limit in limits(&location, resources)? {
        if let Some((path, errno)) = denied.iter().find(|(path, _)| limit.path.starts_with(path)) {
            let refused = Err(*errno).call(|| format!("mkdir({path:?})")).during(|| limit.field);
            return refused.map_err(|error| explain(error, &location));
        }
    }
    tracing::debug!("no permission for these cgroups, going without: {denied:?}");
    Ok(Location { directories: kept, ..location })
}

/// Denies devices, or leaves it where only privilege over the host can: a user namespace cannot make any.
///
/// # Errors
/// As [`Cgroup::allow_devices`], but for what is denied.
pub fn allow_devices_if_permitted(cgroup: &dyn Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let location = cgroup.location();
    if version(location) == Some(Version::V1) && !location.directories.iter().any(has_devices) {
        return Ok(());
    }
    match cgroup.allow_devices(rules) {
        Err(error) if is_denial(error.errno()) => {
            tracing::debug!("linux.resources.devices: {error}: going without");
            Ok(())
        }
        done => done,
    }
}

/// The same error, with the remedy if it is that of a cgroup which this user may not make or limit.
pub fn explain(error: Error, location: &Location) -> Error {
    if error.hint().is_some() {
        return error;
    }
    match error.errno() {
        errno if is_denial(errno) => error.hinted(remedy(version(location))),
        // What `limit::apply` says of a controller that nobody has handed down.
        Some(Errno::ENOENT) if userns::is_rootless() && error.to_string().contains("is not available") => error.hinted(
            "the controller is not delegated to you: as root, `systemctl edit user@.service`, [Service] \
             Delegate=cpu cpuset io memory pids",
        ),
        _ => error,
    }
}

fn remedy(version: Option<Version>) -> &'static str {
    if Path::new("/run/systemd/system").exists() && version == Some(Version::V2) {
        return "have your systemd make it: --systemd-cgroup; or run tare in a cgroup of yours: \
                systemd-run --user --scope -p Delegate=yes tare ...; or leave limits and linux.cgroupsPath out";
    }
    "have root make a cgroup and chown it to you, with its cgroup.procs, and run tare in it; or leave limits and \
     linux.cgroupsPath out"
}

fn has_devices(directory: &Directory) -> bool {
    directory.hierarchy.split(',').any(|controller| controller == "devices")
}

/// Whether this user may make the directory, and enter it.
fn may_make(directory: &Directory) -> nix::Result<()> {
    let parent = existing(&directory.path);
    if !is_cgroupfs(&parent) {
        // The mount table lists what another mount covers, too: /sys of a host below the tmpfs of a container.
        return Err(Errno::ENOENT);
    }
    faccessat(AT_FDCWD, &parent, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    if directory.hierarchy.is_empty() {
        // cgroup2 asks for more of who enters: the right to move processes about in the next cgroup above both its old
        // place and the new one, which for a name without a path is the one that holds the new one.
        let procs = parent.join("cgroup.procs");
        faccessat(AT_FDCWD, &procs, AccessFlags::W_OK, AtFlags::AT_EACCESS)?;
    }
    Ok(())
}

/// The nearest directory above `path` that is there.
fn existing(path: &Path) -> PathBuf {
    let parent = path.ancestors().skip(1).find(|ancestor| ancestor.exists());
    parent.unwrap_or(Path::new("/")).to_path_buf()
}
