//! `linux.resources` as the files of cgroup v1.
//!
//! The files that every v1 hierarchy has are written by cgroups-rs' controllers. Files that a kernel may lack are
//! written here: cgroups-rs opens with O_CREAT, which cgroupfs answers for a missing file with EACCES, and "permission
//! denied" would hide what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::fmt::Display;
use std::path::PathBuf;

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::net_cls::NetClsController;
use cgroups_rs::fs::net_prio::NetPrioController;
use cgroups_rs::fs::pid::PidController;
use nix::errno::Errno;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};

use crate::cgroup::field::{asked, given, page_size, pids_max, rdma_line, swappiness};
use crate::cgroup::files::{Files, Hierarchies};
use crate::error::Context;
use crate::{Error, Result};

/// Writes what `resources` asks for; 0 and absent are "not asked".
pub(in crate::cgroup) fn apply(cgroup: &impl Hierarchies, resources: &LinuxResources) -> Result<()> {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::Refused(
            "linux.resources.unified: this host has cgroup v1, its files have other names".into(),
        ));
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(cgroup, cpu)?;
        apply_cpuset(cgroup, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        apply_memory(cgroup, memory)?;
    }
    if let Some(pids) = resources.pids() {
        const FIELD: &str = "linux.resources.pids.limit";
        let dir = cgroup.require("pids", FIELD)?;
        let limit = match pids_max(pids.limit()) {
            -1 => MaxValue::Max,
            limit => MaxValue::Value(limit),
        };
        write_by(dir, FIELD, "pids.max", limit, |path| {
            PidController::new(path, PathBuf::new(), false).set_pid_max(limit)
        })?;
    }
    if let Some(io) = resources.block_io() {
        apply_blkio(cgroup, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        apply_hugetlb(cgroup, limit)?;
    }
    if let Some(network) = resources.network() {
        apply_network(cgroup, network)?;
    }
    if let Some(rdma) = resources.rdma() {
        apply_rdma(cgroup, rdma)?;
    }
    Ok(())
}

/// Writes one file for one field by a controller of cgroups-rs, whose error becomes ours: the same file and value, the
/// errno that it keeps as its source.
fn write_by(
    dir: &impl Files,
    field: &str,
    file: &str,
    value: impl Display,
    write: impl FnOnce(PathBuf) -> cgroups_rs::fs::error::Result<()>,
) -> Result<()> {
    let value = value.to_string();
    dir.attempt_by(field, file, &value, write)
        .map_err(|error| {
            let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
            match io.and_then(std::io::Error::raw_os_error) {
                Some(errno) => Error::call(dir.write_text(file, &value), Errno::from_raw(errno)),
                None => Error::Refused(format!("{}: {error}", dir.write_text(file, &value))),
            }
        })
        .during(|| field)
}

/// Writes one file for one field.
fn set(dir: &impl Files, field: &str, file: &str, value: &str) -> Result<()> {
    match dir.attempt(field, file, value) {
        Ok(()) => Ok(()),
        Err(errno) => Err(Error::call(dir.write_text(file, value), errno)).during(|| match errno {
            Errno::ENOENT => format!("{field}: this kernel has no {file}"),
            _ => field.to_owned(),
        }),
    }
}

fn apply_cpu(cgroup: &impl Hierarchies, cpu: &LinuxCpu) -> Result<()> {
    const SHARES: &str = "linux.resources.cpu.shares";
    let idle = |wanted: bool| match cpu.idle() {
        Some(idle) if (idle != 0) == wanted => {
            const IDLE: &str = "linux.resources.cpu.idle";
            set(cgroup.require("cpu", IDLE)?, IDLE, "cpu.idle", &idle.to_string())
        }
        _ => Ok(()),
    };
    // Before anything else: a process that is moved in takes part at once.
    apply_realtime(cgroup, cpu)?;
    // An idle group refuses shares (EINVAL): the switch goes off before and on after them.
    idle(false)?;
    if let Some(shares) = asked(cpu.shares()) {
        // The kernel would clamp without a word (MIN_SHARES, MAX_SHARES).
        match shares {
            2..=262_144 => {}
            ..2 => return Err(Error::Refused(format!("{SHARES}: the minimum allowed cpu-shares is 2"))),
            _ => return Err(Error::Refused(format!("{SHARES}: the maximum allowed cpu-shares is 262144"))),
        }
        let dir = cgroup.require("cpu", SHARES)?;
        write_by(dir, SHARES, "cpu.shares", shares, |path| controller(path).set_shares(shares))?;
    }
    idle(true)?;
    apply_bandwidth(cgroup, cpu)
}

