//! The mount calls that nix does not have: mounts are made and attached fd to fd, never by name.
//!
//! All of them are there from Linux 5.12 on, the minimum kernel of this crate.

use std::ffi::{CStr, c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// `MOUNT_ATTR_RDONLY`.
pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
/// `MOUNT_ATTR_NOSUID`.
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
/// `MOUNT_ATTR_NODEV`.
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
/// `MOUNT_ATTR_NOEXEC`.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
/// `MOUNT_ATTR__ATIME`: the field of the three access time modes; a change clears all of it.
pub const MOUNT_ATTR__ATIME: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME`: the mode that is zero.
pub const MOUNT_ATTR_RELATIME: u64 = 0x00;
/// `MOUNT_ATTR_NOATIME`.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_NOSYMFOLLOW`, Linux 5.14; before it EINVAL.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;
/// `MOUNT_ATTR_IDMAP`: the ids are those of `userns_fd`. Linux 5.12 for ext4, xfs and FAT; btrfs 5.15, overlayfs 5.19,
/// tmpfs 6.3, FUSE 6.12.
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

const OPEN_TREE_CLONE: c_uint = 1;
const OPEN_TREE_CLOEXEC: c_uint = libc::O_CLOEXEC.cast_unsigned();
const AT_RECURSIVE: c_uint = libc::AT_RECURSIVE.cast_unsigned();
const AT_EMPTY_PATH: c_uint = libc::AT_EMPTY_PATH.cast_unsigned();
const AT_SYMLINK_NOFOLLOW: c_uint = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;

/// Whether a call acts on one mount or on the tree below it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// The one mount.
    Top,
    /// The mount and all mounts below it: `AT_RECURSIVE`.
    Tree,
}

impl Recursion {
    fn flag(self) -> c_uint {
        match self {
            Self::Top => 0,
            Self::Tree => AT_RECURSIVE,
        }
    }
}

/// `struct mount_attr` of mount_setattr(2), version 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub attr_clr: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to keep it.
    pub propagation: u64,
    /// The user namespace of an idmapped mount.
    pub userns_fd: u64,
}

fn result(returned: c_long) -> nix::Result<RawFd> {
    // The kernel's fds and its zero fit an int.
    Errno::result(returned).map(|value| RawFd::try_from(value).unwrap_or(RawFd::MAX))
}

/// Takes ownership of a file descriptor that the kernel has just returned.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes the value a successful open_tree, fsopen or fsmount returned to it: an open
    // descriptor that nothing else in this process knows of.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursion)`: a detached copy of the mount (or tree)
/// at the host path `path`; symbolic links are followed. Linux 5.2.
///
/// # Errors
/// ENOENT; EINVAL: an unbindable mount, one of another mount namespace, or (top alone) one with locked mounts below it.
///
/// <https://man7.org/linux/man-pages/man2/open_tree.2.html>
pub fn open_tree_clone_host(path: &CStr, recursion: Recursion) -> nix::Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, path, OPEN_TREE_CLONE | recursion.flag())
}

/// As [`open_tree_clone_host`] with AT_SYMLINK_NOFOLLOW: of a symbolic link at the end of `path` the link itself. Linux 5.2.
///
/// # Errors
/// As [`open_tree_clone_host`].
///
/// <https://man7.org/linux/man-pages/man2/open_tree.2.html>
pub fn open_tree_clone_host_nofollow(path: &CStr, recursion: Recursion) -> nix::Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, path, OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW | recursion.flag())
}

/// `open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursion)`: a detached copy of the mount
/// (or tree) from the file or directory `fd` down. Linux 5.2.
///
/// # Errors
/// As [`open_tree_clone_host`].
///
/// <https://man7.org/linux/man-pages/man2/open_tree.2.html>
pub fn open_tree_clone(fd: BorrowedFd<'_>, recursion: Recursion) -> nix::Result<OwnedFd> {
    open_tree(fd.as_raw_fd(), c"", OPEN_TREE_CLONE | AT_EMPTY_PATH | recursion.flag())
}

fn open_tree(dirfd: RawFd, path: &CStr, flags: c_uint) -> nix::Result<OwnedFd> {
    // SAFETY: `path` is a NUL-terminated string that outlives the call; the kernel writes to no memory of ours.
    let returned = unsafe { libc::syscall(libc::SYS_open_tree, dirfd, path.as_ptr(), flags | OPEN_TREE_CLOEXEC) };
    result(returned).map(owned)
}

/// `move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)`: attaches a detached mount,
/// or moves an attached one, onto the file or directory `target`. `mount` stays good: it is then the attached mount.
/// Linux 5.2.
///
/// # Errors
/// EINVAL or ENOTDIR: a directory on a file or the reverse; ELOOP; EBUSY.
///
/// <https://man7.org/linux/man-pages/man2/move_mount.2.html>
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    move_mount_raw(mount, target, c"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
}

