//! Bind mounts: a detached copy of the source, its attributes changed, then attached.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::PROC_SUPER_MAGIC;

use super::mount::{DEV, describe, is_of};
use super::tree::Leaf;
use super::{HostMounts, MountNamespace, Root, file_type, propagation};
use crate::error::{CallContext, Context};
use crate::plan::mounts::{Kind, MountPlan, Symlinks};
use crate::sys::mount::{Recursion, mount_setattr, move_mount, open_tree_clone_host, open_tree_clone_host_nofollow};
use crate::{Error, Result};

/// The inode of the root of every procfs, `PROC_ROOT_INO`.
const PROC_ROOT_INODE: u64 = 1;

/// The source of a bind mount as a detached tree, with the propagation that the host's mounts have for the container; None for
/// other mounts. For a container with a user namespace the parent process calls it: inside, mounts inherited from the host are
/// locked together and some sources out of reach.
///
/// # Errors
/// ENOENT and what else open_tree(2) says of the source.
pub(super) fn clone_source(plan: &MountPlan, host: HostMounts) -> Result<Option<OwnedFd>> {
    let Kind::Bind { source, recursion, symlinks } = &plan.kind else { return Ok(None) };
    let clone = || -> Result<OwnedFd> {
        let tree = clone_with(source, *recursion, *symlinks)?;
        host.apply(tree.as_fd())?;
        Ok(tree)
    };
    clone().during(|| describe(plan)).map(Some)
}

/// Copies the mount at the host path `source`, for what the runtime has to bind: as a slave, which nobody asked to share.
pub(super) fn clone_slave(source: &Path, recursion: Recursion) -> Result<OwnedFd> {
    let tree = clone_with(source, recursion, Symlinks::default())?;
    HostMounts::callers().apply(tree.as_fd())?;
    Ok(tree)
}

fn clone_with(source: &Path, recursion: Recursion, symlinks: Symlinks) -> Result<OwnedFd> {
    let call = || format!("open_tree({source:?})");
    let path = CString::new(source.as_os_str().as_bytes()).map_err(|_| Error::call(call(), Errno::EINVAL))?;
    let nofollow = symlinks.source_nofollow || symlinks.copy;
    let open_tree = if nofollow { open_tree_clone_host_nofollow } else { open_tree_clone_host };
    open_tree(&path, recursion).call(call)
}

pub(super) fn mount(
    root: &Root,
    plan: &MountPlan,
    path: &Path,
    recursion: Recursion,
    symlinks: Symlinks,
    source: Option<OwnedFd>,
) -> Result<()> {
    let tree = match source {
        Some(tree) => tree,
        // Not dropped in silence: files would belong to the wrong ids.
        None if plan.idmap.is_some() => return Err(Error::Refused("its ids are not mapped".into())),
        None => {
            let tree = clone_with(path, recursion, symlinks)?;
            // In a namespace of the container it is as the host's mounts were made there.
            if root.namespace == MountNamespace::Inherited {
                HostMounts::callers().apply(tree.as_fd())?;
            }
            tree
        }
    };
    if plan.destination == Path::new("/proc") {
        check_procfs(path, &tree)?;
    }
    if symlinks.copy && file_type(&fstat(&tree).call(|| "fstat")?) == SFlag::S_IFLNK {
        return root.copy_symlink(&plan.destination, &tree);
    }
    if plan.destination == Path::new(DEV) {
        root.dev_is_bind.set(true);
    }
    attach(root, plan, tree)
}

/// Gives the detached tree the attributes that the plan names, and attaches it.
pub(super) fn attach(root: &Root, plan: &MountPlan, tree: OwnedFd) -> Result<()> {
    let stat = fstat(&tree).call(|| "fstat")?;
    let leaf = if file_type(&stat) == SFlag::S_IFDIR { Leaf::Directory } else { Leaf::File };
    set_attributes(plan, tree.as_fd())?;
    let target = root.target(plan, leaf)?;
    move_mount(tree.as_fd(), target.fd.as_fd()).map_err(|errno| {
        let call = format!("move_mount({:?})", plan.destination);
        match (errno, fstat(&target.fd)) {
            // The kernel says EINVAL to a directory on a file and to the reverse; mount(2) said ENOTDIR.
            (Errno::EINVAL, Ok(there)) if (file_type(&there) == SFlag::S_IFDIR) != (leaf == Leaf::Directory) => {
                Error::call(call, Errno::ENOTDIR)
            }
            _ => Error::call(call, errno),
        }
    })
}

/// Changes the attributes of what is mounted on the destination.
pub(super) fn remount(root: &Root, plan: &MountPlan) -> Result<()> {
    let target = root.target(plan, Leaf::Directory)?;
    match set_attributes(plan, target.fd.as_fd()) {
        Err(error) if error.errno() == Some(Errno::EINVAL) => Err(error).during(|| "nothing is mounted there"),
        done => done,
    }
}

/// Changes what the plan names and keeps the rest: a flag of the source that an outer user namespace has locked stays.
pub(super) fn set_attributes(plan: &MountPlan, tree: BorrowedFd<'_>) -> Result<()> {
    // `rbind,ro` is for the topmost mount alone, `rbind,rro` for all.
    if !plan.attrs.is_empty() {
        mount_setattr(tree, Recursion::Top, &plan.attrs.mount_attr()).call(|| "mount_setattr")?;
    }
    if !plan.recursive_attrs.is_empty() {
        mount_setattr(tree, Recursion::Tree, &plan.recursive_attrs.mount_attr())
            .call(|| "mount_setattr(AT_RECURSIVE)")?;
    }
    set_propagation(plan, tree)
}

pub(super) fn set_propagation(plan: &MountPlan, tree: BorrowedFd<'_>) -> Result<()> {
    plan.propagation.iter().try_for_each(|change| propagation::set(tree, *change))
}

/// CVE-2019-16884: what is bound on /proc has to be a whole procfs, or labels are written into a fake.
fn check_procfs(path: &Path, tree: &OwnedFd) -> Result<()> {
    let root_inode = fstat(tree).call(|| "fstat")?.st_ino == PROC_ROOT_INODE;
    if root_inode && is_of(tree, PROC_SUPER_MAGIC)? {
        return Ok(());
    }
    Err(Error::Refused(format!("{path:?} cannot be mounted on /proc because it is not a procfs")))
}
