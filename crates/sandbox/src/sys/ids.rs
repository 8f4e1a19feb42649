//! setgroups(2), setresgid(2), setresuid(2) as the kernel knows them: of the calling thread.
//!
//! The C library's functions of these names change all threads of a process, for which they block signals and take locks; those who call
//! these here have one thread.

use nix::unistd::{Gid, Uid};

use super::check;

/// `setgroups(count, gids)`: the supplementary groups.
///
/// <https://man7.org/linux/man-pages/man2/setgroups.2.html>
///
/// # Errors
/// `EINVAL` (too many, or not mapped in this user namespace), `EPERM` (no CAP_SETGID over it, or denied in it).
pub fn setgroups(gids: &[Gid]) -> nix::Result<()> {
    let gids: Vec<libc::gid_t> = gids.iter().map(|gid| gid.as_raw()).collect();
    // SAFETY: pointer and count are of one slice, which the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) }).map(drop)
}

/// `setresgid(gid, gid, gid)`: the real, effective and saved group, and that of the file system.
///
/// <https://man7.org/linux/man-pages/man2/setresgid.2.html>
///
/// # Errors
/// `EINVAL` (not mapped in this user namespace), `EPERM` (no CAP_SETGID over it).
pub fn setresgid(gid: Gid) -> nix::Result<()> {
    let gid = gid.as_raw();
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// `setresuid(uid, uid, uid)`: the real, effective and saved user, and that of the file system.
///
/// <https://man7.org/linux/man-pages/man2/setresuid.2.html>
///
/// # Errors
/// `EAGAIN` (too many processes of this user), `EINVAL` (not mapped in this user namespace), `EPERM` (no CAP_SETUID over it).
pub fn setresuid(uid: Uid) -> nix::Result<()> {
    let uid = uid.as_raw();
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}