/// After each write the kernel wants the runtime within the period and the parent's share: the period that it refuses at
/// first (EINVAL) is tried again once the runtime is in place.
fn apply_realtime(cgroup: &impl Hierarchies, cpu: &LinuxCpu) -> Result<()> {
    const PERIOD: &str = "linux.resources.cpu.realtimePeriod";
    const RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
    const PERIOD_FILE: &str = "cpu.rt_period_us";
    let runtime = asked(cpu.realtime_runtime()).map(|usec| usec.to_string());
    let mut pending = asked(cpu.realtime_period()).map(|usec| usec.to_string());
    if let Some(period) = &pending {
        let dir = cgroup.require("cpu", PERIOD)?;
        match dir.attempt(PERIOD, PERIOD_FILE, period) {
            Ok(()) => pending = None,
            Err(Errno::EINVAL) if runtime.is_some() => {}
            Err(_) => return set(dir, PERIOD, PERIOD_FILE, period),
        }
    }
    if let Some(runtime) = runtime {
        set(cgroup.require("cpu", RUNTIME)?, RUNTIME, "cpu.rt_runtime_us", &runtime)?;
    }
    match pending {
        Some(period) => set(cgroup.require("cpu", PERIOD)?, PERIOD, PERIOD_FILE, &period),
        None => Ok(()),
    }
}

fn controller(path: PathBuf) -> CpuController {
    CpuController::new(path, PathBuf::new(), false)
}

