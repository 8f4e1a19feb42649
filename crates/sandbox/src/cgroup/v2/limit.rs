//! `linux.resources` as the files of cgroup v2: Documentation/admin-guide/cgroup-v2.rst.

use std::collections::{BTreeMap, HashMap};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxRdma, LinuxResources, LinuxThrottleDevice};

use super::memory;
use crate::cgroup::convert::{io_weight_of_blkio_weight, max_or, weight_of_shares};
use crate::cgroup::field::{asked, given, page_size, rdma_line};
use crate::cgroup::files::{Files, Occupancy};
use crate::error::Context;
use crate::{Error, Result};

/// Writes what `resources` asks for; 0 and absent are "not asked", what v2 has nothing for is
/// [ignored](crate::cgroup::field::ignored). `unified` comes last and wins.
pub(in crate::cgroup) fn apply(dir: &impl Files, resources: &LinuxResources, occupancy: Occupancy) -> Result<()> {
    if let Some(cpu) = resources.cpu() {
        apply_cpu(dir, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        memory::apply(dir, memory, occupancy)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = crate::cgroup::field::pids_max(pids.limit());
        set(dir, "linux.resources.pids.limit", "pids.max", &max_or(limit))?;
    }
    if let Some(io) = resources.block_io() {
        apply_io(dir, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        apply_hugetlb(dir, limit)?;
    }
    if let Some(rdma) = resources.rdma() {
        apply_rdma(dir, rdma)?;
    }
    if let Some(unified) = resources.unified() {
        apply_unified(dir, unified)?;
    }
    Ok(())
}

/// Writes one file for one field.
pub(super) fn set(dir: &impl Files, field: &str, file: &str, value: &str) -> Result<()> {
    match dir.attempt(field, file, value) {
        Ok(()) => Ok(()),
        Err(errno) => Err(Error::call(dir.write_text(file, value), errno)).during(|| match errno {
            Errno::ENOENT => format!("{field}: controller {:?} is not available", controller(file)),
            _ => field.to_owned(),
        }),
    }
}

/// `memory` of `memory.max`.
fn controller(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

fn apply_cpu(dir: &impl Files, cpu: &LinuxCpu) -> Result<()> {
    // An idle group refuses a weight (EINVAL): the switch goes off before and on after it.
    let idle = |wanted: bool| match cpu.idle() {
        Some(idle) if (idle != 0) == wanted => set(dir, "linux.resources.cpu.idle", "cpu.idle", &idle.to_string()),
        _ => Ok(()),
    };
    idle(false)?;
    if let Some(shares) = asked(cpu.shares()) {
        set(dir, "linux.resources.cpu.shares", "cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    idle(true)?;
    apply_bandwidth(dir, cpu)?;
    for (field, file, value) in [
        ("linux.resources.cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("linux.resources.cpu.mems", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(value) = given(value.as_deref()) {
            set(dir, field, file, value)?;
        }
    }
    Ok(())
}

/// `cpu.max` is `quota period` in one; a number alone changes the quota and keeps the period. The burst may not be above
/// the quota: whichever order is refused (EINVAL), the other one is right.
fn apply_bandwidth(dir: &impl Files, cpu: &LinuxCpu) -> Result<()> {
    const BURST: (&str, &str) = ("linux.resources.cpu.burst", "cpu.max.burst");
    let (quota, period) = (asked(cpu.quota()), asked(cpu.period()));
    // Zero is a burst like any other: it takes one away.
    let burst = cpu.burst().map(|burst| burst.to_string());
    let mut pending = burst.as_deref();
    if let Some(value) = pending {
        match dir.attempt(BURST.0, BURST.1, value) {
            Ok(()) => pending = None,
            Err(Errno::EINVAL) if quota.is_some() => {}
            Err(_) => return set(dir, BURST.0, BURST.1, value),
        }
    }
    match (quota, period) {
        (None, None) => {}
        (Some(quota), None) => set(dir, "linux.resources.cpu.quota", "cpu.max", &max_or(quota))?,
        (Some(quota), Some(period)) => {
            set(dir, "linux.resources.cpu.quota", "cpu.max", &format!("{} {period}", max_or(quota)))?;
        }
        (None, Some(period)) => {
            const FIELD: &str = "linux.resources.cpu.period";
            let current = dir.look("cpu.max").during(|| FIELD)?;
            let quota = current.split_whitespace().next().unwrap_or("max");
            set(dir, FIELD, "cpu.max", &format!("{quota} {period}"))?;
        }
    }
    pending.map_or(Ok(()), |value| set(dir, BURST.0, BURST.1, value))
}

fn apply_io(dir: &impl Files, io: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = asked(io.weight()) {
        set_weight(dir, "linux.resources.blockIO.weight", "", weight)?;
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = asked(device.weight()) {
            let name = format!("{}:{} ", device.major(), device.minor());
            set_weight(dir, "linux.resources.blockIO.weightDevice", &name, weight)?;
        }
    }
    let throttles: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("linux.resources.blockIO.throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("linux.resources.blockIO.throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("linux.resources.blockIO.throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("linux.resources.blockIO.throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ];
    for (field, key, devices) in throttles {
        for device in devices.iter().flatten() {
            // 0 takes a throttle away on v1; here that is `max`.
            let rate = asked(Some(device.rate())).map_or("max".to_owned(), |rate| rate.to_string());
            set(dir, field, "io.max", &format!("{}:{} {key}={rate}", device.major(), device.minor()))?;
        }
    }
    Ok(())
}

/// BFQ has the scale of v1 in a file of its own; `io.weight` (iocost) has another one.
fn set_weight(dir: &impl Files, field: &str, device: &str, weight: u16) -> Result<()> {
    match dir.attempt(field, "io.bfq.weight", &format!("{device}{weight}")) {
        Err(Errno::ENOENT) => set(dir, field, "io.weight", &format!("{device}{}", io_weight_of_blkio_weight(weight))),
        Err(_) => set(dir, field, "io.bfq.weight", &format!("{device}{weight}")),
        Ok(()) => Ok(()),
    }
}

fn apply_hugetlb(dir: &impl Files, limit: &LinuxHugepageLimit) -> Result<()> {
    const FIELD: &str = "linux.resources.hugepageLimits";
    let size = page_size(limit)?;
    let value = max_or(limit.limit());
    set(dir, FIELD, &format!("hugetlb.{size}.max"), &value)?;
    // Reserved, not yet faulted pages: kernel ≥ 5.7.
    match dir.attempt(FIELD, &format!("hugetlb.{size}.rsvd.max"), &value) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(_) => set(dir, FIELD, &format!("hugetlb.{size}.rsvd.max"), &value),
    }
}

fn apply_rdma(dir: &impl Files, rdma: &HashMap<String, LinuxRdma>) -> Result<()> {
    let sorted: BTreeMap<_, _> = rdma.iter().collect();
    for (device, limit) in sorted {
        if let Some(line) = rdma_line(device, *limit) {
            set(dir, &format!("linux.resources.rdma[{device:?}]"), "rdma.max", &line)?;
        }
    }
    Ok(())
}

/// Files by their own names. In order of their names, so that a failure is the same one every time; a value of several
/// lines goes line by line, as the kernel takes `io.max` and its like.
fn apply_unified(dir: &impl Files, unified: &HashMap<String, String>) -> Result<()> {
    let sorted: BTreeMap<_, _> = unified.iter().collect();
    for (file, value) in sorted {
        let field = format!("linux.resources.unified[{file:?}]");
        if file.contains('/') || file.is_empty() || file == "." || file == ".." {
            return Err(Error::Refused(format!("{field}: not the name of a file in the cgroup's directory")));
        }
        for line in value.lines() {
            set(dir, &field, file, line)?;
        }
    }
    Ok(())
}