/// `move_mount(mount, "", directory, name, MOVE_MOUNT_F_EMPTY_PATH)`: attaches a detached mount on the entry `name` of
/// `directory`. A symbolic link there is not followed; for a directory that nobody else can change. Linux 5.2.
///
/// # Errors
/// As [`move_mount`]; ENOENT.
///
/// <https://man7.org/linux/man-pages/man2/move_mount.2.html>
pub fn move_mount_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    move_mount_raw(mount, directory, name, MOVE_MOUNT_F_EMPTY_PATH)
}

fn move_mount_raw(mount: BorrowedFd<'_>, dirfd: BorrowedFd<'_>, path: &CStr, flags: c_uint) -> nix::Result<()> {
    let (from, to) = (mount.as_raw_fd(), dirfd.as_raw_fd());
    // SAFETY: both paths are NUL-terminated strings that outlive the call; the kernel writes to no memory of ours.
    let returned = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) };
    result(returned).map(drop)
}

/// `mount_setattr(fd, "", AT_EMPTY_PATH | recursion, attr, sizeof *attr)`: changes the mount whose root is `fd`;
/// what `attr` does not name is kept. Linux 5.12; before it ENOSYS.
///
/// # Errors
/// EINVAL: `fd` is not the root of a mount, or a flag this kernel does not know; EPERM: a flag locked by an outer user
/// namespace.
///
/// <https://man7.org/linux/man-pages/man2/mount_setattr.2.html>
pub fn mount_setattr(fd: BorrowedFd<'_>, recursion: Recursion, attr: &MountAttr) -> nix::Result<()> {
    mount_setattr_raw(fd.as_raw_fd(), c"", AT_EMPTY_PATH | recursion.flag(), attr)
}

/// `mount_setattr(AT_FDCWD, "/", recursion, attr, sizeof *attr)`: changes the root mount of this process. Linux 5.12.
///
/// # Errors
/// As [`mount_setattr`].
///
/// <https://man7.org/linux/man-pages/man2/mount_setattr.2.html>
pub fn mount_setattr_root(recursion: Recursion, attr: &MountAttr) -> nix::Result<()> {
    mount_setattr_raw(libc::AT_FDCWD, c"/", recursion.flag(), attr)
}

fn mount_setattr_raw(dirfd: RawFd, path: &CStr, flags: c_uint, attr: &MountAttr) -> nix::Result<()> {
    let size = size_of::<MountAttr>();
    let attr: *const MountAttr = attr;
    // SAFETY: `path` is a NUL-terminated string and `attr` a live struct of the layout and size the kernel is told;
    // both are only read, and only during the call.
    let returned = unsafe { libc::syscall(libc::SYS_mount_setattr, dirfd, path.as_ptr(), flags, attr, size) };
    result(returned).map(drop)
}

/// `fsopen(fstype, FSOPEN_CLOEXEC)`: a context in which a new file system is configured. Linux 5.2.
///
/// # Errors
/// ENODEV: no such file system type in this kernel.
///
/// <https://man7.org/linux/man-pages/man2/fsopen.2.html>
pub fn fsopen(fstype: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: `fstype` is a NUL-terminated string that outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) };
    result(returned).map(owned)
}

/// `fsconfig(fs, FSCONFIG_SET_FLAG, key, NULL, 0)`: an option without a value. Linux 5.2.
///
/// # Errors
/// EINVAL: the file system does not know it; the reason is read from `fs`.
///
/// <https://man7.org/linux/man-pages/man2/fsconfig.2.html>
pub fn fsconfig_set_flag(fs: BorrowedFd<'_>, key: &CStr) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_SET_FLAG, Some(key), None)
}

/// `fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0)`. Linux 5.2.
///
/// # Errors
/// EINVAL: the file system does not know it, or the value has more than 255 bytes.
///
/// <https://man7.org/linux/man-pages/man2/fsconfig.2.html>
pub fn fsconfig_set_string(fs: BorrowedFd<'_>, key: &CStr, value: &CStr) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// `fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)`: makes the superblock. Linux 5.2.
///
/// # Errors
/// What the file system answers: the reason is read from `fs`.
///
/// <https://man7.org/linux/man-pages/man2/fsconfig.2.html>
pub fn fsconfig_create(fs: BorrowedFd<'_>) -> nix::Result<()> {
    fsconfig(fs, FSCONFIG_CMD_CREATE, None, None)
}

fn fsconfig(fs: BorrowedFd<'_>, command: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are NULL where the command takes none, else NUL-terminated strings that outlive the call
    // and are only read.
    let returned = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0 as c_int) };
    result(returned).map(drop)
}

/// `fsmount(fs, FSMOUNT_CLOEXEC, attr)`: a detached mount of the created superblock. Linux 5.2.
///
/// # Errors
/// EPERM: a procfs or sysfs that would show more than the ones already visible in this user namespace.
///
/// <https://man7.org/linux/man-pages/man2/fsmount.2.html>
pub fn fsmount(fs: BorrowedFd<'_>, attr: u64) -> nix::Result<OwnedFd> {
    // The argument is an unsigned int: every MOUNT_ATTR_* lies in its range.
    let attr = c_uint::try_from(attr).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no pointers are passed.
    let returned = unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, attr) };
    result(returned).map(owned)
}
