//! bpf(2), as far as a cgroup's device program needs it.
//!
//! <https://man7.org/linux/man-pages/man2/bpf.2.html>. Every fd that bpf(2) returns is close-on-exec from birth.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Programs of ancestors stay in force, and several may hang on one cgroup: all must allow.
const F_ALLOW_MULTI: u32 = 1 << 1;
/// Puts a program in another one's place in one step. Kernel ≥ 5.6; EINVAL before.
const F_REPLACE: u32 = 1 << 2;

/// `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, operation and source.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high ones.
    pub registers: u8,
    /// Offset of a load or a jump.
    pub offset: i16,
    /// The immediate operand.
    pub immediate: i32,
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `bpf(cmd, attr, size)`.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> nix::Result<libc::c_long> {
    // SAFETY: `attr` is a live, exclusive, fully initialised `repr(C)` prefix of `union bpf_attr`, and its exact size
    // is passed: the kernel reads and writes nothing beyond it and takes the rest of the union as zero. The pointers
    // inside point to memory that the caller of this function keeps borrowed until it returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = RawFd::try_from(fd).expect("the kernel returns fds as int");
    // SAFETY: bpf(2) has just returned this fd as a new one, nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// `bpf(BPF_PROG_LOAD, {prog_type=BPF_PROG_TYPE_CGROUP_DEVICE, insns, license="Apache-2.0"})`. Kernel ≥ 4.15.
///
/// # Errors
/// EPERM without CAP_BPF (or CAP_SYS_ADMIN before 5.8), EINVAL or EACCES from the verifier, ENOMEM or EPERM over
/// RLIMIT_MEMLOCK before 5.11.
pub fn load_device_program(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"tare_devices\0\0\0\0",
    };
    bpf(PROG_LOAD, &mut attr).map(owned)
}

/// `bpf(BPF_PROG_ATTACH, {target_fd=cgroup, attach_type=BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI})`: one more program.
///
/// # Errors
/// EPERM, or when an ancestor's program was attached without BPF_F_ALLOW_MULTI or _OVERRIDE; E2BIG over 64 programs.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    attach(cgroup, program, F_ALLOW_MULTI, 0)
}

/// The same with BPF_F_REPLACE: `program` takes the place of `old` in one step. Kernel ≥ 5.6.
///
/// # Errors
/// EINVAL on older kernels, ENOENT if `old` is not attached.
pub fn replace_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, old: BorrowedFd<'_>) -> nix::Result<()> {
    attach(cgroup, program, F_ALLOW_MULTI | F_REPLACE, number(old))
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_flags: u32, replace_bpf_fd: u32) -> nix::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        attach_flags,
        replace_bpf_fd,
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// `bpf(BPF_PROG_DETACH, {target_fd=cgroup, attach_bpf_fd=program, attach_type=BPF_CGROUP_DEVICE})`.
///
/// # Errors
/// ENOENT if it is not attached.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// `bpf(BPF_PROG_QUERY, {target_fd=cgroup, attach_type=BPF_CGROUP_DEVICE})` and `BPF_PROG_GET_FD_BY_ID` for each: the
/// device programs that hang on this very cgroup. Kernel ≥ 4.15.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_SYS_ADMIN.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> nix::Result<Vec<OwnedFd>> {
    // BPF_CGROUP_MAX_PROGS of the kernel: no cgroup holds more.
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: number(cgroup),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.prog_cnt).map_err(|_| Errno::E2BIG)?;
    let mut programs = Vec::with_capacity(count);
    for &prog_id in ids.iter().take(count) {
        let mut attr = IdAttr { prog_id, next_id: 0, open_flags: 0 };
        match bpf(PROG_GET_FD_BY_ID, &mut attr) {
            Ok(fd) => programs.push(owned(fd)),
            // Detached and freed since the query.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(programs)
}
