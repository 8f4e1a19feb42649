//! The container's cgroup as it sees it: one cgroup2 mount, or a tmpfs with one mount per v1 hierarchy.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::symlinkat;

use super::mount::{CgroupNamespace, MountEnv};
use super::tree::Leaf;
use super::{Root, bind, fs};
use crate::cgroup::Directory;
use crate::error::{CallContext, Context};
use crate::plan::mounts::{CgroupVersion, MountPlan};
use crate::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, Recursion, mount_setattr,
    move_mount, move_mount_at,
};
use crate::{Error, Result};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// What runc gives every v1 mount, whatever the options say.
const V1_ATTRS: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

pub(super) fn mount(
    root: &Root,
    plan: &MountPlan,
    version: CgroupVersion,
    data: &[OsString],
    env: &MountEnv<'_>,
) -> Result<()> {
    let v2 = version == CgroupVersion::V2 || host_is_v2()?;
    if v2 { mount_v2(root, plan, data, env) } else { mount_v1(root, plan, env) }
}

fn host_is_v2() -> Result<bool> {
    let host = statfs(CGROUP_ROOT).call(|| format!("statfs({CGROUP_ROOT:?})"))?;
    Ok(host.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn mount_v2(root: &Root, plan: &MountPlan, data: &[OsString], env: &MountEnv<'_>) -> Result<()> {
    let own = env.cgroup.iter().find(|directory| directory.hierarchy.is_empty());
    if env.cgroup_namespace != CgroupNamespace::Host || own.is_none() {
        let target = root.target(plan, Leaf::Directory)?;
        let mut cgroup2 = fs::plain("cgroup2", "cgroup", &[]);
        cgroup2.data = data.to_vec();
        match (fs::attach(root, plan, &cgroup2, fs::set_of(plan), None, &target), own) {
            // A user namespace that does not own the cgroup namespace may not mount, but may bind.
            (Err(error), _) if matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY)) => {}
            (done, _) => return done,
        }
    }
    let Some(own) = own else {
        // No cgroup of its own, and of the host's some may be its user's: never to be written (CVE-2023-25809).
        let mut read_only = plan.clone();
        read_only.attrs.set |= MOUNT_ATTR_RDONLY;
        read_only.attrs.clear &= !MOUNT_ATTR_RDONLY;
        read_only.recursive_attrs.clear &= !MOUNT_ATTR_RDONLY;
        return bind::attach(root, &read_only, bind::clone_slave(Path::new(CGROUP_ROOT), Recursion::Top)?);
    };
    // A fresh mount would show the cgroups of the whole host.
    bind::attach(root, plan, bind::clone_slave(&own.path, Recursion::Top)?)
}

fn mount_v1(root: &Root, plan: &MountPlan, env: &MountEnv<'_>) -> Result<()> {
    let target = root.target(plan, Leaf::Directory)?;
    let read_only = fs::set_of(plan) & MOUNT_ATTR_RDONLY;
    let tmpfs = fs::make(&fs::plain("tmpfs", "tmpfs", &["mode=755"]), V1_ATTRS, None)?;
    move_mount(tmpfs.as_fd(), target.fd.as_fd()).call(|| format!("move_mount({:?})", plan.destination))?;
    bind::set_propagation(plan, tmpfs.as_fd())?;
    // cgroup2 has no place among the v1 hierarchies, as in runc.
    for directory in env.cgroup.iter().filter(|directory| !directory.hierarchy.is_empty()) {
        mount_hierarchy(&tmpfs, directory, V1_ATTRS | read_only, env)
            .during(|| format!("hierarchy {:?}", directory.hierarchy))?;
    }
    // All at once, when everything is made. A propagation has come before: it is the tmpfs' own.
    let attr = MountAttr { attr_set: V1_ATTRS | read_only, ..MountAttr::default() };
    mount_setattr(tmpfs.as_fd(), Recursion::Tree, &attr).call(|| "mount_setattr(AT_RECURSIVE)")
}

/// One hierarchy below the tmpfs, which is ours alone so far: nobody else can have put links into it.
fn mount_hierarchy(tmpfs: &OwnedFd, directory: &Directory, attrs: u64, env: &MountEnv<'_>) -> Result<()> {
    let hierarchy = directory.hierarchy.as_str();
    let name = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
    mkdirat(tmpfs, name, Mode::from_bits_truncate(0o755)).call(|| format!("mkdirat({name:?})"))?;
    match env.cgroup_namespace {
        CgroupNamespace::Joined => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd = openat(tmpfs, name, flags, Mode::empty()).call(|| format!("openat({name:?})"))?;
            let cgroup = fs::plain("cgroup", "cgroup", &[hierarchy]);
            fs::mount_here(&cgroup, attrs, None, fd.as_fd()).call(|| "mount(\"cgroup\")")?;
        }
        // In a namespace of its own mount(2) would give the same mount of the same directory, but for each hierarchy the kernel walks
        // all cgroups of the host first.
        CgroupNamespace::Own | CgroupNamespace::Host => {
            let tree = bind::clone_slave(&directory.path, Recursion::Top)?;
            let at = CString::new(name).map_err(|_| Error::call("move_mount", Errno::EINVAL))?;
            move_mount_at(tree.as_fd(), tmpfs.as_fd(), &at).call(|| "move_mount")?;
        }
    }
    if name.contains(',') {
        // Programs look for each controller by its own name.
        for controller in name.split(',') {
            match symlinkat(Path::new(name), tmpfs, Path::new(controller)) {
                Err(Errno::EEXIST) => {}
                done => done.call(|| format!("symlinkat({controller:?})"))?,
            }
        }
    }
    Ok(())
}
