//! What closes parts of the root after it was entered: read-only paths, masked paths. `/` is the container's here.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat, major, minor};

use super::propagation::{clone_private, make_private};
use super::{file_type, fs};
use crate::error::{CallContext, Context};
use crate::sys::mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, Recursion, mount_setattr,
    mount_setattr_root, move_mount, open_tree_clone, open_tree_clone_host_nofollow,
};
use crate::{Error, Result};

const READ_ONLY: MountAttr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };

/// A detached copy of the host's /dev/null, to be taken before the root is entered: later it is out of reach, and the
/// container's own cannot be trusted (CVE-2025-31133). It is private: what is mounted on a mask is not on the host's device.
///
/// # Errors
/// A /dev/null that is not the character device 1:3.
pub fn open_null() -> Result<OwnedFd> {
    let null = open_tree_clone_host_nofollow(c"/dev/null", Recursion::Top).call(|| "open_tree(\"/dev/null\")")?;
    let stat = fstat(&null).call(|| "fstat(\"/dev/null\")")?;
    if file_type(&stat) != SFlag::S_IFCHR || (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3) {
        return Err(Error::Refused("\"/dev/null\" of the host is not the device 1:3".into()));
    }
    make_private(&null).call(|| "mount_setattr(\"/dev/null\")")?;
    Ok(null)
}

/// Makes the root mount read-only, not what is mounted below it: `root.readonly`.
///
/// # Errors
/// EINVAL: the root is not a mount, as after chroot(2) alone.
pub fn read_only_root() -> Result<()> {
    mount_setattr_root(Recursion::Top, &READ_ONLY).call(|| "mount_setattr(\"/\")").during(|| "make the root read-only")
}

/// Makes each path read-only by a mount of it on itself; what is missing is skipped.
///
/// # Errors
/// The path, and the call that failed.
pub fn read_only_paths(paths: &[PathBuf]) -> Result<()> {
    each(paths, |target| {
        // What is mounted below comes along, and keeps its own flags.
        let tree = open_tree_clone(target, Recursion::Tree).call(|| "open_tree")?;
        mount_setattr(tree.as_fd(), Recursion::Top, &READ_ONLY).call(|| "mount_setattr")?;
        move_mount(tree.as_fd(), target).call(|| "move_mount")
    })
    .during(|| "linux.readonlyPaths")
}

/// Hides each path: a file behind `null`, which [`open_null`] gave, a directory behind one empty read-only tmpfs that
/// all of them share. What is missing is skipped.
///
/// # Errors
/// The path, and the call that failed.
pub fn mask_paths(paths: &[PathBuf], null: OwnedFd) -> Result<()> {
    let mut file = Cover { mount: null, attached: false };
    let mut directory = None;
    each(paths, |target| {
        if file_type(&fstat(target).call(|| "fstat")?) != SFlag::S_IFDIR {
            return file.put_on(target);
        }
        let cover = match &mut directory {
            Some(cover) => cover,
            none => none.insert(Cover { mount: empty_directory()?, attached: false }),
        };
        cover.put_on(target)
    })
    .during(|| "linux.maskedPaths")
}

/// A mount that is put on many places.
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn put_on(&mut self, target: BorrowedFd<'_>) -> Result<()> {
        if self.attached {
            // Only now can it be copied: before Linux 6.15 a detached mount cannot.
            let copy = clone_private(self.mount.as_fd()).call(|| "open_tree")?;
            return move_mount(copy.as_fd(), target).call(|| "move_mount");
        }
        move_mount(self.mount.as_fd(), target).call(|| "move_mount")?;
        self.attached = true;
        Ok(())
    }
}

/// A file system with room for its root directory and nothing else.
fn empty_directory() -> Result<OwnedFd> {
    let attrs = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    fs::make(&fs::plain("tmpfs", "tmpfs", &["nr_blocks=1", "nr_inodes=1", "mode=755"]), attrs, None)
}

/// Calls `act` with each path that is there, opened in the container's `/`, once.
fn each(paths: &[PathBuf], mut act: impl FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path.as_path()) {
            continue;
        }
        // A link to an open file of this process (`/proc/self/fd/7`) is refused.
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(AT_FDCWD, &Path::new("/").join(path), how) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            found => found.call(|| "openat2").and_then(|target| act(target.as_fd())).during(|| format!("{path:?}"))?,
        }
    }
    Ok(())
}
