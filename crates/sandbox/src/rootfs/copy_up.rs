//! `tmpcopyup`: what a directory of the rootfs holds, copied into the tmpfs that will cover it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use super::{file_type, tree};
use crate::error::{CallContext, Context};
use crate::{Error, Result};

/// How deep a directory may be: the tree is hostile, the stack is not endless.
const DEPTH: u32 = 256;

const READ_DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Copies everything in the directory `from` into the directory `to`, with owners and modes. Nothing is followed:
/// links are copied as links. Sockets are left out, as in runc.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let from = openat(from, ".", READ_DIRECTORY, Mode::empty()).call(|| "openat(\".\")")?;
    let to = openat(to, ".", READ_DIRECTORY, Mode::empty()).call(|| "openat(\".\")")?;
    let stat = fstat(&from).call(|| "fstat")?;
    copy_directory(from, &to, DEPTH)?;
    let (owner, group) = owner(&stat);
    fchown(&to, owner, group).call(|| "fchown")
}

fn copy_directory(from: OwnedFd, to: &OwnedFd, depth: u32) -> Result<()> {
    let mut entries = Dir::from_fd(from).call(|| "readdir")?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.call(|| "readdir")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    for name in names {
        copy_entry(&entries, to, &name, depth).during(|| format!("{name:?}"))?;
    }
    Ok(())
}

fn copy_entry(from: &Dir, to: &OwnedFd, name: &OsStr, depth: u32) -> Result<()> {
    let stat = tree::stat_leaf(from, name).call(|| "fstatat")?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let (uid, gid) = owner(&stat);
    match file_type(&stat) {
        SFlag::S_IFDIR => {
            let depth = depth.checked_sub(1).ok_or_else(|| Error::Refused("directories are too deep".into()))?;
            mkdirat(to, name, Mode::S_IRWXU).call(|| "mkdirat")?;
            let from = openat(from, name, READ_DIRECTORY, Mode::empty()).call(|| "openat")?;
            let to = openat(to, name, READ_DIRECTORY, Mode::empty()).call(|| "openat")?;
            copy_directory(from, &to, depth)?;
            fchown(&to, uid, gid).call(|| "fchown")?;
            fchmod(&to, mode).call(|| "fchmod")
        }
        SFlag::S_IFREG => {
            // O_NONBLOCK: if it has become a fifo since, the open does not wait for a writer.
            let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let from = openat(from, name, read, Mode::empty()).call(|| "openat")?;
            if file_type(&fstat(&from).call(|| "fstat")?) != SFlag::S_IFREG {
                return Err(Error::call("openat", Errno::ESTALE));
            }
            let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut to = File::from(openat(to, name, write, Mode::S_IRUSR | Mode::S_IWUSR).call(|| "openat")?);
            std::io::copy(&mut File::from(from), &mut to).call(|| "write")?;
            fchown(&to, uid, gid).call(|| "fchown")?;
            fchmod(&to, mode).call(|| "fchmod")
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).call(|| "readlinkat")?;
            symlinkat(target.as_os_str(), to, name).call(|| "symlinkat")?;
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).call(|| "fchownat")
        }
        SFlag::S_IFSOCK => Ok(()),
        // The umask may take bits away: a device in a tmpfs that hides it is seldom wanted at all.
        kind => {
            mknodat(to, name, kind, mode, stat.st_rdev).call(|| "mknodat")?;
            fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).call(|| "fchownat")
        }
    }
}

fn owner(stat: &FileStat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}
