//! Paths inside the hostile rootfs: found, and made where they are missing, without ever leaving it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};

use super::file_type;

/// How often a lookup that raced with a rename is tried again. The kernel answers EAGAIN when anything on the whole
/// system was renamed while it looked at a `..`; an attacker can make that likely, not certain.
const ATTEMPTS: usize = 128;

/// As many symbolic links as the kernel follows in one lookup.
const LINKS: usize = 40;

/// The mode of directories made for a mount, before the umask: as in runc.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);

/// The mode of files made for a bind mount, before the umask: as in runc.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o755);

const O_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);
const O_PATH_DIRECTORY: OFlag = O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW);

/// What the end of a path is to be, or to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Directory,
    File,
}

/// Whether a path may lead through symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are followed, as a process in the container would.
    Follow,
    /// One is ELOOP.
    Refuse,
}

/// Opens `path` inside `root` with O_PATH: a directory, or anything.
pub(super) fn open(root: impl AsFd, path: &Path, leaf: Leaf, links: Links) -> nix::Result<OwnedFd> {
    let directory = if leaf == Leaf::Directory { OFlag::O_DIRECTORY } else { OFlag::empty() };
    open_with(root, path, OFlag::O_PATH | directory, links)
}

/// Opens `path` inside `root`. `..` and absolute links stop at the root; links of procfs to open files and the like are
/// refused.
pub(super) fn open_with(root: impl AsFd, path: &Path, flags: OFlag, links: Links) -> nix::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    if links == Links::Refuse {
        resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
    }
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    for _ in 1..ATTEMPTS {
        match openat2(root.as_fd(), path, how) {
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
    }
    openat2(root.as_fd(), path, how)
}

/// Makes what is missing of the absolute path `path` inside `root`, and opens it with O_PATH. A dangling symbolic link
/// gets the target it names, inside the root.
///
/// The last part, if it was there already, may be of any type.
pub(super) fn make(root: impl AsFd, path: &Path, leaf: Leaf, links: Links) -> nix::Result<OwnedFd> {
    // Mostly only the last part is missing, and no link is on the way.
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = open_with(&root, parent, O_PATH_DIRECTORY, Links::Refuse)
    {
        match make_leaf(&parent, name, leaf) {
            // Something is there that could not be opened before: a dangling link, or just made by another.
            Err(Errno::EEXIST) => {}
            done => return done,
        }
    }
    Walk::new(&root, path, links)?.run(leaf)
}

/// Makes `name` in the directory `parent` and opens what it made. EEXIST if anything is there, be it a dangling link.
pub(super) fn make_leaf(parent: &OwnedFd, name: &OsStr, leaf: Leaf) -> nix::Result<OwnedFd> {
    match leaf {
        Leaf::Directory => {
            mkdirat(parent, name, DIRECTORY_MODE)?;
            openat(parent, name, O_PATH_DIRECTORY, Mode::empty())
        }
        Leaf::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            openat(parent, name, flags, FILE_MODE)
        }
    }
}

/// A lookup part by part, which makes what it misses. Every step opens one name in a directory it holds, and follows
/// no link by itself; `..` goes back by the way it came, from the root.
struct Walk<R> {
    root: R,
    at: OwnedFd,
    /// `at` as a path from the root, without links.
    way: PathBuf,
    left: VecDeque<OsString>,
    links_left: usize,
}

impl<R: AsFd> Walk<R> {
    fn new(root: R, path: &Path, links: Links) -> nix::Result<Self> {
        let at = open_with(&root, Path::new("/"), O_PATH_DIRECTORY, Links::Refuse)?;
        let links_left = if links == Links::Follow { LINKS } else { 0 };
        let mut walk = Self { root, at, way: PathBuf::new(), left: VecDeque::new(), links_left };
        walk.put_in_front(path);
        Ok(walk)
    }

    fn put_in_front(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.to_owned()),
                Component::ParentDir => self.left.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn run(mut self, leaf: Leaf) -> nix::Result<OwnedFd> {
        while let Some(name) = self.left.pop_front() {
            if name == ".." {
                self.way.pop();
                self.at = open_with(&self.root, &self.way, O_PATH_DIRECTORY, Links::Refuse)?;
                continue;
            }
            // `..` after it means that it has to be a directory.
            let want = if self.left.is_empty() { leaf } else { Leaf::Directory };
            let next = self.step(&name, want)?;
            let stat = fstat(&next)?;
            if file_type(&stat) == SFlag::S_IFLNK {
                self.links_left = self.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
                let target = PathBuf::from(readlinkat(&next, "")?);
                if target.is_absolute() {
                    self.way = PathBuf::new();
                    self.at = open_with(&self.root, Path::new("/"), O_PATH_DIRECTORY, Links::Refuse)?;
                }
                self.put_in_front(&target);
            } else if self.left.is_empty() {
                return Ok(next);
            } else {
                self.way.push(&name);
                self.at = next;
            }
        }
        // It ended in `..` or in a link to a directory above.
        Ok(self.at)
    }

    /// Opens `name` in the directory at hand, whatever it is, and makes it if it is missing.
    fn step(&self, name: &OsStr, leaf: Leaf) -> nix::Result<OwnedFd> {
        for _ in 0..ATTEMPTS {
            match openat(&self.at, name, O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
                Err(Errno::ENOENT) => {}
                done => return done,
            }
            match make_leaf(&self.at, name, leaf) {
                // Another made it in between, or swapped what was made for a link.
                Err(Errno::EEXIST | Errno::ELOOP | Errno::ENOTDIR | Errno::ENOENT) => {}
                done => return done,
            }
        }
        Err(Errno::EAGAIN)
    }
}

/// `fstatat(directory, name, AT_SYMLINK_NOFOLLOW)`.
pub(super) fn stat_leaf(directory: impl AsFd, name: &OsStr) -> nix::Result<nix::sys::stat::FileStat> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}
