//! The program protects itself before it runs anything of a container.
//!
//! A process of a container can reach the file behind `/proc/<pid>/exe` of the runtime's own processes, or be told to
//! execute `/proc/self/exe` (CVE-2019-5736), keep it open, and write to it later: the next container would run the
//! attacker's code as root on the host. So `create`, `run` and `exec` first exchange the file that they run for the same on
//! a read-only mount that belongs to no mount namespace any more: nobody can make that writable again, and nothing of the host's
//! is left in the process. No byte is copied, nothing is executed again. Where that is not allowed, they execute a sealed
//! copy in memory. docs/sealed-self.md has the threats, and what was weighed.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::mount::MsFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statfs::statfs;

use crate::error::CallContext;
use crate::sys::exe::exchange;
use crate::sys::exec::execveat;
use crate::sys::mount::{MountAttr, Recursion, mount_setattr, open_tree_clone_host};
use crate::sys::path::open;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result};

const SELF: &str = "/proc/self/exe";

/// Returns when the program runs from where nobody can write. It is moved there while it runs; where that is not to be had it
/// executes itself again, from a copy.
///
/// # Errors
/// It cannot be protected: then no container may be touched.
pub fn ensure() -> Result<()> {
    let proof = SingleThreaded::verify()?;
    match read_only_mount(c"/proc/self/exe").and_then(|mount| exchange(proof, reopened(&mount)?.as_fd())) {
        Ok(()) => return Ok(()),
        // A user namespace or a seccomp filter around us forbids mounts, or what the exchange needs; or this is the copy.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::EINVAL | Errno::EBUSY | Errno::ENOEXEC) => (),
        Err(errno) => return Err(Error::call(format!("exchange of {SELF:?}"), errno)),
    }
    if is_sealed_copy()? {
        return Ok(());
    }
    let copy = sealed_copy()?;
    let c_string = |string: OsString| CString::new(string.into_vec()).unwrap_or_default();
    let argv: Vec<CString> = crate::sys::start::args().map(|word| c_string(word.to_owned())).collect();
    let envp: Vec<CString> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    Err(Error::call("execveat(sealed self)", execveat(copy.as_fd(), &argv, &envp)))
}

/// Whether this is a memory file that was sealed against writing.
fn is_sealed_copy() -> Result<bool> {
    const TMPFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::TMPFS_MAGIC;
    if statfs(SELF).call(|| format!("statfs({SELF:?})"))?.filesystem_type() != TMPFS_MAGIC {
        return Ok(false);
    }
    let own = File::open(SELF).call(|| format!("open({SELF:?})"))?;
    let seals = fcntl(&own, FcntlArg::F_GET_SEALS).unwrap_or_default();
    Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))
}

fn path_of(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// For reading what `file` is no more than a handle of.
fn reopened(file: &OwnedFd) -> nix::Result<OwnedFd> {
    open(path_of(file).as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

fn read_only_mount(program: &CStr) -> nix::Result<OwnedFd> {
    let tree = open_tree_clone_host(program, Recursion::Top)?;
    let propagation = MsFlags::MS_PRIVATE.bits();
    let read_only = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, propagation, ..MountAttr::default() };
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::mount::mount;
    use tare_testkit::host;

    use super::*;
    use crate::sys::mount::open_tree_clone;

    /// What a process has that has seen the program: a handle, after the descriptor of the mount is closed as execve(2)
    /// does.
    fn held(sealed: OwnedFd) -> File {
        let path = path_of(&sealed);
        let handle = File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap();
        drop(sealed);
        handle
    }

    /// What only the descriptor of the mount can do, as long as it is open.
    const WRITABLE: MountAttr =
        MountAttr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };

    #[test]
    fn the_mount_cannot_be_made_writable_again_nor_copied() {
        // Not our own program: that is busy, which would hide why it cannot be written.
        let program = std::env::temp_dir().join(format!("tare-seal-{}", std::process::id()));
        std::fs::write(&program, "program").unwrap();
        let name = CString::new(program.as_os_str().as_bytes()).unwrap();
        let control = read_only_mount(&name).unwrap();
        mount_setattr(control.as_fd(), Recursion::Top, &WRITABLE).unwrap();
        // What is attached nowhere can be copied since Linux 6.15.
        let copied = open_tree_clone(control.as_fd(), Recursion::Top).map(drop);
        assert_eq!(copied, if host::kernel() < (6, 15) { Err(Errno::EINVAL) } else { Ok(()) });
        let handle = held(read_only_mount(&name).unwrap());
        let path = path_of(&handle);
        // By root, with all that a container could be given: nothing of it is for what belongs to no namespace.
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        for result in [
            mount_setattr(handle.as_fd(), Recursion::Top, &WRITABLE),
            mount(None::<&str>, path.as_str(), None::<&str>, remount, None::<&str>),
            open_tree_clone(handle.as_fd(), Recursion::Top).map(drop),
        ] {
            assert_eq!(result, Err(Errno::EINVAL));
        }
        let written = File::options().write(true).open(&path);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }

    #[test]
    fn the_copy_cannot_be_written_shortened_extended_or_unsealed() {
        let copy = sealed_copy().unwrap();
        let length = File::open(SELF).unwrap().metadata().unwrap().len();
        let handle = held(copy);
        let mut file = File::options().read(true).write(true).open(path_of(&handle)).unwrap();
        let denied = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
        denied(file.write_all(b"#!/evil"));
        denied(file.set_len(1));
        denied(file.set_len(length + 1));
        let unsealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::empty()));
        assert_eq!(unsealed, Err(Errno::EPERM));
        assert_eq!(file.metadata().unwrap().len(), length);
    }

    #[test]
    fn a_program_of_the_host_is_no_sealed_copy() {
        assert!(!is_sealed_copy().unwrap());
    }
}
