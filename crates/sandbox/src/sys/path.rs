//! Looking at and changing files by fd alone, where nix has no call for it.

use std::ffi::{CStr, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// `openat(AT_FDCWD, path, flags, mode)`. open(3) of musl asks for O_CLOEXEC twice, with fcntl(2), which a kernel before 2.6.23 needs.
///
/// # Errors
/// open(2)'s.
pub fn open<P: NixPath + ?Sized>(path: &P, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, flags, mode)
}

/// Which file an fd is, and in which mount it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    /// The mount's id, so that one directory seen through two mounts is two.
    pub mount: u64,
}

/// `statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &buffer)`. `STATX_MNT_ID` is of Linux 5.8.
///
/// # Errors
/// ENOMEM.
///
/// <https://man7.org/linux/man-pages/man2/statx.2.html>
pub fn identity(fd: BorrowedFd<'_>) -> nix::Result<Identity> {
    let stat = statx(fd, libc::STATX_INO | libc::STATX_MNT_ID)?;
    Ok(Identity { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino, mount: stat.stx_mnt_id })
}

fn statx(fd: BorrowedFd<'_>, mask: c_uint) -> nix::Result<libc::statx> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (fd.as_raw_fd(), libc::AT_EMPTY_PATH);
    // By number, not as libc::statx: Rust's std refers to that symbol weakly, and link-time optimisation of a static binary
    // lets the weak reference win, which leaves a null pointer to call.
    // SAFETY: the path is a static NUL-terminated string; `buffer` is a live struct statx, which the kernel fills.
    let returned = unsafe { libc::syscall(libc::SYS_statx, fd, c"".as_ptr(), flags, mask, buffer.as_mut_ptr()) };
    Errno::result(returned)?;
    // SAFETY: zeroed before and filled by the successful call; every bit pattern is a valid struct of integers.
    Ok(unsafe { buffer.assume_init() })
}

/// `readlinkat(dir, path, buffer, size)`: the text of a symbolic link, as much of it as fits. nix has memory for 4096 bytes allocated.
///
/// # Errors
/// EINVAL: no link; ENOENT.
///
/// <https://man7.org/linux/man-pages/man2/readlink.2.html>
pub fn readlinkat<'a>(dir: BorrowedFd<'_>, path: &CStr, buffer: &'a mut [u8]) -> nix::Result<&'a [u8]> {
    // SAFETY: the path is NUL-terminated and outlives the call, which writes to no more than the buffer.
    let length = Errno::result(unsafe {
        libc::readlinkat(dir.as_raw_fd(), path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    })?;
    Ok(buffer.get(..length.unsigned_abs()).unwrap_or_default())
}

/// `getxattr(path, name, NULL, 0) >= 0`: whether the file has an extended attribute of this name. Symbolic links are
/// followed.
///
/// <https://man7.org/linux/man-pages/man2/getxattr.2.html>
pub fn has_xattr(path: &CStr, name: &CStr) -> bool {
    // SAFETY: two NUL-terminated strings that outlive the call; a size of zero asks for the length, nothing is written.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

/// `fchmodat2(fd, "", mode, AT_EMPTY_PATH)`: the mode of whatever an O_PATH fd names, a device node too.
/// Linux 6.6; before it ENOSYS.
///
/// # Errors
/// ENOSYS; EPERM; EROFS.
///
/// <https://man7.org/linux/man-pages/man2/fchmodat.2.html>
pub fn fchmod_path(fd: BorrowedFd<'_>, mode: Mode) -> nix::Result<()> {
    let mode: c_uint = mode.bits();
    // SAFETY: the path is a static NUL-terminated string; no memory of ours is written.
    let returned =
        unsafe { libc::syscall(libc::SYS_fchmodat2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    Errno::result(returned).map(drop)
}

/// Whether an fd is the root of a mount: `STATX_ATTR_MOUNT_ROOT`, Linux 5.8.
///
/// # Errors
/// ENOMEM.
pub fn is_mount_root(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let stat = statx(fd, libc::STATX_INO)?;
    let attribute = libc::STATX_ATTR_MOUNT_ROOT as u64;
    Ok(stat.stx_attributes & attribute != 0)
}
