//! personality(2).

use super::check;

/// `personality(persona)`. It stays over fork and exec.
///
/// <https://man7.org/linux/man-pages/man2/personality.2.html>
///
/// # Errors
/// `EINVAL` when the kernel cannot change it; a filter's errno.
pub fn personality(persona: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe { libc::personality(persona) })).map(drop)
}
