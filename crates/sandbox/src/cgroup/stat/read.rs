//! The files behind the figures.

use std::collections::BTreeMap;

use super::{Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, blkio, cpuset, optional, pressure};
use crate::Result;
use crate::cgroup::dir::Dir;
use crate::error::CallContext;

/// cpuacct.stat counts in USER_HZ, which is 100 on every architecture that Linux still has.
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / 100;

/// The figures of v1; `find` gives the directory of a controller. `unified` is the cgroup2 directory of a hybrid host: it
/// has the pressure, which v1 does not know, and any controller that v1 did not take.
pub(in crate::cgroup) fn v1<'a>(find: impl Fn(&str) -> Option<&'a Dir>, unified: Option<&'a Dir>) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = find("cpuacct") {
        stats.cpu.usage = cpu_usage_v1(dir)?;
    }
    if let Some(dir) = find("cpu") {
        let stat = keyed(&optional(dir, "cpu.stat")?.unwrap_or_default());
        stats.cpu.throttling = throttling(&stat, get(&stat, "throttled_time"));
    }
    if let Some(dir) = find("cpuset") {
        stats.cpuset = cpuset::v1(dir)?;
    }
    if let Some(dir) = find("memory") {
        stats.memory = memory_v1(dir)?;
    }
    if let Some(dir) = find("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = find("blkio") {
        stats.blkio = blkio::v1(dir)?;
    }
    match (find("hugetlb"), unified) {
        (Some(dir), _) => stats.hugetlb = hugetlb_v1(dir)?,
        (None, Some(unified)) => stats.hugetlb = hugetlb_v2(unified)?,
        (None, None) => {}
    }
    if let Some(unified) = unified {
        add_pressure(&mut stats, unified)?;
    }
    Ok(stats)
}

/// The figures of v2.
pub(in crate::cgroup) fn v2(dir: &Dir) -> Result<Stats> {
    let stat = keyed(&optional(dir, "cpu.stat")?.unwrap_or_default());
    let nanoseconds = |key| get(&stat, key).saturating_mul(1000);
    let usage = CpuUsage {
        total: nanoseconds("usage_usec"),
        kernel: nanoseconds("system_usec"),
        user: nanoseconds("user_usec"),
        ..CpuUsage::default()
    };
    let mut stats = Stats {
        cpu: Cpu { usage, throttling: throttling(&stat, nanoseconds("throttled_usec")), psi: None },
        cpuset: cpuset::v2(dir)?,
        memory: memory_v2(dir)?,
        pids: pids(dir)?,
        blkio: blkio::v2(dir)?,
        hugetlb: hugetlb_v2(dir)?,
    };
    add_pressure(&mut stats, dir)?;
    Ok(stats)
}

/// Adds `cpu.pressure`, `memory.pressure` and `io.pressure`, which cgroup2 has without any controller.
fn add_pressure(stats: &mut Stats, unified: &Dir) -> Result<()> {
    stats.cpu.psi = pressure::read(unified, "cpu.pressure")?;
    stats.memory.psi = pressure::read(unified, "memory.pressure")?;
    stats.blkio.psi = pressure::read(unified, "io.pressure")?;
    Ok(())
}

fn throttling(stat: &BTreeMap<String, u64>, throttled_time: u64) -> Throttling {
    let (periods, throttled_periods) = (get(stat, "nr_periods"), get(stat, "nr_throttled"));
    Throttling { periods, throttled_periods, throttled_time }
}

fn cpu_usage_v1(dir: &Dir) -> Result<CpuUsage> {
    let stat = keyed(&optional(dir, "cpuacct.stat")?.unwrap_or_default());
    let percpu = optional(dir, "cpuacct.usage_percpu")?.unwrap_or_default();
    let (percpu_user, percpu_kernel) = parse_usage_all(&optional(dir, "cpuacct.usage_all")?.unwrap_or_default());
    Ok(CpuUsage {
        total: number(dir, "cpuacct.usage")?,
        percpu: percpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
        percpu_kernel,
        percpu_user,
        kernel: get(&stat, "system").saturating_mul(NANOSECONDS_PER_TICK),
        user: get(&stat, "user").saturating_mul(NANOSECONDS_PER_TICK),
    })
}

