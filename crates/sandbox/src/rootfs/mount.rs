//! One entry of `mounts`, onto its place inside the root.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::symlinkat;

use super::tree::{self, Leaf, Links};
use super::{Root, bind, cgroup, fs};
use crate::cgroup::Directory;
use crate::error::{CallContext, Context};
use crate::plan::mounts::{Kind, MountPlan};
use crate::sys::path::identity;
use crate::{Error, Result};

/// Whether the container sees itself at the root of its cgroup hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupNamespace {
    /// The container's own: its cgroup is the root.
    Own,
    /// One that it joined: what is the root there is the other's.
    Joined,
    /// The host's: the container's directory is bound.
    Host,
}

/// Where devices go.
pub(super) const DEV: &str = "/dev";

/// What mounts depend on besides their own entry.
#[derive(Debug, Clone, Copy)]
pub struct MountEnv<'a> {
    /// The container's directories, one per hierarchy; none if it stays in its caller's cgroup.
    pub cgroup: &'a [Directory],
    /// What a fresh cgroup mount shows.
    pub cgroup_namespace: CgroupNamespace,
    /// `linux.mountLabel`, for the file systems that take one.
    pub label: Option<&'a str>,
}

/// The place of a mount, opened.
pub(super) struct Target {
    pub(super) fd: OwnedFd,
    /// Whether it was not there before.
    pub(super) made: bool,
}

impl Root {
    /// Carries out one entry of `mounts`. `source` is the bind's source as [`super::clone_sources`] gave it where the host's
    /// mounts are not this user namespace's to clone, or the ids are mapped.
    ///
    /// # Errors
    /// The entry, and the call or the rule that refused it.
    pub fn mount(&self, plan: &MountPlan, source: Option<OwnedFd>, env: &MountEnv<'_>) -> Result<()> {
        let mounted = match &plan.kind {
            Kind::Bind { source: path, recursion, symlinks } => {
                bind::mount(self, plan, path, *recursion, *symlinks, source)
            }
            Kind::Remount => bind::remount(self, plan),
            Kind::Fs(fs) => fs::mount(self, plan, fs, env),
            Kind::Cgroup { version, data } => cgroup::mount(self, plan, *version, data, env),
        };
        if Path::new(DEV).starts_with(&plan.destination) {
            self.dev.take();
            let is_new = matches!(&plan.kind, Kind::Fs(fs) if fs.fstype == "tmpfs" && !fs.copy_up);
            self.dev_is_new.set(is_new && plan.destination == Path::new(DEV));
        }
        mounted.during(|| describe(plan))
    }

    /// Opens the place of a mount, and makes it if it is missing. Links are followed inside the root; for proc and
    /// sysfs it has to be a plain directory, on a way without links.
    pub(super) fn target(&self, plan: &MountPlan, leaf: Leaf) -> Result<Target> {
        let plain = matches!(&plan.kind, Kind::Fs(fs) if fs.fstype == "proc" || fs.fstype == "sysfs");
        let path = &plan.destination;
        if matches!(&plan.kind, Kind::Bind { symlinks, .. } if symlinks.destination_nofollow) {
            return self.target_nofollow(path, leaf);
        }
        if let Some(fd) = self.make_in_new_dev(path, leaf) {
            return Ok(Target { fd, made: true });
        }
        let missing = match tree::open(&self.fd, path, leaf, Links::Refuse) {
            // No link and no `..` on the way: what the plan has found out about the path holds for this directory,
            // and it is not the root.
            Ok(fd) => return Ok(Target { fd, made: false }),
            Err(Errno::ELOOP) => false,
            Err(Errno::ENOENT) => true,
            Err(Errno::ENOTDIR) if plain => return Err(not_ordinary(path)),
            Err(errno) => return Err(Error::call(format!("openat2({path:?})"), errno)),
        };
        if missing {
            match self.make_plain(path, leaf) {
                // Links come before the missing part.
                Err(Errno::ELOOP) => {}
                made => return made.call(|| format!("mkdir({path:?})")).map(|fd| Target { fd, made: true }),
            }
        }
        if plain {
            // CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: masks and labels would land elsewhere.
            return Err(not_ordinary(path));
        }
        let found = match tree::open(&self.fd, path, leaf, Links::Follow) {
            Err(Errno::ENOENT) => tree::make(&self.fd, path, leaf, Links::Follow).map(|fd| Target { fd, made: true }),
            found => found.map(|fd| Target { fd, made: false }),
        };
        let target = found.call(|| format!("openat2({path:?})"))?;
        self.check_target(path, &target.fd)?;
        // It may be /dev that is going to be covered.
        self.dev.take();
        self.dev_is_new.set(false);
        Ok(target)
    }

