//! set_mempolicy(2).

use super::check;

/// `set_mempolicy(mode, nodes, maxnode)`. It stays over fork and exec. An empty mask is a null pointer.
///
/// <https://man7.org/linux/man-pages/man2/set_mempolicy.2.html>
///
/// # Errors
/// `EINVAL` (a mode or flag the kernel does not know, nodes the mode does not take, no node that exists and that the cpuset
/// cgroup allows), `ENOSYS` (a kernel without NUMA).
pub fn set_mempolicy(mode: libc::c_int, nodes: &[u64]) -> nix::Result<()> {
    // The kernel takes one bit less than it is told.
    let (mask, maxnode) = match nodes {
        [] => (std::ptr::null(), 0),
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: the kernel reads `maxnode - 1` bits of the mask, rounded up to whole longs: as many as there are.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, maxnode) }).map(drop)
}
