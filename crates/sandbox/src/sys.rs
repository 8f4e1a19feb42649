//! The only module tree with `unsafe`: one small file per man-page family.
//!
//! What nix offers safely is called from where it is needed; here is what it lacks.
#![allow(unsafe_code)]

pub mod bpf;
pub mod capability;
pub mod clone;
pub mod exe;
pub mod exec;
pub mod fd;
pub mod heap;
pub mod ids;
pub mod ioprio;
pub mod keyring;
pub mod mempolicy;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod path;
pub mod personality;
pub mod pidfd;
pub mod regex;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod start;
pub mod thread;
pub mod tty;
pub mod uts;

use nix::errno::Errno;

/// Turns the return value of a raw system call into a result: -1 means errno.
pub(crate) fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}
