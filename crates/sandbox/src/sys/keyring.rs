//! keyctl(2).

use std::ffi::CStr;

use super::check;

/// `_KEY_POS_*`/`KEY_USR_SEARCH`: the owner's processes may search the keyring.
const KEY_USR_SEARCH: u32 = 0x0008_0000;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_DESCRIBE: libc::c_int = 6;
const KEYCTL_SETPERM: libc::c_int = 5;

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, name)`: gives the process a session keyring of its own, and lets its owner
/// search it so that processes of the container's other users find their keys (runc's rule).
///
/// <https://man7.org/linux/man-pages/man2/keyctl.2.html>
///
/// # Errors
/// `ENOSYS` (kernel without keyrings), `EDQUOT` (too many keys), `EPERM`.
pub fn join_session_keyring(name: &CStr) -> nix::Result<()> {
    // SAFETY: `name` is a C string that outlives the call.
    let mut ring = check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    if ring == 0 {
        // The caller's own is called so: the runtime is in a container of the same name. One without a name is another.
        let no_name: *const libc::c_char = std::ptr::null();
        // SAFETY: a null name asks for a new keyring without one.
        ring = check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) })?;
    }
    let mut text = [0_u8; 512];
    // SAFETY: the buffer is valid for its length, which the kernel does not exceed.
    let length =
        check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, ring, text.as_mut_ptr(), text.len()) })?;
    let length = usize::try_from(length).unwrap_or_default().min(text.len());
    // "type;uid;gid;perm;description"
    let permissions = text[..length]
        .split(|byte| *byte == b';')
        .nth(3)
        .and_then(|field| std::str::from_utf8(field).ok())
        .and_then(|field| u32::from_str_radix(field, 16).ok())
        .ok_or(nix::errno::Errno::EINVAL)?;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, ring, permissions | KEY_USR_SEARCH) }).map(drop)
}