/// `cpu user system` and then a line per CPU: the user column and the system column.
fn parse_usage_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    let row = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<u64>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    };
    text.lines().skip(1).filter_map(row).unzip()
}

fn memory_v1(dir: &Dir) -> Result<Memory> {
    let entry = |prefix: &str| -> Result<MemoryEntry> {
        let read = |what: &str| number(dir, &format!("{prefix}.{what}"));
        Ok(MemoryEntry {
            limit: read("limit_in_bytes")?,
            usage: read("usage_in_bytes")?,
            max: read("max_usage_in_bytes")?,
            failcnt: read("failcnt")?,
        })
    };
    let raw = keyed(&optional(dir, "memory.stat")?.unwrap_or_default());
    Ok(Memory {
        cache: get(&raw, "cache"),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// v2 counts swap alone, clients expect memory and swap together: as runc does, the memory is added.
fn memory_v2(dir: &Dir) -> Result<Memory> {
    let Some(raw) = optional(dir, "memory.stat")? else { return Ok(Memory::default()) };
    let raw = keyed(&raw);
    let events = keyed(&optional(dir, "memory.events")?.unwrap_or_default());
    let usage = MemoryEntry {
        limit: number(dir, "memory.max")?,
        usage: number(dir, "memory.current")?,
        max: number(dir, "memory.peak")?,
        failcnt: get(&events, "max"),
    };
    let swap = MemoryEntry {
        limit: number(dir, "memory.swap.max")?.saturating_add(usage.limit),
        usage: number(dir, "memory.swap.current")?.saturating_add(usage.usage),
        ..MemoryEntry::default()
    };
    Ok(Memory { cache: get(&raw, "file"), usage, swap, raw, ..Memory::default() })
}

fn pids(dir: &Dir) -> Result<Pids> {
    let limit = match number(dir, "pids.max")? {
        u64::MAX => 0,
        limit => limit,
    };
    Ok(Pids { current: number(dir, "pids.current")?, limit })
}

fn hugetlb_v1(dir: &Dir) -> Result<BTreeMap<String, Hugetlb>> {
    let entry = |size: String| -> Result<_> {
        let read = |what: &str| -> Result<u64> {
            // Reservations are counted since kernel 5.7.
            match optional_number(dir, &format!("hugetlb.{size}.rsvd.{what}"))? {
                Some(reserved) => Ok(reserved),
                None => number(dir, &format!("hugetlb.{size}.{what}")),
            }
        };
        let entry =
            Hugetlb { usage: read("usage_in_bytes")?, max: read("max_usage_in_bytes")?, failcnt: read("failcnt")? };
        Ok((size, entry))
    };
    page_sizes(dir)?.into_iter().map(entry).collect()
}

fn hugetlb_v2(dir: &Dir) -> Result<BTreeMap<String, Hugetlb>> {
    let entry = |size: String| -> Result<_> {
        let events = keyed(&optional(dir, &format!("hugetlb.{size}.events"))?.unwrap_or_default());
        let usage = match optional_number(dir, &format!("hugetlb.{size}.rsvd.current"))? {
            Some(reserved) => reserved,
            None => number(dir, &format!("hugetlb.{size}.current"))?,
        };
        Ok((size, Hugetlb { usage, max: 0, failcnt: get(&events, "max") }))
    };
    page_sizes(dir)?.into_iter().map(entry).collect()
}

/// The sizes that have files here: `2MB` of `hugetlb.2MB.current`.
fn page_sizes(dir: &Dir) -> Result<Vec<String>> {
    let mut sizes: Vec<String> = std::fs::read_dir(dir.path())
        .call(|| format!("readdir({:?})", dir.path()))?
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            Some(name.to_str()?.strip_prefix("hugetlb.")?.split_once('.')?.0.to_owned())
        })
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// A file of one number; `max` is the greatest one, a file that is not there 0.
fn number(dir: &Dir, file: &str) -> Result<u64> {
    Ok(optional_number(dir, file)?.unwrap_or(0))
}

/// The same; None for a file that is not there.
fn optional_number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(optional(dir, file)?.map(|text| match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }))
}

