//! Mounts of a container that runs: attached to its tree, or taken off it, by a process that has entered its mount namespace.
//!
//! What is in the tree belongs to the container, which may change it meanwhile. As when it was built, a place is looked up
//! inside the root and from then on only its descriptor is used.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::unistd::fchdir;

use super::mount::{CgroupNamespace, MountEnv};
use super::tree::{self, Links};
use super::{HostMounts, Root, bind};
use crate::error::{CallContext, Context};
use crate::plan::mounts::{Kind, MountPlan};
use crate::{Error, Result};

/// What is to be done with mounts.
#[derive(Debug)]
pub enum Change {
    /// They are added in order, or none of them is.
    Add {
        /// Each with its source, if it is a bind mount.
        mounts: Vec<(MountPlan, Option<OwnedFd>)>,
        /// `linux.mountLabel`.
        label: Option<String>,
    },
    /// What is mounted last on each of these is taken away, in the reverse order.
    Remove(Vec<PathBuf>),
}

impl Change {
    /// Adds `mounts`. Called on the host, where the sources are; `host` is what its mounts are for the container.
    ///
    /// # Errors
    /// A mount that cannot be added to a container that runs, by its field; a source that cannot be.
    pub fn add(mounts: Vec<MountPlan>, host: HostMounts, label: Option<String>) -> Result<Self> {
        let with_source = |plan: MountPlan| {
            let refuse = |why| Err(Error::Refused(format!("mounts[{}]: {why}", plan.index)));
            if plan.idmap.is_some() {
                return refuse("an idmapped mount cannot be added to a container that runs");
            }
            match &plan.kind {
                Kind::Fs(fs) if fs.fstype != "tmpfs" => {
                    return refuse("only bind mounts and tmpfs can be added to a container that runs");
                }
                Kind::Cgroup { .. } => return refuse("cgroup cannot be added to a container that runs"),
                _ => {}
            }
            let source = bind::clone_source(&plan, host)?;
            Ok((plan, source))
        };
        let mounts = mounts.into_iter().map(with_source).collect::<Result<_>>()?;
        Ok(Self::Add { mounts, label })
    }
}

/// Changes the mounts below `root`, the root of the container whose mount namespace this process is in.
///
/// # Errors
/// The mount, and the call or the rule that refused it.
pub fn change(root: OwnedFd, change: Change) -> Result<()> {
    // For mount points that have to be made: the caller's mask is not the container's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let root = Root::of_container(root)?;
    match change {
        Change::Add { mounts, label } => add(root, mounts, label.as_deref()),
        Change::Remove(destinations) => destinations.iter().rev().try_for_each(|path| root.unmount(path)),
    }
}

fn add(root: Root, mounts: Vec<(MountPlan, Option<OwnedFd>)>, label: Option<&str>) -> Result<()> {
    let env = MountEnv { cgroup: &[], cgroup_namespace: CgroupNamespace::Own, label };
    let mut added: Vec<PathBuf> = Vec::new();
    for (plan, source) in mounts {
        if let Err(error) = root.mount(&plan, source, &env) {
            for path in added.iter().rev() {
                // What is reported is the cause.
                let _left = root.unmount(path);
            }
            return Err(error);
        }
        if plan.kind != Kind::Remount {
            added.push(plan.destination);
        }
    }
    root.make_read_only()
}

impl Root {
    fn unmount(&self, path: &Path) -> Result<()> {
        let purpose = || format!("unmount {path:?}");
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Refused("the root itself cannot be unmounted".into())).during(purpose);
        };
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let parent = tree::open_with(&self.fd, parent, directory, Links::Follow)
            .call(|| format!("openat2({parent:?})"))
            .during(purpose)?;
        fchdir(&parent).call(|| "fchdir()").during(purpose)?;
        // Of one name below the working directory, without following it: nothing outside can be meant.
        match umount2(name, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EINVAL) => Err(Error::Refused("nothing is mounted there".into())),
            done => done.call(|| format!("umount2({name:?})")),
        }
        .during(purpose)
    }
}
