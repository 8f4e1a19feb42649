//! The files behind the figures.

use std::collections::BTreeMap;

use super::{Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, optional};
use crate::Result;
use crate::cgroup::dir::Dir;
use crate::error::CallContext;

/// cpuacct.stat counts in USER_HZ, which is 100 on every architecture that Linux still has.
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / 100;

/// The figures of v1; `find` gives the directory of a controller.
pub(in crate::cgroup) fn v1<'a>(find: impl Fn(&str) -> Option<&'a Dir>) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = find("cpuacct") {
        stats.cpu.usage = cpu_usage_v1(dir)?;
    }
    if let Some(dir) = find("cpu") {
        let stat = keyed(&optional(dir, "cpu.stat")?.unwrap_or_default());
        stats.cpu.throttling = throttling(&stat, get(&stat, "throttled_time"));
    }
    if let Some(dir) = find("memory") {
        stats.memory = memory_v1(dir)?;
    }
    if let Some(dir) = find("pids") {
        stats.pids = pids(dir)?;
    }
    if let Some(dir) = find("blkio") {
        stats.blkio = blkio_v1(dir)?;
    }
    if let Some(dir) = find("hugetlb") {
        for size in page_sizes(dir)? {
            let read = |what: &str| number(dir, &format!("hugetlb.{size}.{what}"));
            let entry =
                Hugetlb { usage: read("usage_in_bytes")?, max: read("max_usage_in_bytes")?, failcnt: read("failcnt")? };
            stats.hugetlb.insert(size, entry);
        }
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
    let cpu = Cpu { usage, throttling: throttling(&stat, nanoseconds("throttled_usec")) };
    let blkio = parse_io_stat(&optional(dir, "io.stat")?.unwrap_or_default());
    let mut hugetlb = BTreeMap::new();
    for size in page_sizes(dir)? {
        let events = keyed(&optional(dir, &format!("hugetlb.{size}.events"))?.unwrap_or_default());
        let usage = number(dir, &format!("hugetlb.{size}.current"))?;
        hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt: get(&events, "max") });
    }
    Ok(Stats { cpu, memory: memory_v2(dir)?, pids: pids(dir)?, blkio, hugetlb })
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

/// BFQ counts if it schedules a device, else CFQ's successor files stay empty and the throttler counts.
fn blkio_v1(dir: &Dir) -> Result<Blkio> {
    for scheduler in ["blkio.bfq", "blkio", "blkio.throttle"] {
        let read = |what: &str| -> Result<Vec<BlkioEntry>> {
            Ok(parse_blkio(&optional(dir, &format!("{scheduler}.{what}"))?.unwrap_or_default()))
        };
        let io_serviced_recursive = read("io_serviced_recursive")?;
        if !io_serviced_recursive.is_empty() {
            return Ok(Blkio {
                io_service_bytes_recursive: read("io_service_bytes_recursive")?,
                io_serviced_recursive,
            });
        }
    }
    Ok(Blkio::default())
}

/// `8:0 Read 4096`; the last line, `Total 4096`, has no device.
fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let op = words.next()?.to_owned();
        let value = words.next()?.parse().ok()?;
        Some(BlkioEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, op, value })
    };
    text.lines().filter_map(parse).collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`. Discards have no name in v1.
fn parse_io_stat(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((Ok(major), Ok(minor))) =
            words.next().and_then(|name| name.split_once(':')).map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    blkio
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
    Ok(optional(dir, file)?.map_or(0, |text| match text.trim() {
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
    use crate::cgroup::scratch::{Scratch, enter_pure_cgroup2, host_has_v1, unique};

    fn entry(major: u64, minor: u64, op: &str, value: u64) -> BlkioEntry {
        BlkioEntry { major, minor, op: op.into(), value }
    }

    #[test]
    fn block_devices_read_the_same_from_both_versions() {
        let v1 = parse_blkio("8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n");
        assert_eq!(v1, [entry(8, 0, "Read", 4096), entry(8, 0, "Write", 512), entry(8, 0, "Total", 4608)]);
        let v2 = parse_io_stat("8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=9 dios=9\n254:1 \ngarbage\n");
        assert_eq!(v2.io_service_bytes_recursive, [entry(8, 0, "Read", 4096), entry(8, 0, "Write", 512)]);
        assert_eq!(v2.io_serviced_recursive, [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2)]);
    }

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
                "memory": {
                    "cache": 50,
                    "usage": {"limit": 1000, "usage": 150, "max": 400, "failcnt": 3},
                    "swap": {"limit": u64::MAX, "usage": 155, "failcnt": 0},
                    "kernel": {"limit": 0, "failcnt": 0},
                    "kernelTCP": {"limit": 0, "failcnt": 0},
                    "raw": {"anon": 100, "file": 50},
                },
                "pids": {"current": 2},
                "blkio": {},
                "hugetlb": {"2MB": {"usage": 4096, "failcnt": 6}},
            })
        );
    }

    #[test]
    fn a_process_is_counted_on_v1() {
        if !host_has_v1() {
            return;
        }
        let scratch = Scratch::created();
        let _process = scratch.sleeper();
        let stats = scratch.0.stats().unwrap();
        assert_eq!(stats.pids.current, 1);
        assert!(stats.memory.usage.limit > 1 << 60 && stats.memory.raw.contains_key("rss"), "{stats:?}");
        assert!(!stats.cpu.usage.percpu.is_empty());
        assert_eq!(stats.cpu.usage.percpu.len(), stats.cpu.usage.percpu_user.len());
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