/// Lines of a key and a number.
fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn get(map: &BTreeMap<String, u64>, key: &str) -> u64 {
    map.get(key).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::scratch::{Scratch, enter_pure_cgroup2, needs_v1, unique};

    #[test]
    fn cpu_columns_are_told_apart() {
        assert_eq!(parse_usage_all("cpu user system\n0 1 2\n1 30 40\n"), (vec![1, 30], vec![2, 40]));
        assert_eq!(parse_usage_all(""), (vec![], vec![]));
    }

    #[test]
    fn v2_files_become_v1_figures() {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
            ),
            ("memory.stat", "anon 100\nfile 50\n"),
            ("memory.current", "150\n"),
            ("memory.max", "1000\n"),
            ("memory.peak", "400\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "4096\n"),
            ("hugetlb.2MB.events", "max 6\n"),
            ("hugetlb.1GB.current", "4096\n"),
            ("hugetlb.1GB.rsvd.current", "8192\n"),
            ("cpuset.cpus.effective", "0-2,7\n"),
            ("cpuset.mems.effective", "0\n"),
            ("io.stat", "8:0 rbytes=4096\n"),
            (
                "memory.pressure",
                "some avg10=1.50 avg60=0.20 avg300=0.03 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            ),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
        let stats = v2(&Dir::new(&path)).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(
            serde_json::to_value(&stats).unwrap(),
            serde_json::json!({
                "cpu": {
                    "usage": {"total": 30_000, "kernel": 10_000, "user": 20_000},
                    "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 7_000},
                },
                "cpuset": {
                    "cpus": [0, 1, 2, 7], "mems": [0],
                    "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
                    "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                    "sched_load_balance": 0, "sched_relax_domain_level": 0,
                },
                "memory": {
                    "cache": 50,
                    "usage": {"limit": 1000, "usage": 150, "max": 400, "failcnt": 3},
                    "swap": {"limit": u64::MAX, "usage": 155, "failcnt": 0},
                    "kernel": {"limit": 0, "failcnt": 0},
                    "kernelTCP": {"limit": 0, "failcnt": 0},
                    "raw": {"anon": 100, "file": 50},
                    "psi": {
                        "some": {"avg10": 1.5, "avg60": 0.2, "avg300": 0.03, "total": 77},
                        "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 7},
                    },
                },
                "pids": {"current": 2},
                "blkio": {"ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 4096}]},
                "hugetlb": {"1GB": {"usage": 8192, "failcnt": 0}, "2MB": {"usage": 4096, "failcnt": 6}},
            })
        );
    }

    #[test]
    fn a_process_is_counted_on_v1() {
        needs_v1!();
        let scratch = Scratch::created();
        let _process = scratch.sleeper();
        let stats = scratch.0.stats().unwrap();
        assert_eq!(stats.pids.current, 1);
        assert!(stats.memory.usage.limit > 1 << 60 && stats.memory.raw.contains_key("rss"), "{stats:?}");
        assert!(!stats.cpu.usage.percpu.is_empty());
        assert_eq!(stats.cpu.usage.percpu.len(), stats.cpu.usage.percpu_user.len());
        assert!(!stats.cpuset.cpus.is_empty() && !stats.cpuset.mems.is_empty(), "{:?}", stats.cpuset);
        let unified = scratch.0.location().directories.iter().find(|directory| directory.hierarchy.is_empty());
        if unified.is_some_and(|unified| unified.path.join("cpu.pressure").exists()) {
            assert!(stats.cpu.psi.is_some() && stats.memory.psi.is_some() && stats.blkio.psi.is_some());
        }
    }

    #[test]
    fn cpu_time_is_counted_on_v2_without_any_controller() {
        enter_pure_cgroup2();
        let scratch = Scratch::created();
        let script = format!(
            "echo 0 > {}/cgroup.procs; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
            scratch.dir("").display()
        );
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let usage = scratch.0.stats().unwrap().cpu.usage;
        assert!(usage.total > 0 && usage.total >= usage.user, "{usage:?}");
    }
}