/// Quota, period and burst are three files, and after each write the kernel wants quota/period within the parent's and
/// burst within the quota: what it refuses at first (EINVAL) is tried again once the quota is in place.
fn apply_bandwidth(cgroup: &impl Hierarchies, cpu: &LinuxCpu) -> Result<()> {
    const QUOTA: &str = "linux.resources.cpu.quota";
    const PERIOD: &str = "linux.resources.cpu.period";
    const BURST: &str = "linux.resources.cpu.burst";
    let (mut period, quota) = (asked(cpu.period()), asked(cpu.quota()));
    // Zero is a burst like any other: it takes one away.
    let mut burst = cpu.burst().map(|burst| burst.to_string());
    if period.is_none() && quota.is_none() && burst.is_none() {
        return Ok(());
    }
    let dir = cgroup.require("cpu", if quota.is_some() { QUOTA } else { PERIOD })?;
    let set_period = |us| write_by(dir, PERIOD, "cpu.cfs_period_us", us, |path| controller(path).set_cfs_period(us));
    if let Some(us) = period {
        match set_period(us) {
            Ok(()) => period = None,
            Err(error) if error.errno() == Some(Errno::EINVAL) && quota.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(value) = burst.take_if(|_| quota.is_none()) {
        set(dir, BURST, "cpu.cfs_burst_us", &value)?;
    } else if let Some(value) = &burst {
        match dir.attempt(BURST, "cpu.cfs_burst_us", value) {
            Ok(()) => burst = None,
            Err(Errno::EINVAL) => {}
            Err(_) => return set(dir, BURST, "cpu.cfs_burst_us", value),
        }
    }
    if let Some(us) = quota {
        write_by(dir, QUOTA, "cpu.cfs_quota_us", us, |path| controller(path).set_cfs_quota(us))?;
    }
    if let Some(us) = period {
        set_period(us)?;
    }
    burst.map_or(Ok(()), |value| set(dir, BURST, "cpu.cfs_burst_us", &value))
}

fn apply_cpuset(cgroup: &impl Hierarchies, cpu: &LinuxCpu) -> Result<()> {
    const CPUS: &str = "linux.resources.cpu.cpus";
    const MEMS: &str = "linux.resources.cpu.mems";
    if let Some(cpus) = given(cpu.cpus().as_deref()) {
        let dir = cgroup.require("cpuset", CPUS)?;
        write_by(dir, CPUS, "cpuset.cpus", cpus, |path| {
            CpuSetController::new(path, PathBuf::new(), false).set_cpus(cpus)
        })?;
    }
    if let Some(mems) = given(cpu.mems().as_deref()) {
        let dir = cgroup.require("cpuset", MEMS)?;
        write_by(dir, MEMS, "cpuset.mems", mems, |path| {
            CpuSetController::new(path, PathBuf::new(), false).set_mems(mems)
        })?;
    }
    Ok(())
}

fn apply_memory(cgroup: &impl Hierarchies, memory: &LinuxMemory) -> Result<()> {
    const RESERVATION: &str = "linux.resources.memory.reservation";
    const SWAPPINESS: &str = "linux.resources.memory.swappiness";
    const OOM: &str = "linux.resources.memory.disableOOMKiller";
    let controller = |path: PathBuf| MemController::new(path, PathBuf::new(), false);
    apply_hierarchy(cgroup, memory)?;
    apply_memory_limits(cgroup, asked(memory.limit()), asked(memory.swap()))?;
    if let Some(bytes) = asked(memory.reservation()) {
        let dir = cgroup.require("memory", RESERVATION)?;
        write_by(dir, RESERVATION, "memory.soft_limit_in_bytes", bytes, |path| controller(path).set_soft_limit(bytes))?;
    }
    // Zero is a swappiness like any other.
    if let Some(swappiness) = swappiness(memory) {
        if swappiness > 100 {
            return Err(Error::Refused(format!("{SWAPPINESS}: {swappiness} is not in 0..=100")));
        }
        let dir = cgroup.require("memory", SWAPPINESS)?;
        write_by(dir, SWAPPINESS, "memory.swappiness", swappiness, |path| controller(path).set_swappiness(swappiness))?;
    }
    match memory.disable_oom_killer() {
        Some(true) => set(cgroup.require("memory", OOM)?, OOM, "memory.oom_control", "1")?,
        // Worth a write too: the parent's switch is inherited. A kernel without it has it off.
        Some(false) => match cgroup.of("memory").map(|dir| (dir, dir.attempt(OOM, "memory.oom_control", "0"))) {
            None | Some((_, Ok(()) | Err(Errno::ENOENT))) => {}
            Some((dir, Err(_))) => set(dir, OOM, "memory.oom_control", "0")?,
        },
        None => {}
    }
    Ok(())
}

/// `memory.use_hierarchy`: since Linux 5.11 it is always on, and cannot be turned off.
fn apply_hierarchy(cgroup: &impl Hierarchies, memory: &LinuxMemory) -> Result<()> {
    const FIELD: &str = "linux.resources.memory.useHierarchy";
    const FILE: &str = "memory.use_hierarchy";
    let Some(wanted) = memory.use_hierarchy() else { return Ok(()) };
    let dir = cgroup.require("memory", FIELD)?;
    match (dir.attempt(FIELD, FILE, if wanted { "1" } else { "0" }), wanted) {
        (Ok(()), _) | (Err(Errno::ENOENT), true) => Ok(()),
        (Err(Errno::EINVAL | Errno::ENOENT), false) => {
            tracing::warn!("{FIELD} is ignored: this kernel always counts memory in the hierarchy");
            Ok(())
        }
        (Err(_), _) => set(dir, FIELD, FILE, if wanted { "1" } else { "0" }),
    }
}

/// memory.memsw.limit_in_bytes may never be below memory.limit_in_bytes. Lowering wants the limit first, raising memsw
/// first; which one it is the kernel says without being read: a limit above memsw is EINVAL.
fn apply_memory_limits(cgroup: &impl Hierarchies, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    const LIMIT: &str = "linux.resources.memory.limit";
    const SWAP: &str = "linux.resources.memory.swap";
    const SWAP_FILE: &str = "memory.memsw.limit_in_bytes";
    let Some(dir) =
        limit.map(|_| LIMIT).or(swap.map(|_| SWAP)).map(|field| cgroup.require("memory", field)).transpose()?
    else {
        return Ok(());
    };
    let set_limit = |bytes| {
        write_by(dir, LIMIT, "memory.limit_in_bytes", bytes, |path| {
            MemController::new(path, PathBuf::new(), false).set_limit(bytes)
        })
        .map_err(|error| in_use(error, dir))
    };
    let set_swap = |bytes: i64| set(dir, SWAP, SWAP_FILE, &bytes.to_string());
    match (limit, swap) {
        (None, None) => Ok(()),
        (None, Some(swap)) => set_swap(swap),
        (Some(-1), None) => {
            // An unlimited memory under a limited sum is refused: unlimited means both.
            match dir.attempt(SWAP, SWAP_FILE, "-1") {
                // No swap accounting (swapaccount=0).
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(_) => set_swap(-1)?,
            }
            set_limit(-1)
        }
        (Some(limit), None) => set_limit(limit),
        (Some(limit), Some(swap)) => match set_limit(limit) {
            Ok(()) => set_swap(swap),
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                set_swap(swap)?;
                set_limit(limit)
            }
            Err(error) => Err(error),
        },
    }
}

/// EBUSY says that the kernel could not reclaim down to the limit: adds how much is in use.
fn in_use(error: Error, dir: &impl Files) -> Error {
    match (error.errno(), dir.peek("memory.usage_in_bytes")) {
        (Some(Errno::EBUSY), Ok(usage)) => {
            Error::During { purpose: format!("{} bytes are in use", usage.trim()), source: Box::new(error) }
        }
        _ => error,
    }
}

fn apply_blkio(cgroup: &impl Hierarchies, io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = asked(io.weight()) {
        set_weight(cgroup, "linux.resources.blockIO.weight", "weight", &weight.to_string())?;
    }
    if let Some(weight) = asked(io.leaf_weight()) {
        set_weight(cgroup, "linux.resources.blockIO.leafWeight", "leaf_weight", &weight.to_string())?;
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        for (file, weight) in [("weight_device", device.weight()), ("leaf_weight_device", device.leaf_weight())] {
            if let Some(weight) = asked(weight) {
                set_weight(cgroup, "linux.resources.blockIO.weightDevice", file, &format!("{name} {weight}"))?;
            }
        }
    }
    type Throttle = fn(&BlkIoController, u64, u64, u64) -> cgroups_rs::fs::error::Result<()>;
    let throttles: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>, Throttle); 4] = [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
            BlkIoController::throttle_read_bps_for_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
            BlkIoController::throttle_write_bps_for_device,
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
            BlkIoController::throttle_read_iops_for_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
            BlkIoController::throttle_write_iops_for_device,
        ),
    ];
    for (field, file, devices, throttle) in throttles {
        for device in devices.iter().flatten() {
            let dir = cgroup.require("blkio", field)?;
            let number = |number: i64| {
                u64::try_from(number).map_err(|_| Error::Refused(format!("{field}: {number} is not a device number")))
            };
            let (major, minor, rate) = (number(device.major())?, number(device.minor())?, device.rate());
            write_by(dir, field, file, format!("{major}:{minor} {rate}"), |path| {
                throttle(&BlkIoController::new(path, PathBuf::new(), false), major, minor, rate)
            })?;
        }
    }
    Ok(())
}

