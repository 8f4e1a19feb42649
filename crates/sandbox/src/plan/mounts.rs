//! `mounts` of the configuration → what to mount, in order.

use std::ffi::OsString;
use std::mem::take;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use oci_spec::runtime::{LinuxIdMapping, Mount};

use crate::plan::IdMappings;
use crate::sys::mount::{MountAttr, Recursion};
use crate::{Error, Result};

mod idmap;
mod option;

use option::Effect;
pub(crate) use option::MS_NOSYMFOLLOW;
pub use option::Propagation;

/// One entry of `mounts`, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Its index in the configuration, for messages.
    pub index: usize,
    /// Where in the container: absolute, without `.`, `..` and doubled slashes. Symbolic links are still to be met.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: Kind,
    /// `MOUNT_ATTR_*` of the mount itself.
    pub attrs: Attrs,
    /// `MOUNT_ATTR_*` of the mount and all below it: `rro` and its kin.
    pub recursive_attrs: Attrs,
    /// Propagation changes, in order.
    pub propagation: Vec<Propagation>,
    /// The ids are to be mapped.
    pub idmap: Option<Idmap>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file or directory of the host.
    Bind {
        /// Absolute host path.
        source: PathBuf,
        /// Whether the mounts below it come along: `bind` or `rbind`.
        recursion: Recursion,
        /// What becomes of links.
        symlinks: Symlinks,
    },
    /// No mount of its own: `bind,remount` gives what is mounted on the destination other attributes.
    Remount,
    /// A new file system.
    Fs(Fs),
    /// The container's cgroup, as cgroup v1 or v2 shows it.
    Cgroup {
        /// What the type says: `cgroup` is what the host has, `cgroup2` is that.
        version: CgroupVersion,
        /// Options for cgroup2 (`nsdelegate`, `memory_recursiveprot`).
        data: Vec<OsString>,
    },
}

/// What becomes of a symbolic link that the source or the destination of a bind mount is. Both are followed by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Symlinks {
    /// `copy-symlink`: of a source that is a link a copy is made at the destination, and nothing is mounted.
    pub copy: bool,
    /// `src-nofollow`: the link itself is what is mounted.
    pub source_nofollow: bool,
    /// `dest-nofollow`: the link itself is what is mounted over.
    pub destination_nofollow: bool,
}

/// Which cgroup file system a mount asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// The one that the host uses.
    OfHost,
    /// cgroup2, on a host with both too.
    V2,
}

/// A file system to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fs {
    /// Its type, as the kernel names it.
    pub fstype: OsString,
    /// The device, or the name that mountinfo shows.
    pub source: Option<OsString>,
    /// Flags of the superblock: `sync`, `dirsync`, `mand`, `lazytime`, `iversion`, `silent`; and `remount`.
    pub flags: MsFlags,
    /// The options the file system itself knows, `key` or `key=value`, in order.
    pub data: Vec<OsString>,
    /// Whether what the directory held before is copied into it: `tmpcopyup`.
    pub copy_up: bool,
}

/// `MOUNT_ATTR_*` to set and to clear. What neither names is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// To set.
    pub set: u64,
    /// To clear, before `set` is set.
    pub clear: u64,
}

impl Attrs {
    /// Whether there is nothing to do.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// As mount_setattr(2) wants it.
    pub fn mount_attr(self) -> MountAttr {
        MountAttr { attr_set: self.set, attr_clr: self.clear, ..MountAttr::default() }
    }

    /// A later option wins over an earlier one.
    pub(crate) fn apply(&mut self, later: Self) {
        self.set = self.set & !later.clear | later.set;
        self.clear = self.clear & !later.set | later.clear;
    }
}

/// An idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    /// `idmap` or `ridmap`.
    pub recursion: Recursion,
    /// The mount's own mappings; empty: those of the container's user namespace.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// As `uid_mappings`.
    pub gid_mappings: Vec<LinuxIdMapping>,
}

/// What may be mounted inside /proc, below [`PROC`]: files that only show numbers (lxcfs), as in runc. Anything else
/// could catch what the runtime writes there (CVE-2019-16884, CVE-2025-52881).
const PROC_ALLOWED: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

