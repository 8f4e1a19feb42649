//! New file systems.
//!
//! Most are mounted by mount(2) on `.`, the fd of the target being the working directory: one call, and no procfs. A mount whose fd is needed (to fill it, to make it read-only last, to change its
//! propagation) is made detached, by fsopen(2) and its kin.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::fstat;
use nix::unistd::{chdir, fchdir};

use super::mount::{DEV, MountEnv, Target};
use super::tree::Leaf;
use super::{Root, bind, copy_up};
use crate::error::{CallContext, Context};
use crate::plan::mounts::{Fs, MS_NOSYMFOLLOW, MountPlan};
use crate::sys::mount::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use crate::{Error, Result};

/// mount(2) copies one page of options, and cuts off the rest without a word.
const OPTIONS_MAX: usize = 4095;

pub(super) fn mount(root: &Root, plan: &MountPlan, fs: &Fs, env: &MountEnv<'_>) -> Result<()> {
    let target = root.target(plan, Leaf::Directory)?;
    let mut fs = fs.clone();
    if fs.fstype == "tmpfs" && !target.made && !fs.data.iter().any(|option| option.as_bytes().starts_with(b"mode=")) {
        // As the directory was. One that was just made gets the default of tmpfs, 1777.
        let mode = fstat(&target.fd).call(|| "fstat")?.st_mode & 0o7777;
        fs.data.push(format!("mode={mode:04o}").into());
    }
    let label = match fs.fstype.as_bytes() {
        // The kernel labels what is in them.
        b"proc" | b"sysfs" | b"mqueue" | b"cgroup" | b"cgroup2" => None,
        _ => env.label.filter(|label| !label.is_empty()),
    };
    attach(root, plan, &fs, set_of(plan), label, &target)
}

pub(super) fn attach(
    root: &Root,
    plan: &MountPlan,
    fs: &Fs,
    attrs: u64,
    label: Option<&str>,
    target: &Target,
) -> Result<()> {
    // What is mounted or made below it later needs it writable.
    let later = attrs & MOUNT_ATTR_RDONLY != 0 && (fs.fstype == "tmpfs" || plan.destination == Path::new(DEV));
    let remount = fs.flags.contains(MsFlags::MS_REMOUNT);
    if takes_paths(fs) {
        chdir("/").call(|| "chdir(\"/\")")?;
    }
    if remount || !later && !fs.copy_up && plan.propagation.is_empty() {
        match mount_here(fs, attrs, label, target.fd.as_fd()) {
            // A directory that this user may not enter, which fsopen(2) does not need, or a page full of options.
            Err(Errno::EACCES | Errno::E2BIG) if !remount => {}
            Err(Errno::EINVAL) if !remount => {
                // The other way tells the reason.
                make(fs, attrs, label)?;
                return Err(Error::call(format!("mount({:?})", fs.fstype), Errno::EINVAL));
            }
            done => return done.call(|| format!("mount({:?})", fs.fstype)),
        }
    }
    let mount = make(fs, if later { attrs & !MOUNT_ATTR_RDONLY } else { attrs }, label)?;
    if fs.copy_up && !target.made {
        copy_up::copy(&target.fd, &mount).during(|| format!("copy {:?} into the tmpfs", plan.destination))?;
    }
    move_mount(mount.as_fd(), target.fd.as_fd()).call(|| format!("move_mount({:?})", plan.destination))?;
    bind::set_propagation(plan, mount.as_fd())?;
    if later {
        root.read_only_later.borrow_mut().push((plan.destination.clone(), mount));
    }
    Ok(())
}

/// `mount(source, target, fstype, flags, data)`. Other than fsconfig(2) it takes option values of more than 255 bytes.
pub(super) fn mount_here(fs: &Fs, attrs: u64, label: Option<&str>, target: BorrowedFd<'_>) -> nix::Result<()> {
    let mut data = OsString::new();
    for option in &fs.data {
        if !data.is_empty() {
            data.push(",");
        }
        data.push(option);
    }
    if let Some(label) = label {
        // In quotes, for its commas.
        data.push(format!("{}context=\"{label}\"", if data.is_empty() { "" } else { "," }));
    }
    if data.len() > OPTIONS_MAX {
        return Err(Errno::E2BIG);
    }
    let data = Some(data.as_os_str()).filter(|data| !data.is_empty());
    let mount = |target: &str| {
        nix::mount::mount(fs.source.as_deref(), target, Some(fs.fstype.as_os_str()), fs.flags | ms_flags(attrs), data)
    };
    if takes_paths(fs) {
        // /proc is the host's until the root is entered: no mount of ours has been there.
        return mount(&format!("/proc/self/fd/{}", target.as_raw_fd()));
    }
    fchdir(target)?;
    mount(".")
}

