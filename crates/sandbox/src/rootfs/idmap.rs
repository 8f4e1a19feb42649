//! Idmapped mounts: the files of a bind's source under other ids.
//!
//! Done by the parent process. MOUNT_ATTR_IDMAP takes privilege over the user namespace that owns the file system, which
//! root of the container's has not; and it is for a tree that is attached nowhere yet.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use oci_spec::runtime::LinuxNamespaceType;

use super::HostMounts;
use super::bind::clone_source;
use super::mount::describe;
use crate::error::Context;
use crate::plan::mounts::{Idmap, MountPlan};
use crate::plan::{IdMappings, Plan};
use crate::sys::mount::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr};
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, userns};

/// The sources of the bind mounts that stage 2 cannot clone itself, in the order of the mounts: all of them when the
/// container has a user namespace, else the idmapped ones. Empty if there are none; without those that this process may not
/// clone. `joined` are the files of the namespaces that the plan joins.
///
/// # Errors
/// The mount, and the call or the rule that refused it.
pub fn clone_sources(plan: &Plan, proof: SingleThreaded, joined: &[OwnedFd]) -> Result<Vec<Option<OwnedFd>>> {
    let has_user = plan.namespaces.has(LinuxNamespaceType::User);
    if !has_user && plan.mounts.iter().all(|mount| mount.idmap.is_none()) {
        return Ok(Vec::new());
    }
    let host = if plan.namespaces.has(LinuxNamespaceType::Mount) {
        HostMounts::new(plan.rootfs_propagation).in_user_namespace(has_user)
    } else {
        HostMounts::callers()
    };
    let mut mappers = Mappers { plan, proof, joined, made: Vec::new() };
    let source = |mount: &MountPlan| {
        if !has_user && mount.idmap.is_none() {
            return Ok(None);
        }
        let tree = match clone_source(mount, host) {
            // Who has no privilege over its own mounts has it in the container's namespaces: stage 2 does it there.
            Err(error) if error.errno() == Some(Errno::EPERM) && mount.idmap.is_none() => None,
            cloned => cloned?,
        };
        if let (Some(tree), Some(idmap)) = (&tree, &mount.idmap) {
            mappers.map(tree.as_fd(), idmap).during(|| describe(mount))?;
        }
        Ok(tree)
    };
    plan.mounts.iter().map(source).collect()
}

/// As [`clone_sources`], those alone whose ids are mapped: for a process that has the host's privileges otherwise.
///
/// # Errors
/// As [`clone_sources`].
pub fn clone_mapped_sources(plan: &Plan, proof: SingleThreaded, joined: &[OwnedFd]) -> Result<Vec<Option<OwnedFd>>> {
    let mut mappers = Mappers { plan, proof, joined, made: Vec::new() };
    let source = |mount: &MountPlan| {
        let Some(idmap) = &mount.idmap else { return Ok(None) };
        let tree = clone_source(mount, HostMounts::callers())?;
        if let Some(tree) = &tree {
            mappers.map(tree.as_fd(), idmap).during(|| describe(mount))?;
        }
        Ok(tree)
    };
    plan.mounts.iter().map(source).collect()
}

/// The user namespaces whose maps are those of mounts, one for equal maps.
struct Mappers<'a> {
    plan: &'a Plan,
    proof: SingleThreaded,
    joined: &'a [OwnedFd],
    made: Vec<(IdMappings, Rc<OwnedFd>)>,
}

impl Mappers<'_> {
    fn map(&mut self, tree: BorrowedFd<'_>, idmap: &Idmap) -> Result<()> {
        let own = IdMappings { uid: idmap.uid_mappings.clone(), gid: idmap.gid_mappings.clone() };
        let made;
        let mapper = if !own.uid.is_empty() {
            made = self.with(own)?;
            made.as_fd()
        } else if let Some(joined) = self.joined_user() {
            joined.as_fd()
        } else {
            // The container's own does not exist yet: another with the same maps.
            made = self.with(self.plan.id_mappings.clone())?;
            made.as_fd()
        };
        let fd = u64::try_from(mapper.as_raw_fd()).map_err(|_| Error::call("mount_setattr", Errno::EBADF))?;
        let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd: fd, ..MountAttr::default() };
        mount_setattr(tree, idmap.recursion, &attr).map_err(refusal)
    }

    /// The user namespace that the container joins.
    fn joined_user(&self) -> Option<&OwnedFd> {
        let namespaces = self.plan.namespaces.joined.iter().zip(self.joined);
        namespaces.into_iter().find(|((typ, _), _)| *typ == LinuxNamespaceType::User).map(|(_, file)| file)
    }

    fn with(&mut self, maps: IdMappings) -> Result<Rc<OwnedFd>> {
        if let Some((_, made)) = self.made.iter().find(|(known, _)| *known == maps) {
            return Ok(Rc::clone(made));
        }
        let made = Rc::new(userns::with_mappings(self.proof, &maps)?);
        self.made.push((maps, Rc::clone(&made)));
        Ok(made)
    }
}

/// What the kernel means by its errno here, fs/namespace.c, `can_idmap_mount`.
fn refusal(errno: Errno) -> Error {
    let call = "mount_setattr(MOUNT_ATTR_IDMAP)";
    match errno {
        Errno::EINVAL => Error::call(format!("{call}: the file system does not support idmapped mounts"), errno),
        Errno::EPERM => Error::call(
            format!("{call}: the source is idmapped already, or its file system or the mapping is not ours to use"),
            errno,
        ),
        _ => Error::call(call, errno),
    }
}
