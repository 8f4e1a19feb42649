//! Block devices: three sets of files on v1, `io.stat` on v2.

use super::{Blkio, BlkioEntry, optional};
use crate::Result;
use crate::cgroup::dir::Dir;

/// The figures of whoever counts: BFQ if it schedules a device, else CFQ (gone since kernel 5.0), else the throttler,
/// which knows bytes and requests alone.
pub(super) fn v1(dir: &Dir) -> Result<Blkio> {
    for scheduler in ["blkio.bfq", "blkio", "blkio.throttle"] {
        let read = |what: &str| -> Result<Vec<BlkioEntry>> {
            Ok(parse(&optional(dir, &format!("{scheduler}.{what}"))?.unwrap_or_default()))
        };
        let io_serviced_recursive = read("io_serviced_recursive")?;
        if io_serviced_recursive.is_empty() {
            continue;
        }
        return Ok(Blkio {
            io_service_bytes_recursive: read("io_service_bytes_recursive")?,
            io_serviced_recursive,
            io_queue_recursive: read("io_queued_recursive")?,
            io_service_time_recursive: read("io_service_time_recursive")?,
            io_wait_time_recursive: read("io_wait_time_recursive")?,
            io_merged_recursive: read("io_merged_recursive")?,
            io_time_recursive: read("time_recursive")?,
            sectors_recursive: read("sectors_recursive")?,
            psi: None,
        });
    }
    Ok(Blkio::default())
}

pub(super) fn v2(dir: &Dir) -> Result<Blkio> {
    Ok(parse_io_stat(&optional(dir, "io.stat")?.unwrap_or_default()))
}

/// `8:0 Read 4096`, or `8:0 4096` where requests are not told apart; the last line, `Total 4096`, has no device.
fn parse(text: &str) -> Vec<BlkioEntry> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (op, value) = match words[..] {
            [_, op, value] => (op, value),
            [_, value] => ("", value),
            _ => return None,
        };
        let (major, minor) = device(words[0])?;
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(parse).collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`. Discards have no name in v1.
fn parse_io_stat(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
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

/// `8:0`.
fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::scratch::unique;

    fn entry(major: u64, minor: u64, op: &str, value: u64) -> BlkioEntry {
        BlkioEntry { major, minor, op: op.into(), value }
    }

    #[test]
    fn block_devices_read_the_same_from_both_versions() {
        let v1 = parse("8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n");
        assert_eq!(v1, [entry(8, 0, "Read", 4096), entry(8, 0, "Write", 512), entry(8, 0, "Total", 4608)]);
        let v2 = parse_io_stat("8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=9 dios=9\n254:1 \ngarbage\n");
        assert_eq!(v2.io_service_bytes_recursive, [entry(8, 0, "Read", 4096), entry(8, 0, "Write", 512)]);
        assert_eq!(v2.io_serviced_recursive, [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2)]);
    }

    #[test]
    fn who_schedules_a_device_counts_it() {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        let write = |file: &str, text: &str| std::fs::write(path.join(file), text).unwrap();
        write("blkio.throttle.io_serviced_recursive", "8:0 Read 1\nTotal 1\n");
        write("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\nTotal 512\n");
        write("blkio.bfq.io_serviced_recursive", "Total 0\n");
        let throttled = v1(&Dir::new(&path)).unwrap();
        assert_eq!(throttled.io_service_bytes_recursive, [entry(8, 0, "Read", 512)]);
        write("blkio.bfq.io_serviced_recursive", "8:16 Read 3\nTotal 3\n");
        write("blkio.bfq.time_recursive", "8:16 9\nTotal 9\n");
        write("blkio.bfq.io_queued_recursive", "8:16 Async 2\nTotal 2\n");
        let scheduled = v1(&Dir::new(&path)).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(scheduled.io_serviced_recursive, [entry(8, 16, "Read", 3)]);
        assert_eq!(scheduled.io_time_recursive, [entry(8, 16, "", 9)]);
        assert_eq!(scheduled.io_queue_recursive, [entry(8, 16, "Async", 2)]);
        assert_eq!(
            serde_json::to_value(&scheduled).unwrap(),
            serde_json::json!({
                "ioServicedRecursive": [{"major": 8, "minor": 16, "op": "Read", "value": 3}],
                "ioQueueRecursive": [{"major": 8, "minor": 16, "op": "Async", "value": 2}],
                "ioTimeRecursive": [{"major": 8, "minor": 16, "value": 9}],
            })
        );
    }
}
