//! setdomainname(2).

use super::check;

/// `setdomainname(name, length)`: the NIS domain name of this UTS namespace.
///
/// <https://man7.org/linux/man-pages/man2/setdomainname.2.html>
///
/// # Errors
/// `EINVAL` above 64 bytes, `EPERM` without CAP_SYS_ADMIN over the namespace.
pub fn setdomainname(name: &[u8]) -> nix::Result<()> {
    // SAFETY: pointer and length are of one slice, which the kernel only reads.
    check(libc::c_long::from(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })).map(drop)
}
