//! netdevice(7).

use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::check;

/// <linux/sockios.h>
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;

/// `ioctl(socket, SIOCSIFFLAGS, {"lo", IFF_UP})`: brings the loopback device of this network namespace up; the kernel
/// gives it 127.0.0.1 and ::1 as it rises.
///
/// <https://man7.org/linux/man-pages/man7/netdevice.7.html>
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN over the network namespace.
pub fn loopback_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING);
    request.ifr_ifru.ifru_flags = flags.map_err(|_| nix::errno::Errno::EINVAL)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives to the end of this function.
    check(libc::c_long::from(unsafe { libc::ioctl(fd, SIOCSIFFLAGS, &raw const request) })).map(drop)
}
