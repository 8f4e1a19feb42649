//! The container's root file system: attached, filled with mounts and devices, entered, locked down.
//!
//! The rootfs is hostile, and so is whoever shares a volume with it. A path inside it is resolved by openat2(2) with
//! `RESOLVE_IN_ROOT` and from then on only its fd is used; a mount is attached fd to fd. Up to [`Root::enter`] the
//! host's file system is still `/`, so a path that is not relative to a [`Root`] is the host's.
//!
//! The steps change the working directory, which is `/` again after [`Root::enter`]. What they make has the mode that the
//! process' umask leaves of it, devices apart.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag};

use crate::error::{CallContext, Context};
use crate::plan::mounts::Propagation;
use crate::sys::mount::{MountAttr, Recursion, mount_setattr, mount_setattr_root, move_mount, open_tree_clone};
use crate::sys::path::{Identity, identity};
use crate::{Error, Result};

mod bind;
mod callers;
mod cgroup;
mod copy_up;
mod device;
mod fs;
mod idmap;
mod live;
mod mask;
mod mount;
mod mountinfo;
mod pivot;
mod propagation;
mod saved;
mod stage;
mod tree;

pub use callers::CallersRoot;
pub use device::{HowDevices, bound_devices, open_own_ptmx};
pub use idmap::{clone_mapped_sources, clone_sources};
pub use live::{Change, change};
pub use mask::{mask_paths, open_null, read_only_paths, read_only_root};
pub use mount::{CgroupNamespace, MountEnv};
pub use pivot::{Enter, set_root_propagation};
pub use propagation::HostMounts;
pub use saved::{Expected, Mounted, Outside, Place, Seen, Source, look, restrict};
pub use stage::{Laid, Stage};

/// Whose mount namespace the root is attached in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountNamespace {
    /// The container's own.
    New,
    /// The caller's: its propagation is not touched, and the root is not bound on itself.
    Inherited,
}

/// The root of the container, before it is entered.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    identity: Identity,
    namespace: MountNamespace,
    /// Whether unmounting the host's tree could reach the host.
    host_may_see: bool,
    /// Mounts that become read-only when all others are in place.
    read_only_later: RefCell<Vec<(PathBuf, OwnedFd)>>,
    /// /dev without links on the way, kept because most of what is made is made there. Forgotten when something is
    /// mounted over it.
    dev: RefCell<Option<Rc<OwnedFd>>>,
    /// Whether /dev is the container's own to fill, and not a directory of the host bound there.
    dev_is_bind: Cell<bool>,
    /// Whether /dev is a tmpfs of the container's own that began empty: nothing is in it but what is made here.
    dev_is_new: Cell<bool>,
}

impl Root {
    /// Attaches the root file system at the absolute host path `rootfs`.
    ///
    /// In a new mount namespace the host's mounts first get the propagation asked for (None: `rslave`), so that nothing
    /// mounted later reaches the host; then `rootfs` is bound on itself, which makes it the mount that
    /// pivot_root(2) wants.
    ///
    /// # Errors
    /// A rootfs that is not a directory or is a symbolic link; the call that failed; a kernel before 5.12.
    pub fn attach(rootfs: &Path, propagation: Option<Propagation>, namespace: MountNamespace) -> Result<Self> {
        let new = namespace == MountNamespace::New;
        if new {
            for change in HostMounts::new(propagation).changes() {
                mount_setattr_root(change.recursion, &change.mount_attr())
                    .map_err(|errno| match errno {
                        Errno::ENOSYS => Error::Refused("this kernel has no mount_setattr(2): needs Linux 5.12".into()),
                        errno => Error::call("mount_setattr(\"/\")", errno),
                    })
                    .during(|| "set the propagation of the host's mounts")?;
            }
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut fd = crate::sys::path::open(rootfs, flags, Mode::empty())
            .map_err(|errno| match errno {
                Errno::ENOTDIR => Error::Refused("not a directory, or a symbolic link".into()),
                errno => Error::call(format!("open({rootfs:?})"), errno),
            })
            .during(|| format!("rootfs {rootfs:?}"))?;
        // A slave gets mounts and gives none. With any other propagation the mount around the rootfs may be shared:
        // the bind below would reach the host, and pivot_root(2) would refuse.
        let host_may_see = propagation.is_some_and(|p| p.flag != MsFlags::MS_SLAVE || p.recursion != Recursion::Tree);
        if new {
            if host_may_see {
                // A slave for those who want one: the bind below will be as what it is made from.
                let slave = propagation.is_some_and(|p| p.flag == MsFlags::MS_SLAVE);
                isolate_parent(&fd, if slave { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE })
                    .during(|| format!("set the propagation of the mount around {rootfs:?}"))?;
            }
            let tree = open_tree_clone(fd.as_fd(), Recursion::Tree).call(|| format!("open_tree({rootfs:?})"))?;
            move_mount(tree.as_fd(), fd.as_fd()).call(|| format!("move_mount({rootfs:?})"))?;
            fd = tree;
        }
        let identity = identity(fd.as_fd()).call(|| format!("statx({rootfs:?})"))?;
        let (read_only_later, dev, dev_is_bind, dev_is_new) = Default::default();
        Ok(Self { fd, identity, namespace, host_may_see, read_only_later, dev, dev_is_bind, dev_is_new })
    }

    /// The root of a container that runs.
    fn of_container(fd: OwnedFd) -> Result<Self> {
        let identity = identity(fd.as_fd()).call(|| "statx(\"/\")")?;
        let (read_only_later, dev, dev_is_bind, dev_is_new) = Default::default();
        let (namespace, host_may_see) = (MountNamespace::New, false);
        Ok(Self { fd, identity, namespace, host_may_see, read_only_later, dev, dev_is_bind, dev_is_new })
    }

    /// Makes the root the working directory, for hooks that run before it is entered.
    ///
    /// # Errors
    /// The call that failed.
    pub fn change_to(&self) -> Result<()> {
        nix::unistd::fchdir(&self.fd).call(|| "fchdir(rootfs)")
    }

    /// Whether `target` is the root itself, reached by some symbolic link.
    fn is(&self, target: &OwnedFd) -> Result<bool> {
        Ok(identity(target.as_fd()).call(|| "statx")? == self.identity)
    }
}

/// Makes the mount that holds `dir` private or a slave: its root is at `dir` or somewhere above it.
fn isolate_parent(dir: &OwnedFd, propagation: MsFlags) -> Result<()> {
    let attr = MountAttr { propagation: propagation.bits(), ..MountAttr::default() };
    let mut at = dir.try_clone().call(|| "dup")?;
    loop {
        match mount_setattr(at.as_fd(), Recursion::Top, &attr) {
            // Not the root of a mount.
            Err(Errno::EINVAL) => {}
            done => return done.call(|| "mount_setattr"),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        at = nix::fcntl::openat(&at, "..", flags, Mode::empty()).call(|| "openat(\"..\")")?;
    }
}

/// The type of a file, from `st_mode`.
fn file_type(stat: &nix::sys::stat::FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests;
