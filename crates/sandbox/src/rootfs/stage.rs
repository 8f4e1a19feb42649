//! What a container that is restored gets from outside, laid out for CRIU: the root file system, and each mount from outside
//! under its number, with the attributes that the configuration gives it before CRIU sees it.
//!
//! All of it is in a mount namespace of CRIU's own, and gone with it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, umask};

use super::propagation::clone_private;
use super::saved::{Mounted, Outside, Source};
use super::tree::{self, Leaf, Links};
use super::{HostMounts, bind, file_type, mask, mountinfo};
use crate::cgroup::Directory;
use crate::error::{CallContext, Context};
use crate::plan::Plan;
use crate::plan::mounts::{Kind, MountPlan, Propagation};
use crate::sys::mount::{Recursion, mount_setattr_root, move_mount, open_tree_clone};
use crate::sys::path::identity;
use crate::sys::path::open;
use crate::{Error, Result};

/// The name of the root file system on the stage.
const ROOT: &str = "root";

/// Where the stage is and what it is made from.
#[derive(Debug)]
pub struct Stage<'a> {
    /// An empty directory of the host, absolute.
    pub directory: &'a Path,
    /// The container to be.
    pub plan: &'a Plan,
    /// What was saved of its mounts.
    pub saved: &'a Mounted,
    /// The container's directories, one per hierarchy.
    pub cgroup: &'a [Directory],
    /// The trees of those bind mounts whose ids are mapped, in the order of the mounts.
    pub sources: &'a [Option<OwnedFd>],
}

/// What of that is a slave: of mounts of the host that are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// The root file system.
    pub root: bool,
    /// The mounts from outside, by index.
    pub parts: Vec<bool>,
}

impl Laid {
    /// Whether the mount from outside of this index is one.
    pub fn is_slave(&self, index: usize) -> bool {
        self.parts.get(index).copied().unwrap_or_default()
    }

    fn look(root: &OwnedFd, parts: &[OwnedFd]) -> Result<Self> {
        // Not `self`: the mount namespace is this thread's.
        let path = "/proc/thread-self/mountinfo";
        let mountinfo = std::fs::read(path).call(|| format!("read({path:?})"))?;
        let slaves: HashSet<u64> = mountinfo::lines(&mountinfo).filter(|line| line.slave).map(|line| line.id).collect();
        let is_slave = |mount: &OwnedFd| Ok(slaves.contains(&identity(mount.as_fd()).call(|| "statx")?.mount));
        Ok(Self { root: is_slave(root)?, parts: parts.iter().map(is_slave).collect::<Result<_>>()? })
    }
}

