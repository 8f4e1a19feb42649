//! sched(7): scheduling policy and CPU affinity.

use nix::unistd::Pid;

use super::check;

/// `struct sched_attr`, sched_setattr(2), with the utilization fields of Linux 5.3. An older kernel takes it as long as
/// those are zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Of this structure.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub period: u64,
    /// The lower clamp of utilization.
    pub util_min: u32,
    /// The upper clamp of utilization.
    pub util_max: u32,
}

/// `sched_setattr(pid, attr, 0)`; pid 0 is the caller. Linux 3.14.
///
/// <https://man7.org/linux/man-pages/man2/sched_setattr.2.html>
///
/// # Errors
/// `EPERM` (a real-time policy or a lower nice without CAP_SYS_NICE in the initial user namespace, or a v1 cpu cgroup
/// without real-time bandwidth), `EINVAL` (values the policy does not take, SCHED_ISO), `EBUSY` (no room for the deadline),
/// `EOPNOTSUPP` (a kernel without utilization clamping), `E2BIG`.
pub fn sched_setattr(pid: Pid, attr: &SchedAttr) -> nix::Result<()> {
    // SAFETY: `attr` is a sched_attr whose `size` field is its size, and lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), std::ptr::from_ref(attr), 0) }).map(drop)
}

/// `sched_setaffinity(pid, size, mask)`; pid 0 is the caller. CPUs that do not exist, or that the cpuset cgroup of the
/// process does not have, do not count.
///
/// <https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html>
///
/// # Errors
/// `EINVAL` when no CPU is left, `EPERM` for another user's process, `ESRCH`.
pub fn sched_setaffinity(pid: Pid, mask: &[u64]) -> nix::Result<()> {
    let (size, mask) = (size_of_val(mask), mask.as_ptr());
    // SAFETY: the kernel reads at most `size` bytes of the mask, which is that long.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size, mask) }).map(drop)
}