const PROC: &str = "/proc";

/// Works out every entry of `mounts`. A relative source of a bind mount is relative to `bundle`, an id of the option `idmap=`
/// with an `@` to the container's `own` mappings.
///
/// # Errors
/// A bundle that is itself relative: to what, is not the same when the mounts are made. The first entry that cannot be, by its field: `mounts[3].options: …`.
pub fn plan_mounts(mounts: &[Mount], bundle: &Path, own: &IdMappings) -> Result<Vec<MountPlan>> {
    if !bundle.is_absolute() {
        return Err(Error::Refused(format!("the path of the bundle, {bundle:?}, is not absolute")));
    }
    mounts.iter().enumerate().map(|(index, mount)| plan_mount(index, mount, bundle, own)).collect()
}

fn plan_mount(index: usize, mount: &Mount, bundle: &Path, own: &IdMappings) -> Result<MountPlan> {
    let refuse = |field: &str, why: String| Error::Refused(format!("mounts[{index}]{field}: {why}"));
    let destination = clean(mount.destination());
    if mount.destination().as_os_str().is_empty() {
        return Err(refuse(".destination", "empty".into()));
    }
    if !mount.destination().is_absolute() {
        // Against the specification, but runc takes it, and says so.
        tracing::warn!("mounts[{index}].destination: {:?} is not absolute, taken from /", mount.destination());
    }
    if destination == Path::new("/") {
        return Err(refuse(".destination", "cannot mount over the root itself".into()));
    }
    let mut parsed = Parsed::default();
    let mut ids = None;
    for option in mount.options().iter().flatten() {
        if let Some((recursion, mappings)) = idmap::option(option) {
            parsed.idmap = Some(recursion);
            ids = Some(idmap::parse(mappings, own).map_err(|why| refuse(".options", why))?);
            continue;
        }
        parsed.take(option);
    }
    if let Some(option) = parsed.data.iter().find(|option| option::NEVER_RECURSIVE.iter().any(|name| *option == name)) {
        let why = format!("{option:?}: a flag of a file system, which mounts below cannot be given");
        return Err(refuse(".options", why));
    }
    if let Some(byte_0) = mount.options().iter().flatten().find(|option| option.contains('\0')) {
        return Err(refuse(".options", format!("{byte_0:?} holds a NUL byte")));
    }
    let fstype = mount.typ().as_deref().filter(|fstype| !fstype.is_empty());
    let bind = parsed.bind.or((fstype == Some("bind")).then_some(Recursion::Top));
    let kind = match (bind, fstype) {
        // What else `remount` changes belongs to the file system, and takes its type.
        (Some(_), _) if parsed.flags.contains(MsFlags::MS_REMOUNT) => Kind::Remount,
        (Some(recursion), _) => {
            let Some(source) = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty()) else {
                return Err(refuse(".source", "missing: a bind mount needs one".into()));
            };
            // The kernel ignores them without a word, and so do runc and crun: there are configurations that have them.
            for option in &parsed.data {
                tracing::debug!("mounts[{index}].options: {option:?} has no effect on a bind mount");
            }
            Kind::Bind { source: bundle.join(source), recursion, symlinks: parsed.symlinks }
        }
        (None, Some("cgroup")) => Kind::Cgroup { version: CgroupVersion::OfHost, data: take(&mut parsed.data) },
        (None, Some("cgroup2")) => Kind::Cgroup { version: CgroupVersion::V2, data: take(&mut parsed.data) },
        (None, Some(fstype)) => Kind::Fs(Fs {
            fstype: fstype.into(),
            source: mount.source().as_ref().map(|source| source.as_os_str().to_owned()).filter(|s| !s.is_empty()),
            flags: parsed.flags,
            data: take(&mut parsed.data),
            copy_up: parsed.copy_up,
        }),
        (None, None) => return Err(refuse(".type", "missing, and no option bind or rbind".into())),
    };
    if parsed.copy_up && !matches!(&kind, Kind::Fs(fs) if fs.fstype == "tmpfs") {
        return Err(refuse(".options", "tmpcopyup is for type tmpfs alone".into()));
    }
    let Symlinks { copy, source_nofollow, destination_nofollow } = parsed.symlinks;
    if parsed.symlinks != Symlinks::default() && !matches!(&kind, Kind::Bind { .. }) {
        return Err(refuse(
            ".options",
            "copy-symlink, src-nofollow and dest-nofollow are for bind mounts alone".into(),
        ));
    }
    if copy && (source_nofollow || destination_nofollow) {
        return Err(refuse(".options", "copy-symlink goes with neither src-nofollow nor dest-nofollow".into()));
    }
    check_proc(&destination, &kind).map_err(|why| refuse(".destination", why))?;
    let idmap = idmap::plan(parsed.idmap, ids, mount).map_err(|why| refuse("", why))?;
    if idmap.is_some() && !matches!(&kind, Kind::Bind { .. }) {
        return Err(refuse(".options", "idmap is for bind mounts alone".into()));
    }
    let Parsed { attrs, recursive_attrs, propagation, .. } = parsed;
    Ok(MountPlan { index, destination, kind, attrs, recursive_attrs, propagation, idmap })
}