/// CFQ's files (gone in 5.0) or BFQ's: same names with a prefix of its own.
fn set_weight(cgroup: &impl Hierarchies, field: &str, file: &str, value: &str) -> Result<()> {
    let dir = cgroup.require("blkio", field)?;
    match dir.attempt(field, &format!("blkio.{file}"), value) {
        Err(Errno::ENOENT) => set(dir, field, &format!("blkio.bfq.{file}"), value),
        Err(_) => set(dir, field, &format!("blkio.{file}"), value),
        Ok(()) => Ok(()),
    }
}

fn apply_hugetlb(cgroup: &impl Hierarchies, limit: &LinuxHugepageLimit) -> Result<()> {
    const FIELD: &str = "linux.resources.hugepageLimits";
    let size = page_size(limit)?;
    let dir = cgroup.require("hugetlb", FIELD)?;
    let value = limit.limit().to_string();
    set(dir, FIELD, &format!("hugetlb.{size}.limit_in_bytes"), &value)?;
    // Reserved, not yet faulted pages: kernel ≥ 5.7.
    let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
    match dir.attempt(FIELD, &reserved, &value) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(_) => set(dir, FIELD, &reserved, &value),
    }
}

fn apply_network(cgroup: &impl Hierarchies, network: &LinuxNetwork) -> Result<()> {
    const CLASS: &str = "linux.resources.network.classID";
    const PRIORITIES: &str = "linux.resources.network.priorities";
    if let Some(class) = asked(network.class_id()) {
        let dir = cgroup.require("net_cls", CLASS)?;
        write_by(dir, CLASS, "net_cls.classid", class, |path| {
            NetClsController::new(path, PathBuf::new()).set_class(class.into())
        })?;
    }
    for priority in network.priorities().iter().flatten() {
        let dir = cgroup.require("net_prio", PRIORITIES)?;
        let (name, value) = (priority.name().as_str(), priority.priority());
        write_by(dir, PRIORITIES, "net_prio.ifpriomap", format!("{name} {value}"), |path| {
            NetPrioController::new(path, PathBuf::new()).set_if_prio(name, value.into())
        })?;
    }
    Ok(())
}

fn apply_rdma(cgroup: &impl Hierarchies, rdma: &HashMap<String, LinuxRdma>) -> Result<()> {
    let sorted: BTreeMap<_, _> = rdma.iter().collect();
    for (device, limit) in sorted {
        if let Some(line) = rdma_line(device, *limit) {
            let field = format!("linux.resources.rdma[{device:?}]");
            set(cgroup.require("rdma", &field)?, &field, "rdma.max", &line)?;
        }
    }
    Ok(())
}
