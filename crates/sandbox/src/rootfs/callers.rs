//! The root of a container without a mount namespace: what it mounts is mounted in the namespace of its caller.
//!
//! So that nothing stays there, all of it lies below one mount, the root bound on itself, which `delete` detaches. It is
//! private: what is mounted on it shows up in no other namespace.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, stat};
use serde::{Deserialize, Serialize};

use crate::error::{CallContext, Context};
use crate::sys::mount::{MountAttr, Recursion, mount_setattr, move_mount, open_tree_clone_host};
use crate::sys::path::identity;
use crate::sys::path::open;
use crate::{Error, Result};

/// How often something on top of the root is detached: the container could have put more there.
const STACKED_MOST: usize = 64;

/// A rootfs as it was before anything was mounted for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallersRoot {
    /// The inode of the mount namespace.
    namespace: u64,
    /// The id of the mount that the rootfs is in.
    mount: u64,
}

impl CallersRoot {
    /// Looks at `rootfs`. Nothing is mounted yet: what this returns is written down first.
    ///
    /// # Errors
    /// The call that failed.
    pub fn of(rootfs: &Path) -> Result<Self> {
        Ok(Self { namespace: own_namespace()?, mount: mount_of(rootfs)? })
    }

    /// Binds `rootfs` on itself, private, in the namespace of this process.
    ///
    /// # Errors
    /// The call that failed.
    pub fn attach(self, rootfs: &Path) -> Result<()> {
        let attach = || {
            let path =
                CString::new(rootfs.as_os_str().as_bytes()).map_err(|_| Error::call("open_tree", Errno::EINVAL))?;
            let tree = open_tree_clone_host(&path, Recursion::Tree).call(|| "open_tree")?;
            // While it is detached: what is attached to a shared mount goes to all of its peers.
            let private = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
            mount_setattr(tree.as_fd(), Recursion::Tree, &private).call(|| "mount_setattr")?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let target = open(rootfs, flags, Mode::empty()).call(|| "open")?;
            move_mount(tree.as_fd(), target.as_fd()).call(|| "move_mount")
        };
        attach().during(|| format!("bind the rootfs {rootfs:?} on itself"))
    }

    /// Detaches everything that [`CallersRoot::attach`] and the container have mounted there.
    ///
    /// # Errors
    /// The call that failed; a caller in another mount namespace, where there is nothing to be detached.
    pub fn detach(self, rootfs: &Path) -> Result<()> {
        if own_namespace()? != self.namespace {
            let why = "the container has no mount namespace: it is deleted from the one that it was created in";
            return Err(Error::Refused(why.into()));
        }
        for _ in 0..STACKED_MOST {
            match mount_of(rootfs) {
                // The caller has taken its own rootfs away, and ours with it.
                Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR)) => return Ok(()),
                mount => {
                    if mount? == self.mount {
                        return Ok(());
                    }
                }
            }
            match umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                // Not a mount at all: as above.
                Err(Errno::EINVAL) => return Ok(()),
                done => done.call(|| format!("umount2({rootfs:?}, MNT_DETACH)"))?,
            }
        }
        Err(Error::Refused(format!("more than {STACKED_MOST} mounts on {rootfs:?}")))
    }
}

fn mount_of(path: &Path) -> Result<u64> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    Ok(identity(fd.as_fd()).call(|| "statx")?.mount)
}

fn own_namespace() -> Result<u64> {
    // Not `self`: the namespace is this thread's.
    let path = "/proc/thread-self/ns/mnt";
    Ok(stat(path).call(|| format!("stat({path:?})"))?.st_ino)
}