/// Whether the kernel may look for files by the source or the options: devices, the layers of an overlay. For those the
/// working directory must not be one of the rootfs, where a relative path could meet a link to anywhere.
fn takes_paths(fs: &Fs) -> bool {
    !matches!(fs.fstype.as_bytes(), b"proc" | b"sysfs" | b"tmpfs" | b"devpts" | b"mqueue" | b"cgroup" | b"cgroup2")
}

/// `MOUNT_ATTR_*` as mount(2) names them.
fn ms_flags(attrs: u64) -> MsFlags {
    const TABLE: [(u64, MsFlags); 6] = [
        (MOUNT_ATTR_RDONLY, MsFlags::MS_RDONLY),
        (MOUNT_ATTR_NOSUID, MsFlags::MS_NOSUID),
        (MOUNT_ATTR_NODEV, MsFlags::MS_NODEV),
        (MOUNT_ATTR_NOEXEC, MsFlags::MS_NOEXEC),
        (MOUNT_ATTR_NODIRATIME, MsFlags::MS_NODIRATIME),
        (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ];
    let flags = TABLE.iter().filter(|(attr, _)| attrs & attr != 0).fold(MsFlags::empty(), |all, (_, flag)| all | *flag);
    match attrs & MOUNT_ATTR__ATIME {
        MOUNT_ATTR_NOATIME => flags | MsFlags::MS_NOATIME,
        MOUNT_ATTR_STRICTATIME => flags | MsFlags::MS_STRICTATIME,
        _ => flags,
    }
}

/// Makes the file system, and a detached mount of it.
pub(super) fn make(fs: &Fs, attrs: u64, label: Option<&str>) -> Result<OwnedFd> {
    let fstype = c_string(&fs.fstype)?;
    let context = fsopen(&fstype).call(|| format!("fsopen({:?})", fs.fstype))?;
    let set = |key: &OsStr, value: Option<&OsStr>| -> Result<()> {
        let name = c_string(key)?;
        match value {
            None => fsconfig_set_flag(context.as_fd(), &name),
            Some(value) => fsconfig_set_string(context.as_fd(), &name, &c_string(value)?),
        }
        .map_err(|errno| {
            let value = value.map_or_else(String::new, |value| format!(", {value:?}"));
            Error::call(format!("fsconfig({key:?}{value}){}", reason(&context)), errno)
        })
    };
    if let Some(source) = &fs.source {
        set(OsStr::new("source"), Some(source))?;
    }
    if attrs & MOUNT_ATTR_RDONLY != 0 {
        set(OsStr::new("ro"), None)?;
    }
    for (flag, name) in [
        (MsFlags::MS_SYNCHRONOUS, "sync"),
        (MsFlags::MS_DIRSYNC, "dirsync"),
        (MsFlags::MS_MANDLOCK, "mand"),
        (MsFlags::MS_LAZYTIME, "lazytime"),
    ] {
        // `iversion` is mount(2)'s alone. It changes nothing here: a file system that counts versions does so unasked since
        // Linux 6.1, and this one is new.
        if fs.flags.contains(flag) {
            set(OsStr::new(name), None)?;
        }
    }
    for option in &fs.data {
        let bytes = option.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => set(OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..])))?,
            None => set(option, None)?,
        }
    }
    if let Some(label) = label {
        set(OsStr::new("context"), Some(OsStr::new(label)))?;
    }
    fsconfig_create(context.as_fd()).map_err(|errno| {
        Error::call(format!("fsconfig({:?}, FSCONFIG_CMD_CREATE){}", fs.fstype, reason(&context)), errno)
    })?;
    fsmount(context.as_fd(), attrs).call(|| format!("fsmount({:?})", fs.fstype))
}

/// What the file system says about the call that has just failed: `: tmpfs: Bad value for 'size'`.
fn reason(context: &OwnedFd) -> String {
    let mut buffer = [0; 256];
    match nix::unistd::read(context, &mut buffer) {
        // A letter for the kind and a blank come first: `e tmpfs: Bad value for 'size'`.
        Ok(length @ 3..) => format!(": {}", String::from_utf8_lossy(&buffer[2..length]).trim_end()),
        _ => String::new(),
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::Refused(format!("{text:?} holds a NUL byte")))
}

/// A file system without options of the configuration.
pub(super) fn plain(fstype: &str, source: &str, data: &[&str]) -> Fs {
    Fs {
        fstype: fstype.into(),
        source: Some(source.into()),
        flags: MsFlags::empty(),
        data: data.iter().map(|option| (*option).into()).collect(),
        copy_up: false,
    }
}

/// What the plan makes of a new mount, where the recursive attributes are attributes like others.
pub(super) fn set_of(plan: &MountPlan) -> u64 {
    let mut attrs = plan.attrs;
    attrs.apply(plan.recursive_attrs);
    attrs.set
}