    /// As [`Root::target`], but of a link at the end of the path the link itself.
    fn target_nofollow(&self, path: &Path, leaf: Leaf) -> Result<Target> {
        let call = || format!("openat({path:?})");
        let (directory, name) = self.directory_of(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = match openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => Target { fd: tree::make_leaf(&directory, name, leaf).call(call)?, made: true },
            found => Target { fd: found.call(call)?, made: false },
        };
        self.check_target(path, &target.fd)?;
        Ok(target)
    }

    /// Makes `path` a symbolic link as `link` is one; that it is one already is fine.
    ///
    /// # Errors
    /// Anything else that is there; the call that failed.
    pub(super) fn copy_symlink(&self, path: &Path, link: &OwnedFd) -> Result<()> {
        let (directory, name) = self.directory_of(path)?;
        let content = readlinkat(link, "").call(|| "readlinkat")?;
        match symlinkat(content.as_os_str(), &directory, name) {
            Err(Errno::EEXIST) if readlinkat(&directory, name).is_ok_and(|there| there == content) => Ok(()),
            Err(Errno::EEXIST) => Err(Error::Refused(format!("{path:?} is there and is not that link"))),
            made => made.call(|| format!("symlinkat({content:?}, {path:?})")),
        }
    }

    /// Opens the directory that `path` is an entry of, and makes it if it is missing. Links are followed inside the root.
    fn directory_of<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Refused(format!("{path:?} is the root itself")));
        };
        let found = match tree::open(&self.fd, parent, Leaf::Directory, Links::Follow) {
            Err(Errno::ENOENT) => tree::make(&self.fd, parent, Leaf::Directory, Links::Follow),
            found => found,
        };
        // The entry may be the /dev that was kept, reached through links.
        self.dev.take();
        self.dev_is_new.set(false);
        Ok((found.call(|| format!("openat2({parent:?})"))?, name))
    }

    /// Makes the entry `path` of a /dev that began empty, where it will be missing: not worth a look.
    fn make_in_new_dev(&self, path: &Path, leaf: Leaf) -> Option<OwnedFd> {
        if !self.dev_is_new.get() || path.parent() != Some(Path::new(DEV)) {
            return None;
        }
        let dev = self.keep_dev()?;
        tree::make_leaf(&dev, path.file_name()?, leaf).ok()
    }

    /// /dev without links on the way, opened once.
    fn keep_dev(&self) -> Option<Rc<OwnedFd>> {
        let mut kept = self.dev.borrow_mut();
        if kept.is_none() {
            *kept = tree::open(&self.fd, Path::new(DEV), Leaf::Directory, Links::Refuse).ok().map(Rc::new);
        }
        kept.clone()
    }

    /// Makes `path` where no link is on the way.
    fn make_plain(&self, path: &Path, leaf: Leaf) -> nix::Result<OwnedFd> {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && parent == Path::new(DEV)
            && let Some(dev) = self.keep_dev()
        {
            match tree::make_leaf(&dev, name, leaf) {
                // A dangling link.
                Err(Errno::EEXIST) => {}
                done => return done,
            }
        }
        tree::make(&self.fd, path, leaf, Links::Refuse)
    }

    /// What the plan checks by the letters of a path, checked again on a place that was reached through links.
    fn check_target(&self, path: &Path, target: &OwnedFd) -> Result<()> {
        if self.is(target)? {
            return Err(Error::Refused(format!("{path:?} leads to the root itself")));
        }
        let leads_into_proc = is_of(target, PROC_SUPER_MAGIC)?
            // Or where procfs is about to be mounted.
            || match tree::open(&self.fd, Path::new("/proc"), Leaf::Directory, Links::Refuse) {
                Ok(proc) => identity(proc.as_fd()).call(|| "statx")? == identity(target.as_fd()).call(|| "statx")?,
                Err(_) => false,
            };
        if leads_into_proc {
            return Err(Error::Refused(format!("{path:?} cannot be mounted because it leads into /proc")));
        }
        Ok(())
    }
}

/// Whether `fd` is on a file system of type `magic`.
pub(super) fn is_of(fd: &OwnedFd, magic: FsType) -> Result<bool> {
    Ok(fstatfs(fd).call(|| "fstatfs")?.filesystem_type() == magic)
}

fn not_ordinary(path: &Path) -> Error {
    Error::Refused(format!("{path:?} must be mounted on ordinary directory"))
}

/// The mount in words: `mount "/srv/data" on "/data"`.
pub(super) fn describe(plan: &MountPlan) -> String {
    let on = &plan.destination;
    match &plan.kind {
        Kind::Bind { source, .. } => format!("mount {source:?} on {on:?}"),
        Kind::Remount => format!("remount {on:?}"),
        Kind::Fs(fs) => format!("mount {} on {on:?}", fs.fstype.display()),
        Kind::Cgroup { .. } => format!("mount cgroup on {on:?}"),
    }
}
