//! The mounts of a container as CRIU has to know them: which are copies of something outside, and where they are.
//!
//! CRIU names a mount from outside by its mount point, a path that the image and what runs in it have a say in: at restore a
//! name with CRIU's own punctuation could stand for any directory of the host (CVE-2026-119101, CVE-2026-115520,
//! CVE-2026-119614). So the name is a number, the place in a list of our own, which says what of the configuration is meant.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use serde::{Deserialize, Serialize};

use super::file_type;
use super::mount::describe;
use super::mountinfo::{self, Line, unescape};
use super::tree::{self, Leaf, Links};
use crate::cgroup::Directory;
use crate::error::{CallContext, Context};
use crate::plan::mounts::{Kind, MountPlan};
use crate::sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, Recursion, mount_setattr};
use crate::sys::path::open;
use crate::sys::path::{identity, is_mount_root};
use crate::{Error, Result};

/// What a mount from outside is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The bind mount of the configuration with this destination.
    Bind(PathBuf),
    /// What is mounted at `path` below the source of the bind mount `destination`.
    Below {
        /// Of the configuration.
        destination: PathBuf,
        /// Relative to the source.
        path: PathBuf,
    },
    /// The container's cgroup in this hierarchy.
    Cgroup(String),
    /// `/dev/null`, over a file that is masked.
    Null,
    /// The node of this path on the host.
    Device(PathBuf),
}

/// A mount from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// Of what.
    pub source: Source,
    /// Where in the container, without links.
    pub mount_point: PathBuf,
    /// Whether the mount is read-only.
    pub read_only: bool,
}

/// A mount point in the root file system itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Where, without links.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
}

/// A mount, wherever it is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Where, without links.
    pub mount_point: PathBuf,
    /// Those of its `MOUNT_ATTR_*` that take something away: read-only, nosuid, nodev, noexec, nosymfollow.
    pub restrictions: u64,
}

/// The mounts of a container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mounted {
    /// Those from outside: CRIU's name of each is its index.
    pub outside: Vec<Outside>,
    /// What has to be in the root file system for all of them.
    pub places: Vec<Place>,
    /// All of them, sorted.
    pub all: Vec<Seen>,
}

/// What the configuration says of mounts from outside.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `mounts`.
    pub mounts: &'a [MountPlan],
    /// `linux.maskedPaths`.
    pub masked: &'a [PathBuf],
    /// The devices that are bound: those of a container with a user namespace.
    pub devices: &'a [PathBuf],
    /// The container's directories, one per hierarchy.
    pub cgroup: &'a [Directory],
}

/// Looks at the container whose init is `pid`, a process that the caller knows to stay.
///
/// # Errors
/// A mount of the configuration that is not where it was put, or not as read-only; one that cannot be named to CRIU.
pub fn look(pid: nix::unistd::Pid, expected: Expected<'_>) -> Result<Mounted> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(path.as_str(), flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    let path = format!("/proc/{pid}/mountinfo");
    let mountinfo = std::fs::read(&path).call(|| format!("read({path:?})"))?;
    let lines = mountinfo::lines(&mountinfo).map(|line| (line.id, line)).collect();
    let mut look = Look { root, lines, expected, known: BTreeMap::new(), outside: Vec::new() };
    look.at_mounts()?;
    look.at_masks()?;
    look.at_devices()?;
    look.at_cgroups()?;
    look.below_binds()?;
    let places = look.places()?;
    let seen = |line: &Line<'_>| Seen { mount_point: unescape(line.mount_point), restrictions: line.restrictions() };
    let mut all: Vec<Seen> = look.lines.values().map(seen).collect();
    all.sort_unstable();
    Ok(Mounted { outside: look.outside, places, all })
}

struct Look<'a> {
    root: OwnedFd,
    lines: BTreeMap<u64, Line<'a>>,
    expected: Expected<'a>,
    /// What a mount, by its id, was made by: an entry of `mounts`, or something else.
    known: BTreeMap<u64, Option<&'a MountPlan>>,
    outside: Vec<Outside>,
}