impl Stage<'_> {
    /// Where CRIU finds the root file system.
    pub fn root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// Where CRIU finds the mount from outside of this index.
    pub fn path(&self, index: usize) -> PathBuf {
        self.directory.join(index.to_string())
    }

    /// Sets the stage, in a new mount namespace of the calling process, and makes the mount points in the root file system
    /// that are missing there. What it returns is for [`crate::criu::propagation::cover`].
    ///
    /// # Errors
    /// A mount point that is a link or lies behind one; the call that failed.
    pub fn set(&self) -> Result<Laid> {
        unshare(CloneFlags::CLONE_NEWNS).call(|| "unshare(CLONE_NEWNS)")?;
        let slave = Propagation { flag: MsFlags::MS_SLAVE, recursion: Recursion::Tree };
        mount_setattr_root(slave.recursion, &slave.mount_attr()).call(|| "mount_setattr(\"/\")")?;
        umask(Mode::from_bits_truncate(0o022));
        let root = self.clone_root()?;
        // What is cloned is in place before the directory for it is covered.
        let purpose = |outside: &Outside| format!("what is to be mounted on {:?}", outside.mount_point);
        let parts = self.saved.outside.iter().map(|outside| self.clone_part(outside).during(|| purpose(outside)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        mount(Some("tmpfs"), self.directory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=711"))
            .call(|| format!("mount(\"tmpfs\", {:?})", self.directory))?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let stage = open(self.directory, flags, Mode::empty()).call(|| format!("open({:?})", self.directory))?;
        attach(&stage, ROOT, &root)?;
        for (index, part) in parts.iter().enumerate() {
            if let Some(part) = part {
                attach(&stage, &index.to_string(), part)?;
            }
        }
        // Only now, out of what is attached: before Linux 6.15 other mounts cannot be copied.
        let mut all = Vec::with_capacity(parts.len());
        for (index, (part, outside)) in parts.iter().zip(&self.saved.outside).enumerate() {
            all.push(match part {
                Some(part) => part.try_clone().call(|| "dup")?,
                None => {
                    let part = self.clone_below(outside, &parts).during(|| purpose(outside))?;
                    attach(&stage, &index.to_string(), &part)?;
                    part
                }
            });
        }
        Laid::look(&root, &all)
    }

    fn clone_root(&self) -> Result<OwnedFd> {
        let path = &self.plan.rootfs;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
        for place in &self.saved.places {
            make_place(&root, &place.path, if place.directory { Leaf::Directory } else { Leaf::File })
                .during(|| format!("mount point {:?}", place.path))?;
        }
        open_tree_clone(root.as_fd(), Recursion::Tree).call(|| format!("open_tree({path:?})"))
    }

    /// None: a part of another.
    fn clone_part(&self, outside: &Outside) -> Result<Option<OwnedFd>> {
        match &outside.source {
            Source::Bind(destination) => {
                let (tree, plan) = self.clone_bind(destination)?;
                bind::set_attributes(plan, tree.as_fd())?;
                Ok(tree)
            }
            Source::Below { .. } => return Ok(None),
            Source::Cgroup(hierarchy) => {
                let found = self.cgroup.iter().find(|directory| directory.hierarchy == *hierarchy);
                let directory =
                    found.ok_or_else(|| Error::Refused(format!("this host has no hierarchy {hierarchy:?}")))?;
                bind::clone_slave(&directory.path, Recursion::Top)
            }
            Source::Null => mask::open_null(),
            Source::Device(path) => clone_device(path),
        }
        .map(Some)
    }

    /// What is mounted below the source of a bind mount, out of that one, whose recursive attributes it has.
    fn clone_below(&self, outside: &Outside, parts: &[Option<OwnedFd>]) -> Result<OwnedFd> {
        let Source::Below { destination, path } = &outside.source else {
            return Err(Error::Refused("nothing is laid out for it".into()));
        };
        let of_bind = self.saved.outside.iter().zip(parts).find_map(|(above, part)| match &above.source {
            Source::Bind(found) if found == destination => part.as_ref(),
            _ => None,
        });
        let tree =
            of_bind.ok_or_else(|| Error::Refused(format!("the checkpoint has no bind mount on {destination:?}")))?;
        let below = tree::open(tree, path, Leaf::File, Links::Refuse).call(|| format!("openat2({path:?})"))?;
        open_tree_clone(below.as_fd(), Recursion::Top).call(|| format!("open_tree({path:?})"))
    }

    fn clone_bind(&self, destination: &Path) -> Result<(OwnedFd, &MountPlan)> {
        let mut plans = self.plan.mounts.iter().enumerate();
        let found = plans.find(|(_, plan)| plan.destination == destination && matches!(plan.kind, Kind::Bind { .. }));
        let (index, plan) = found.ok_or_else(|| Error::Refused("not in the configuration".into()))?;
        let tree = match (&plan.idmap, self.sources.get(index)) {
            (Some(_), Some(Some(mapped))) => Some(mapped.try_clone().call(|| "dup")?),
            (Some(_), _) => return Err(Error::Refused("its ids are not mapped".into())),
            (None, _) => bind::clone_source(plan, HostMounts::callers())?,
        };
        let tree = tree.ok_or_else(|| Error::Refused("not a bind mount".into()))?;
        Ok((tree, plan))
    }
}

/// The host's node of a device.
fn clone_device(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    let kind = file_type(&fstat(&node).call(|| "fstat")?);
    if kind != SFlag::S_IFCHR && kind != SFlag::S_IFBLK {
        return Err(Error::Refused("not a device".into()));
    }
    clone_private(node.as_fd()).call(|| format!("open_tree({path:?})"))
}

/// A mount point without a link on the way, made if it is missing: it was none when the container was saved, and whoever has
/// put one there since may mean another place.
fn make_place(root: &OwnedFd, path: &Path, leaf: Leaf) -> Result<()> {
    let found = match tree::open(root, path, Leaf::File, Links::Refuse) {
        Err(Errno::ENOENT) => tree::make(root, path, leaf, Links::Refuse),
        found => found,
    };
    let found = found.call(|| format!("openat2({path:?})"))?;
    let is_directory = file_type(&fstat(&found).call(|| "fstat")?) == SFlag::S_IFDIR;
    if is_directory == (leaf == Leaf::Directory) {
        Ok(())
    } else if is_directory {
        Err(Error::Refused("is a directory now".into()))
    } else {
        Err(Error::Refused("is not a directory any more".into()))
    }
}

/// Attaches the detached tree to the new entry `name` of the stage, which is nobody else's.
fn attach(stage: &OwnedFd, name: &str, tree: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = if file_type(&fstat(tree).call(|| "fstat")?) == SFlag::S_IFDIR {
        mkdirat(stage, name, Mode::from_bits_truncate(0o700)).call(|| format!("mkdirat({name:?})"))?;
        openat(stage, name, flags | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
    } else {
        let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        openat(stage, name, flags | create, Mode::from_bits_truncate(0o600))
    };
    let target = target.call(|| format!("openat({name:?})"))?;
    move_mount(tree.as_fd(), target.as_fd()).call(|| format!("move_mount({name:?})"))
}