/// What the options of one mount add up to.
#[derive(Debug)]
struct Parsed {
    bind: Option<Recursion>,
    attrs: Attrs,
    recursive_attrs: Attrs,
    flags: MsFlags,
    propagation: Vec<Propagation>,
    idmap: Option<Recursion>,
    copy_up: bool,
    symlinks: Symlinks,
    data: Vec<OsString>,
}

impl Default for Parsed {
    fn default() -> Self {
        Self {
            bind: None,
            attrs: Attrs::default(),
            recursive_attrs: Attrs::default(),
            flags: MsFlags::empty(),
            propagation: Vec::new(),
            idmap: None,
            copy_up: false,
            symlinks: Symlinks::default(),
            data: Vec::new(),
        }
    }
}

impl Parsed {
    fn take(&mut self, name: &str) {
        match option::effect(name) {
            Some(Effect::Nothing) => {}
            Some(Effect::Bind(recursion)) => self.bind = Some(recursion),
            Some(Effect::Attr(attrs)) => self.attrs.apply(attrs),
            Some(Effect::RecursiveAttr(attrs)) => self.recursive_attrs.apply(attrs),
            Some(Effect::Set(flag)) => self.flags |= flag,
            Some(Effect::Clear(flag)) => self.flags -= flag,
            Some(Effect::Propagation(propagation)) => self.propagation.push(propagation),
            Some(Effect::Idmap(recursion)) => self.idmap = Some(recursion),
            Some(Effect::CopyUp) => self.copy_up = true,
            Some(Effect::CopySymlink) => self.symlinks.copy = true,
            Some(Effect::SourceNofollow) => self.symlinks.source_nofollow = true,
            Some(Effect::DestinationNofollow) => self.symlinks.destination_nofollow = true,
            // Not ours: the file system's own.
            None => self.data.push(name.into()),
        }
    }
}

/// The lexical half of what keeps /proc a real procfs; the other half looks at the target when it is open.
fn check_proc(destination: &Path, kind: &Kind) -> Result<(), String> {
    let new_proc = matches!(kind, Kind::Fs(fs) if fs.fstype == "proc");
    let Ok(below) = destination.strip_prefix(PROC) else {
        return if new_proc { Err("a file system of type proc belongs on /proc".into()) } else { Ok(()) };
    };
    if below.as_os_str().is_empty() {
        // Whether the source of a bind is a procfs is seen when it is open.
        return match kind {
            Kind::Bind { .. } | Kind::Remount => Ok(()),
            Kind::Fs(_) if new_proc => Ok(()),
            _ => Err("only a procfs can be mounted on /proc".into()),
        };
    }
    if !new_proc && PROC_ALLOWED.iter().any(|allowed| below == Path::new(allowed)) {
        return Ok(());
    }
    Err(format!("{destination:?} cannot be mounted because it is inside /proc"))
}

pub(crate) use tare_spec::clean;

#[cfg(test)]
mod tests;
