//! Every mount option that is not the file system's own, and what it means.

use nix::mount::MsFlags;
use tare_spec::features::MOUNT_OPTIONS;

use super::Attrs;
use crate::sys::mount::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
    MountAttr, Recursion,
};

/// A propagation type, and of which mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_PRIVATE`, `MS_SHARED`, `MS_SLAVE` or `MS_UNBINDABLE`.
    pub flag: MsFlags,
    /// `private` or `rprivate`.
    pub recursion: Recursion,
}

impl Propagation {
    /// Reads one of `private`, `shared`, `slave`, `unbindable` or its `r` form.
    pub fn parse(name: &str) -> Option<Self> {
        let (name, recursion) = match name.strip_prefix('r') {
            Some(rest) => (rest, Recursion::Tree),
            None => (name, Recursion::Top),
        };
        let flag = match name {
            "private" => MsFlags::MS_PRIVATE,
            "shared" => MsFlags::MS_SHARED,
            "slave" => MsFlags::MS_SLAVE,
            "unbindable" => MsFlags::MS_UNBINDABLE,
            _ => return None,
        };
        Some(Self { flag, recursion })
    }

    /// As mount_setattr(2) wants it.
    pub fn mount_attr(self) -> MountAttr {
        MountAttr { propagation: self.flag.bits(), ..MountAttr::default() }
    }
}

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Bind(Recursion),
    Attr(Attrs),
    RecursiveAttr(Attrs),
    Set(MsFlags),
    Clear(MsFlags),
    Propagation(Propagation),
    Idmap(Recursion),
    CopyUp,
    CopySymlink,
    SourceNofollow,
    DestinationNofollow,
}

/// Flags of a file system with crun's `r` in front. mount_setattr(2) has none of them: `MS_SYNCHRONOUS` is the number of
/// another attribute there.
pub(super) const NEVER_RECURSIVE: &[&str] = &["rasync", "rdirsync", "rmand", "rnomand", "rsync"];

/// `MS_NOSYMFOLLOW` of mount(2), Linux 5.10; neither nix nor libc has it.
pub(crate) const MS_NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(256);

/// What `name` means; None: an option for the file system.
pub(super) fn effect(name: &str) -> Option<Effect> {
    // One list: what `features` announces is what is ours. `idmap` is, and is not announced until it works; an empty string
    // comes from templates that had nothing to say.
    if !matches!(name, "" | "idmap" | "ridmap") && MOUNT_OPTIONS.binary_search(&name).is_err() {
        return None;
    }
    let effect = match name {
        "defaults" | "" => Effect::Nothing,
        "bind" => Effect::Bind(Recursion::Top),
        "rbind" => Effect::Bind(Recursion::Tree),
        "sync" => Effect::Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Effect::Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Effect::Set(MsFlags::MS_DIRSYNC),
        "mand" => Effect::Set(MsFlags::MS_MANDLOCK),
        "nomand" => Effect::Clear(MsFlags::MS_MANDLOCK),
        "silent" => Effect::Set(MsFlags::MS_SILENT),
        "loud" => Effect::Clear(MsFlags::MS_SILENT),
        "lazytime" => Effect::Set(MsFlags::MS_LAZYTIME),
        "nolazytime" => Effect::Clear(MsFlags::MS_LAZYTIME),
        "iversion" => Effect::Set(MsFlags::MS_I_VERSION),
        "noiversion" => Effect::Clear(MsFlags::MS_I_VERSION),
        "remount" => Effect::Set(MsFlags::MS_REMOUNT),
        "tmpcopyup" => Effect::CopyUp,
        "copy-symlink" => Effect::CopySymlink,
        "src-nofollow" => Effect::SourceNofollow,
        "dest-nofollow" => Effect::DestinationNofollow,
        "idmap" => Effect::Idmap(Recursion::Top),
        "ridmap" => Effect::Idmap(Recursion::Tree),
        // `relatime` and `rw` begin with an r of their own: the plain table comes first.
        _ => {
            if let Some(attrs) = attrs(name) {
                Effect::Attr(attrs)
            } else if let Some(propagation) = Propagation::parse(name) {
                Effect::Propagation(propagation)
            } else if let Some(attrs) = name.strip_prefix('r').and_then(attrs) {
                Effect::RecursiveAttr(attrs)
            } else {
                return None;
            }
        }
    };
    Some(effect)
}

/// The options that are attributes of a mount; each has a recursive form with an `r` in front.
fn attrs(name: &str) -> Option<Attrs> {
    const fn set(flag: u64) -> Attrs {
        Attrs { set: flag, clear: 0 }
    }
    const fn clear(flag: u64) -> Attrs {
        Attrs { set: 0, clear: flag }
    }
    // The access time modes are values of one field, which mount_setattr(2) wants cleared as a whole. `no` in front
    // of one goes back to the kernel's default, relatime; `norelatime` has nothing to go back from.
    const fn atime(mode: u64) -> Attrs {
        Attrs { set: mode, clear: MOUNT_ATTR__ATIME }
    }
    Some(match name {
        "ro" => set(MOUNT_ATTR_RDONLY),
        "rw" => clear(MOUNT_ATTR_RDONLY),
        "nosuid" => set(MOUNT_ATTR_NOSUID),
        "suid" => clear(MOUNT_ATTR_NOSUID),
        "nodev" => set(MOUNT_ATTR_NODEV),
        "dev" => clear(MOUNT_ATTR_NODEV),
        "noexec" => set(MOUNT_ATTR_NOEXEC),
        "exec" => clear(MOUNT_ATTR_NOEXEC),
        "nosymfollow" => set(MOUNT_ATTR_NOSYMFOLLOW),
        "symfollow" => clear(MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => set(MOUNT_ATTR_NODIRATIME),
        "diratime" => clear(MOUNT_ATTR_NODIRATIME),
        "noatime" => atime(MOUNT_ATTR_NOATIME),
        "strictatime" => atime(MOUNT_ATTR_STRICTATIME),
        "atime" | "relatime" | "nostrictatime" => atime(MOUNT_ATTR_RELATIME),
        "norelatime" => Attrs::default(),
        _ => return None,
    })
}
