//! What the host sees of a container's mounts: nothing, unless the configuration asks for shared mounts.
//!
//! On a host whose mounts are shared, as systemd makes them, a copy of a mount (open_tree(2)) is a peer of it: what the container
//! mounts on the copy the host gets too. So every copy is given its propagation before it is attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::mount::MsFlags;

use crate::Result;
use crate::error::{CallContext, Context};
use crate::plan::mounts::Propagation;
use crate::sys::mount::{MountAttr, Recursion, mount_setattr, open_tree_clone};

/// A slave gets mounts and gives none.
const SLAVE: Propagation = Propagation { flag: MsFlags::MS_SLAVE, recursion: Recursion::Tree };

/// What the host's mounts become for a container.
#[derive(Debug, Clone, Copy)]
pub struct HostMounts {
    /// First all of them are made slaves.
    slaves: bool,
    then: Option<Propagation>,
}

impl HostMounts {
    /// In a mount namespace of the container: as `linux.rootfsPropagation` says, where nothing said is `rslave`. `private` and
    /// `slave` are for the one mount, and leave the others slaves.
    pub fn new(asked: Option<Propagation>) -> Self {
        let then = asked.map(|asked| match asked.flag {
            // The sources of binds are among them. The container's own mounts are made so in the end.
            MsFlags::MS_UNBINDABLE => Propagation { flag: MsFlags::MS_PRIVATE, ..asked },
            _ => asked,
        });
        let then = then.filter(|then| then.flag != MsFlags::MS_SLAVE);
        Self { slaves: then.is_none_or(|then| then.flag != MsFlags::MS_SHARED), then }
    }

    /// In a mount namespace of another user namespace than the host's, where the kernel makes slaves of shared mounts: what
    /// the configuration shares then is shared inside.
    #[must_use]
    pub fn in_user_namespace(self, yes: bool) -> Self {
        Self { slaves: self.slaves || yes, ..self }
    }

    /// In the mount namespace of the caller: what is mounted on the copies does not go to where they are from.
    pub fn callers() -> Self {
        Self { slaves: true, then: None }
    }

    /// What they are to be made, one after the other.
    pub(super) fn changes(self) -> impl Iterator<Item = Propagation> {
        self.slaves.then_some(SLAVE).into_iter().chain(self.then)
    }

    /// Gives the copy of a host's mount, attached nowhere yet, the propagation that the mount itself has for the container.
    ///
    /// # Errors
    /// The call that failed.
    pub(super) fn apply(self, tree: BorrowedFd<'_>) -> Result<()> {
        self.changes().try_for_each(|change| set(tree, change))
    }
}

/// Gives a mount, or the tree of mounts, this propagation.
pub(super) fn set(tree: BorrowedFd<'_>, propagation: Propagation) -> Result<()> {
    mount_setattr(tree, propagation.recursion, &propagation.mount_attr())
        .call(|| "mount_setattr")
        .during(|| "set the propagation")
}

/// A detached copy of the one mount from `fd` down, private: for what the container has to have and nobody asked to share.
///
/// # Errors
/// What open_tree(2) and mount_setattr(2) say.
pub(super) fn clone_private(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let tree = open_tree_clone(fd, Recursion::Top)?;
    make_private(&tree)?;
    Ok(tree)
}

/// Has the mount whose root is `mount` share nothing with others.
pub(super) fn make_private(mount: &OwnedFd) -> nix::Result<()> {
    let private = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
    mount_setattr(mount.as_fd(), Recursion::Top, &private)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(asked: &str, user: bool) -> Vec<(MsFlags, Recursion)> {
        let asked = (!asked.is_empty()).then(|| Propagation::parse(asked).unwrap());
        let mounts = HostMounts::new(asked).in_user_namespace(user);
        mounts.changes().map(|change| (change.flag, change.recursion)).collect()
    }

    #[test]
    fn only_shared_mounts_stay_those_of_the_host_and_in_a_user_namespace_not_even_they() {
        use Recursion::{Top, Tree};
        const SLAVE: (MsFlags, Recursion) = (MsFlags::MS_SLAVE, Tree);
        for user in [false, true] {
            for (asked, expected) in [
                ("", &[SLAVE][..]),
                ("rslave", &[SLAVE]),
                ("slave", &[SLAVE]),
                ("private", &[SLAVE, (MsFlags::MS_PRIVATE, Top)]),
                ("rprivate", &[SLAVE, (MsFlags::MS_PRIVATE, Tree)]),
                ("unbindable", &[SLAVE, (MsFlags::MS_PRIVATE, Top)]),
                ("runbindable", &[SLAVE, (MsFlags::MS_PRIVATE, Tree)]),
            ] {
                assert_eq!(changes(asked, user), expected, "{asked}");
            }
        }
        assert_eq!(changes("shared", false), [(MsFlags::MS_SHARED, Top)]);
        assert_eq!(changes("rshared", false), [(MsFlags::MS_SHARED, Tree)]);
        assert_eq!(changes("rshared", true), [SLAVE, (MsFlags::MS_SHARED, Tree)]);
    }
}
