//! Leaving the host's file system for the container's.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::Root;
use super::mountinfo::{self, Line, unescape};
use crate::Result;
use crate::error::{CallContext, Context};
use crate::plan::mounts::Propagation;
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, Recursion, mount_setattr, mount_setattr_root};
use crate::sys::path::open;

/// How the root becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enter {
    /// pivot_root(2), and the host's tree is gone.
    Pivot,
    /// `--no-pivot`: moved over `/`. The host's tree is still there, below.
    Move,
    /// chroot(2) alone: without a mount namespace of its own there is nothing to be moved.
    Chroot,
}

impl Root {
    /// Makes the root `/` and the working directory, and then those mounts read-only that had to wait until now.
    ///
    /// # Errors
    /// The call that failed.
    pub fn enter(self, how: Enter) -> Result<()> {
        match how {
            Enter::Pivot => self.pivot(),
            Enter::Move => self.move_over(),
            Enter::Chroot => self.chroot(),
        }?;
        self.make_read_only()
    }

    /// Makes those mounts read-only that had to wait until all others are in place.
    ///
    /// # Errors
    /// The call that failed.
    pub(super) fn make_read_only(self) -> Result<()> {
        let read_only = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        for (path, mount) in self.read_only_later.into_inner() {
            // By the fd it was made with, whatever the path leads to now.
            mount_setattr(mount.as_fd(), Recursion::Top, &read_only)
                .call(|| format!("mount_setattr({path:?})"))
                .during(|| format!("make {path:?} read-only"))?;
        }
        Ok(())
    }

    fn pivot(&self) -> Result<()> {
        let old = if self.host_may_see {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            Some(open("/", flags, Mode::empty()).call(|| "open(\"/\")")?)
        } else {
            None
        };
        fchdir(&self.fd).call(|| "fchdir(rootfs)")?;
        // The old root lands on the new one, in the same place: no directory is needed for it.
        pivot_root(".", ".").call(|| "pivot_root(\".\", \".\")")?;
        if let Some(old) = old {
            // Its end must not reach the host.
            let slave = MountAttr { propagation: MsFlags::MS_SLAVE.bits(), ..MountAttr::default() };
            mount_setattr(old.as_fd(), Recursion::Tree, &slave).call(|| "mount_setattr(old root)")?;
        }
        umount2(".", MntFlags::MNT_DETACH).call(|| "umount2(old root, MNT_DETACH)")?;
        chdir("/").call(|| "chdir(\"/\")")
    }

    /// runc #1962: below the moved root the host's procfs and sysfs stay in the mount namespace. As long as one is there in
    /// full, the kernel lets a nested user namespace mount another one, without the masks.
    fn move_over(&self) -> Result<()> {
        let slave = Propagation { flag: MsFlags::MS_SLAVE, recursion: Recursion::Tree };
        for path in full_proc_and_sysfs(self.identity.mount)? {
            // Its end must not reach the host, which it would if the configuration asked for shared mounts.
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match open(&path, flags, Mode::empty()) {
                // It went together with one above it.
                Err(Errno::ENOENT) => continue,
                found => {
                    let found = found.call(|| format!("open({path:?})"))?;
                    match mount_setattr(found.as_fd(), slave.recursion, &slave.mount_attr()) {
                        // Not the root of a mount any more.
                        Err(Errno::EINVAL) => continue,
                        done => done.call(|| format!("mount_setattr({path:?})"))?,
                    }
                }
            }
            match umount2(&path, MntFlags::MNT_DETACH) {
                // Locked by an outer user namespace: covered, which counts for the kernel as well.
                Err(Errno::EINVAL | Errno::EPERM) => {
                    mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                        .call(|| format!("mount(\"tmpfs\", {path:?})"))?;
                }
                done => done.call(|| format!("umount2({path:?})"))?,
            }
        }
        fchdir(&self.fd).call(|| "fchdir(rootfs)")?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).call(|| "mount(\".\", \"/\", MS_MOVE)")?;
        self.chroot()
    }

    fn chroot(&self) -> Result<()> {
        fchdir(&self.fd).call(|| "fchdir(rootfs)")?;
        chroot(".").call(|| "chroot(\".\")")?;
        chdir("/").call(|| "chdir(\"/\")")
    }
}

/// Gives the new `/` the propagation of `linux.rootfsPropagation`: shared mounts in a container that asks for them.
/// Private or a slave is what it is anyway, see [`Root::attach`], and a mount that asked to be shared stays shared then.
///
/// # Errors
/// The call that failed.
pub fn set_root_propagation(propagation: Propagation) -> Result<()> {
    if propagation.flag == MsFlags::MS_PRIVATE || propagation.flag == MsFlags::MS_SLAVE {
        return Ok(());
    }
    mount_setattr_root(propagation.recursion, &propagation.mount_attr())
        .call(|| "mount_setattr(\"/\")")
        .during(|| "linux.rootfsPropagation")
}

/// Where whole procfs and sysfs mounts are that do not lie in the tree of the mount `root`.
fn full_proc_and_sysfs(root: u64) -> Result<Vec<PathBuf>> {
    // Not `self`: the mount namespace is this thread's.
    let path = "/proc/thread-self/mountinfo";
    let mountinfo = std::fs::read(path).call(|| format!("read({path:?})"))?;
    Ok(full_proc_and_sysfs_in(&mountinfo, root))
}

pub(super) fn full_proc_and_sysfs_in(mountinfo: &[u8], root: u64) -> Vec<PathBuf> {
    let mounts: Vec<_> = mountinfo::lines(mountinfo).collect();
    // The order of the lines is that of the tree, or nearly: repeated until nothing new is inside.
    let mut inside = HashSet::from([root]);
    loop {
        let before = inside.len();
        inside
            .extend(mounts.iter().filter(|line| inside.contains(&line.parent)).map(|line| line.id).collect::<Vec<_>>());
        if inside.len() == before {
            break;
        }
    }
    let wanted =
        |line: &&Line<'_>| line.root == b"/" && matches!(line.fstype, b"proc" | b"sysfs") && !inside.contains(&line.id);
    // The last mounted first: of two on one place that is the one on top.
    mounts.iter().rev().filter(wanted).map(|line| unescape(line.mount_point)).collect()
}
