//! The program protects itself before it runs anything of a container.
//!
//! A process of a container can reach the file behind `/proc/<pid>/exe` of the runtime's own processes, or be told to
//! execute `/proc/self/exe` (CVE-2019-5736), keep it open, and write to it later: the next container would run the
//! attacker's code as root on the host. So `create`, `run` and `exec` first execute themselves again from where no write
//! can go: a read-only mount of the binary that belongs to no mount namespace any more, so nobody can make it writable
//! again. No byte is copied. Where such a mount is not allowed, a sealed copy in memory serves.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::statfs;
use nix::sys::statvfs::FsFlags;

use crate::error::CallContext;
use crate::sys::exec::execveat;
use crate::sys::mount::{MountAttr, Recursion, mount_setattr, open_tree_clone_host};
use crate::{Error, Result};

const SELF: &str = "/proc/self/exe";

/// Returns when the program runs from where nobody can write; else executes itself again from there.
///
/// # Errors
/// It cannot be protected: then no container may be touched.
pub fn ensure() -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let sealed = match read_only_mount() {
        Ok(mount) => mount,
        // A user namespace or a seccomp filter around us forbids mounts.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EINVAL) => sealed_copy()?,
        Err(errno) => return Err(Error::call(format!("open_tree({SELF:?})"), errno)),
    };
    let c_string = |string: OsString| CString::new(string.into_vec()).unwrap_or_default();
    let argv: Vec<CString> = std::env::args_os().map(c_string).collect();
    let envp: Vec<CString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    Err(Error::call("execveat(sealed self)", execveat(sealed.as_fd(), &argv, &envp)))
}

/// A read-only mount, or a memory file that was sealed against writing.
fn is_sealed() -> Result<bool> {
    // statfs(2) reports the flags of the mount through which the file was opened for execution.
    let mounted = statfs(SELF).call(|| format!("statfs({SELF:?})"))?;
    if mounted.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    const TMPFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::TMPFS_MAGIC;
    if mounted.filesystem_type() != TMPFS_MAGIC {
        return Ok(false);
    }
    let own = File::open(SELF).call(|| format!("open({SELF:?})"))?;
    let seals = fcntl(&own, FcntlArg::F_GET_SEALS).unwrap_or_default();
    Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))
}

fn read_only_mount() -> nix::Result<OwnedFd> {
    let tree = open_tree_clone_host(c"/proc/self/exe", Recursion::Top)?;
    let read_only = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), Recursion::Top, &read_only)?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = memfd_create(c"tare", flags).call(|| "memfd_create(\"tare\")")?;
    let mut to = File::from(copy);
    let mut from = File::open(SELF).call(|| format!("open({SELF:?})"))?;
    std::io::copy(&mut from, &mut to).call(|| "copy to memory")?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&to, FcntlArg::F_ADD_SEALS(seals)).call(|| format!("fcntl({}, F_ADD_SEALS)", to.as_raw_fd()))?;
    Ok(to.into())
}