impl<'a> Look<'a> {
    /// What is at `path` for a process of the container, if it is the root of a mount: that mount's id.
    fn mount_at(&self, path: &Path) -> Result<Option<(u64, OwnedFd)>> {
        let found = match tree::open(&self.root, path, Leaf::File, Links::Follow) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            found => found.call(|| format!("openat2({path:?})"))?,
        };
        if !is_mount_root(found.as_fd()).call(|| "statx")? {
            return Ok(None);
        }
        let id = identity(found.as_fd()).call(|| "statx")?.mount;
        Ok(self.lines.contains_key(&id).then_some((id, found)))
    }

    fn at_mounts(&mut self) -> Result<()> {
        for plan in self.expected.mounts {
            match &plan.kind {
                Kind::Bind { .. } if is_copied(plan) => {}
                Kind::Bind { symlinks, .. } if symlinks.source_nofollow || symlinks.destination_nofollow => {
                    return Err(Error::Refused("a mount of or on a link cannot be saved".into()))
                        .during(|| describe(plan));
                }
                Kind::Bind { .. } => self.at_bind(plan).during(|| describe(plan))?,
                Kind::Fs(_) => {
                    if let Some((id, _)) = self.mount_at(&plan.destination)? {
                        self.known.entry(id).or_insert(None);
                    }
                }
                Kind::Remount | Kind::Cgroup { .. } => {}
            }
        }
        Ok(())
    }

    fn at_bind(&mut self, plan: &'a MountPlan) -> Result<()> {
        let gone = || Error::Refused("it is not mounted there any more".into());
        let (id, found) = self.mount_at(&plan.destination)?.ok_or_else(gone)?;
        let Kind::Bind { source, .. } = &plan.kind else { return Ok(()) };
        // A source that was replaced meanwhile is still on the same file system, what the container has put there is not.
        if let Ok(source) = nix::sys::stat::stat(source)
            && source.st_dev != fstat(&found).call(|| "fstat")?.st_dev
        {
            return Err(gone());
        }
        if self.known.insert(id, Some(plan)).is_some() {
            return Err(Error::Refused("another entry leads to the same place".into()));
        }
        let wants_read_only = (plan.attrs.set | plan.recursive_attrs.set) & MOUNT_ATTR_RDONLY != 0;
        self.add(id, Source::Bind(plan.destination.clone()))?;
        match self.outside.last() {
            Some(Outside { read_only: false, .. }) if wants_read_only => {
                Err(Error::Refused("it is not read-only any more".into()))
            }
            _ => Ok(()),
        }
    }

    fn at_masks(&mut self) -> Result<()> {
        for path in self.expected.masked {
            let Some((id, found)) = self.mount_at(path)? else { continue };
            let stat = fstat(&found).call(|| "fstat")?;
            let is_null = file_type(&stat) == SFlag::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
            if is_null && !self.known.contains_key(&id) {
                self.known.insert(id, None);
                self.add(id, Source::Null).during(|| format!("linux.maskedPaths: {path:?}"))?;
            }
        }
        Ok(())
    }

    fn at_devices(&mut self) -> Result<()> {
        for path in self.expected.devices {
            let Some((id, found)) = self.mount_at(path)? else { continue };
            let Ok(host) = nix::sys::stat::lstat(path) else { continue };
            let stat = fstat(&found).call(|| "fstat")?;
            if (stat.st_dev, stat.st_ino) == (host.st_dev, host.st_ino) && !self.known.contains_key(&id) {
                self.known.insert(id, None);
                self.add(id, Source::Device(path.clone())).during(|| format!("device {path:?}"))?;
            }
        }
        Ok(())
    }

    /// A cgroup namespace makes no difference: read from outside, every one of them shows the part of a hierarchy.
    fn at_cgroups(&mut self) -> Result<()> {
        for directory in self.expected.cgroup {
            let Ok(stat) = nix::sys::stat::stat(&directory.path) else { continue };
            let device = format!("{}:{}", major(stat.st_dev), minor(stat.st_dev));
            let of_it = |line: &&Line<'_>| line.device == device.as_bytes() && line.fstype.starts_with(b"cgroup");
            let ids: Vec<u64> = self.lines.values().filter(of_it).map(|line| line.id).collect();
            for id in ids {
                if self.known.insert(id, None).is_none() {
                    self.add(id, Source::Cgroup(directory.hierarchy.clone()))?;
                }
            }
        }
        Ok(())
    }

    /// What came along with the source of a bind mount, or was made below it since on the host.
    fn below_binds(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.lines.keys().copied().collect();
        for id in ids {
            let mut at = id;
            let above = loop {
                let Some(line) = self.lines.get(&at) else { break None };
                match self.known.get(&at) {
                    Some(made_by) => break made_by.map(|plan| (at, plan)),
                    None => at = line.parent,
                }
            };
            let (Some((bind, plan)), false) = (above, self.known.contains_key(&id)) else { continue };
            let (Some(line), Some(top)) = (self.lines.get(&id), self.lines.get(&bind)) else { continue };
            let (path, top) = (unescape(line.mount_point), unescape(top.mount_point));
            let Ok(path) = path.strip_prefix(&top).map(Path::to_owned) else { continue };
            if is_mounted_below(plan, &path, line.device) {
                self.add(id, Source::Below { destination: plan.destination.clone(), path })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, id: u64, source: Source) -> Result<()> {
        let Some(line) = self.lines.get(&id) else { return Ok(()) };
        let mount_point = unescape(line.mount_point);
        check_name(&mount_point)?;
        if self.lines.values().filter(|other| other.mount_point == line.mount_point).count() > 1 {
            return Err(Error::Refused(format!(
                "more than one mount on {mount_point:?}: CRIU could not tell them apart"
            )));
        }
        self.outside.push(Outside { source, mount_point, read_only: line.restrictions() & MOUNT_ATTR_RDONLY != 0 });
        Ok(())
    }

    fn places(&self) -> Result<Vec<Place>> {
        let root = identity(self.root.as_fd()).call(|| "statx(\"/\")")?.mount;
        let mut places = Vec::new();
        for line in self.lines.values().filter(|line| line.parent == root) {
            let path = unescape(line.mount_point);
            let found =
                tree::open(&self.root, &path, Leaf::File, Links::Refuse).call(|| format!("openat2({path:?})"))?;
            let directory = file_type(&fstat(&found).call(|| "fstat")?) == SFlag::S_IFDIR;
            places.push(Place { path, directory });
        }
        places.sort_by(|one, other| one.path.cmp(&other.path));
        places.dedup();
        Ok(places)
    }
}

/// Whether nothing is mounted: of a link as the source a copy is made, if the options say so.
fn is_copied(plan: &MountPlan) -> bool {
    matches!(&plan.kind, Kind::Bind { source, symlinks, .. } if symlinks.copy && source.is_symlink())
}

/// What CRIU takes apart a name at.
fn check_name(mount_point: &Path) -> Result<()> {
    match mount_point.to_str() {
        Some(text) if !text.contains(['[', ']', ':', '\n']) => Ok(()),
        _ => Err(Error::Refused(format!(
            "{mount_point:?} cannot be named to CRIU: [ ] : and newlines stand for more there"
        ))),
    }
}

/// Whether the source of the bind mount `plan` has a mount of this device at `path`.
fn is_mounted_below(plan: &MountPlan, path: &Path, device: &[u8]) -> bool {
    let Kind::Bind { source, .. } = &plan.kind else { return false };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let found = open(source, flags, Mode::empty())
        .and_then(|source| tree::open(&source, path, Leaf::File, Links::Refuse))
        .and_then(|found| Ok((is_mount_root(found.as_fd())?, fstat(&found)?)));
    found
        .is_ok_and(|(root, stat)| root && format!("{}:{}", major(stat.st_dev), minor(stat.st_dev)).as_bytes() == device)
}

/// Gives mounts of the container whose root is `root` the restrictions that they had. For a process in its mount namespace.
///
/// # Errors
/// The mount, and the call that failed.
pub fn restrict(root: &OwnedFd, mounts: &[&Seen]) -> Result<()> {
    for Seen { mount_point, restrictions } in mounts {
        let mount =
            tree::open(root, mount_point, Leaf::File, Links::Refuse).call(|| format!("openat2({mount_point:?})"))?;
        let attr = MountAttr { attr_set: *restrictions, ..MountAttr::default() };
        mount_setattr(mount.as_fd(), Recursion::Top, &attr).call(|| format!("mount_setattr({mount_point:?})"))?;
    }
    Ok(())
}

impl Mounted {
    /// Whether something from outside was bound on this destination.
    pub fn has_bind(&self, destination: &Path) -> bool {
        self.outside.iter().any(|saved| matches!(&saved.source, Source::Bind(path) if path == destination))
    }

    /// The mounts that have come back with less restrictions than they were saved with. CRIU loses some when several mounts
    /// are of one file system: it takes the flags of one for those of the next.
    pub fn loosened<'a>(&'a self, now: &Self) -> Vec<&'a Seen> {
        let is_loose = |saved: &&Seen| {
            let lacks =
                |seen: &Seen| seen.mount_point == saved.mount_point && saved.restrictions & !seen.restrictions != 0;
            now.all.iter().any(lacks)
        };
        self.all.iter().filter(is_loose).collect()
    }

    /// Compares what was saved with what came back of it.
    ///
    /// # Errors
    /// A mount that is not as it was: for one, when the root file system has changed meanwhile and something else was mounted
    /// upon.
    pub fn check_restored(&self, now: &Self) -> Result<()> {
        let sorted = |mounted: &Self| {
            let mut outside = mounted.outside.clone();
            // As it is, the order is that of the kernel's numbers.
            outside.sort_by(|one, another| one.mount_point.cmp(&another.mount_point));
            outside
        };
        let words = |seen: &Seen| {
            let how = if seen.restrictions & MOUNT_ATTR_RDONLY != 0 { "read-only " } else { "" };
            format!("{how}mount on {:?}", seen.mount_point)
        };
        if let Some(missing) = self.all.iter().find(|seen| !now.all.contains(seen)) {
            return Err(Error::Refused(format!("the {} has not come back", words(missing))));
        }
        if self.all != now.all || self.places != now.places || sorted(self) != sorted(now) {
            let other = now.all.iter().find(|seen| !self.all.contains(seen)).map(words).unwrap_or_default();
            return Err(Error::Refused(format!("other mounts came back than were saved: {other}")));
        }
        Ok(())
    }

    /// Compares what was saved with what the configuration of the container to be says.
    ///
    /// # Errors
    /// A bind mount that only one of the two has, or that is writable in one alone.
    pub fn check(&self, mounts: &[MountPlan]) -> Result<()> {
        let is_mounted = |plan: &&MountPlan| matches!(plan.kind, Kind::Bind { .. }) && !is_copied(plan);
        let binds: Vec<_> = mounts.iter().filter(is_mounted).collect();
        for plan in &binds {
            let saved = self
                .outside
                .iter()
                .find(|saved| matches!(&saved.source, Source::Bind(path) if *path == plan.destination));
            let Some(saved) = saved else {
                return Err(Error::Refused(format!(
                    "mounts[{}]: {:?} is not in the checkpoint",
                    plan.index, plan.destination
                )));
            };
            let read_only = (plan.attrs.set | plan.recursive_attrs.set) & MOUNT_ATTR_RDONLY != 0;
            if read_only && !saved.read_only {
                return Err(Error::Refused(format!(
                    "mounts[{}]: {:?} was saved writable",
                    plan.index, plan.destination
                )));
            }
        }
        for saved in &self.outside {
            check_name(&saved.mount_point)?;
            if let Source::Bind(path) | Source::Below { destination: path, .. } = &saved.source
                && !binds.iter().any(|plan| plan.destination == *path)
            {
                return Err(Error::Refused(format!(
                    "the checkpoint has a bind mount on {path:?}, the configuration has not"
                )));
            }
        }
        Ok(())
    }
}
