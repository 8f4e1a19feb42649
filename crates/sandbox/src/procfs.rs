//! A verified handle on the host's procfs.
//!
//! A write to a path under `/proc` can be redirected by whoever mounts something there (CVE-2019-16884, CVE-2019-19921,
//! CVE-2025-52881). So: one handle, opened by the parent before any namespace is entered, whose root must be procfs, and
//! under it no links and no other mounts.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::CallContext;
use crate::sys::mount::{fsconfig_create, fsmount, fsopen};
use crate::sys::path::open;
use crate::{Error, Result};

/// The inode number of the root of every procfs, `PROC_ROOT_INO` of <linux/proc_ns.h>.
const PROC_ROOT_INO: libc::ino_t = 1;

/// The root of the host's procfs, `O_PATH`.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Procfs {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// It is no procfs.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open("/proc", flags, Mode::empty()).call(|| "open(\"/proc\")")?;
        if fstatfs(&root).call(|| "fstatfs(\"/proc\")")?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Error::Refused("/proc is not a procfs".into()));
        }
        // Nor is a directory of another procfs, bound there.
        if fstat(&root).call(|| "fstat(\"/proc\")")?.st_ino != PROC_ROOT_INO {
            return Err(Error::Refused("/proc is not the root of a procfs".into()));
        }
        Ok(Self(root))
    }

    /// Mounts a procfs of this process' own pid namespace that nobody else sees, for what a stage writes when it is in the
    /// container's namespaces: unlike a handle on the host's, it gives nothing away. Where the host's /proc is covered in
    /// part, a user namespace may not mount another: then the host's is opened, as long as it still is on `/proc`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn private() -> Result<Self> {
        let mounted = fsopen(c"proc").and_then(|fs| {
            fsconfig_create(fs.as_fd())?;
            fsmount(fs.as_fd(), libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC)
        });
        match mounted {
            Ok(root) => Ok(Self(root)),
            Err(Errno::EPERM) => Self::open(),
            Err(errno) => Err(Error::call("fsmount(\"proc\")", errno)),
        }
    }

    /// The name of the caller's own directory: its pid as this procfs counts them.
    ///
    /// # Errors
    /// The caller is not in the pid namespace of this procfs.
    pub fn own_directory(&self) -> Result<String> {
        let name = readlinkat(&self.0, "self").call(|| "readlinkat(\"/proc/self\")")?;
        let name = name.into_string().ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        name.ok_or_else(|| Error::Refused("/proc/self does not name a process".into()))
    }

    /// Writes `value` to the file `path` below the root, in one write.
    ///
    /// # Errors
    /// `EXDEV` when something is mounted over it, `ELOOP` when a link is in the way, and what the write says.
    pub fn write(&self, path: &str, value: &[u8]) -> Result<()> {
        let how = OpenHow::new().flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_XDEV
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let file = openat2(&self.0, path, how).call(|| format!("openat2(\"/proc/{path}\")"))?;
        File::from(file)
            .write_all(value)
            .call(|| format!("write(\"/proc/{path}\", {:?})", String::from_utf8_lossy(value)))
    }
}

/// The path under `/proc` of a kernel parameter. Dots separate, unless the first separator is a slash: then a dot is part
/// of a name (`net/ipv4/conf/eth0.100/forwarding`), as sysctl(8) has it.
pub fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => format!("sys/{key}"),
        // In dotted form a slash stands for a dot.
        _ => format!(
            "sys/{}",
            key.chars()
                .map(|letter| match letter {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect::<String>()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_in_both_spellings() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/forwarding", "sys/net/ipv4/conf/eth0.100/forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "sys/net/ipv4/conf/eth0.100/forwarding"),
            ("kernel.msgmax", "sys/kernel/msgmax"),
        ] {
            assert_eq!(sysctl_path(key), path);
        }
    }

    #[test]
    fn neither_links_nor_climbing_are_followed() {
        let procfs = Procfs::open().unwrap();
        for path in ["self/comm", "../etc/passwd", "1/root/etc/passwd", "1/fd/0"] {
            assert!(procfs.write(path, b"x").is_err(), "{path}");
        }
        let own = nix::unistd::gettid();
        procfs.write(&format!("{own}/comm"), b"procfs-test").unwrap();
    }
}
