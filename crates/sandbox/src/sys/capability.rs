//! capabilities(7): capset(2) and the bounding and ambient sets of prctl(2).

use super::check;

/// A set of capabilities, bit N for the capability with number N.
pub type Set = u64;

/// The three sets of capset(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What is in force.
    pub effective: Set,
    /// What may be put in force.
    pub permitted: Set,
    /// What survives exec of a file that says so.
    pub inheritable: Set,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words per set, Linux 2.6.26.
const VERSION_3: u32 = 0x2008_0522;

/// `capget({VERSION_3, 0}, data)`: the sets of this thread.
///
/// <https://man7.org/linux/man-pages/man2/capget.2.html>
///
/// # Errors
/// None in practice.
pub fn get() -> nix::Result<Sets> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and data have the layout and size that version 3 asks for and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// `capset({VERSION_3, 0}, data)`: replaces the sets of this thread.
///
/// # Errors
/// `EPERM` when a set grows beyond what the thread has.
pub fn set(sets: Sets) -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |set: Set, high: bool| {
        let half = if high { set >> 32 } else { set & 0xffff_ffff };
        u32::try_from(half).unwrap_or_default() // always fits: it is one half
    };
    let data = [false, true].map(|high| Data {
        effective: word(sets.effective, high),
        permitted: word(sets.permitted, high),
        inheritable: word(sets.inheritable, high),
    });
    // SAFETY: header and data have the layout and size that version 3 asks for and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// `prctl(PR_CAPBSET_DROP, capability)`.
///
/// # Errors
/// `EINVAL` for a number the kernel does not know, `EPERM` without CAP_SETPCAP.
pub fn drop_bounding(capability: u32) -> nix::Result<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }))
        .map(drop)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)`.
///
/// # Errors
/// `EINVAL` before Linux 4.3.
pub fn clear_ambient() -> nix::Result<()> {
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0)
    }))
    .map(drop)
}

/// `prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)`.
///
/// # Errors
/// `EPERM` when it is not both permitted and inheritable.
pub fn raise_ambient(capability: u32) -> nix::Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    // SAFETY: integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, raise, libc::c_ulong::from(capability), 0, 0)
    }))
    .map(drop)
}
