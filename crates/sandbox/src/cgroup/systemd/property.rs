//! What a container asks for as properties of its unit, systemd.resource-control(5).
//!
//! The values are taken from what is written to the files of the cgroup, so that there is one translation of
//! `linux.resources`: a unit that knows them keeps them over `systemctl daemon-reload` and `set-property`. What systemd has
//! no property for (burst, idle, devices' own weights and rates, hugetlb, rdma, …) is in the files alone.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxDeviceCgroup;

use super::job::Property;
use super::text;
use super::unit::{Bus, Unit};
use super::value::Value;
use crate::cgroup::device::{Allowed, Policy};
use crate::cgroup::outline::Version;
use crate::{Error, Result};

/// The prefix of annotations that are properties, as runc and crun read them.
const ANNOTATION: &str = "org.systemd.property.";

/// What every unit of ours is started with.
pub(super) fn basic(unit: &Unit, id: &str, version: Version, process: Option<u32>) -> Vec<Property> {
    let yes = |name: &str| Property::new(name, Value::Bool(true));
    let mut properties = vec![
        Property::new("Description", Value::Str(format!("tare container {id}"))),
        // No stop before the host's basic.target, no conflict with its shutdown: who runs containers orders that.
        Property::new("DefaultDependencies", Value::Bool(false)),
        // A unit that failed (out of memory) goes as one that ended: nothing has to be reset for the name to be free.
        Property::new("CollectMode", Value::str("inactive-or-failed")),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes("TasksAccounting"),
        yes(if version == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" }),
    ];
    if !unit.is_slice() {
        // The container may have cgroups of its own below, and what we write to the files is not undone.
        properties.push(yes("Delegate"));
        properties.push(Property::new("Slice", Value::str(&unit.slice)));
    }
    if let Some(process) = process {
        properties.push(Property::new("PIDs", Value::Array("u".into(), vec![Value::U32(process)])));
    }
    properties
}

/// The kernel's, in microseconds.
const DEFAULT_PERIOD: &str = "100000";

/// What the files of a cgroup say, by their names.
pub(super) type Settings = BTreeMap<String, String>;

/// The properties that `settings` amount to. A value that is not understood here may be one for the kernel (`memory.max` of
/// `1G` under `unified`): it is in the file alone then.
pub(super) fn of_settings(version: Version, settings: &Settings) -> Vec<Property> {
    let one = |(file, value): (&String, &String)| match version {
        Version::V2 => of_v2(file, value.trim()),
        Version::V1 => of_v1(file, value.trim(), settings),
    };
    settings.iter().filter_map(one).flatten().collect()
}

fn of_v2(file: &str, value: &str) -> Option<Vec<Property>> {
    let name = match file {
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, DEFAULT_PERIOD));
            return bandwidth(quota, period);
        }
        "cpuset.cpus" => return one("AllowedCPUs", bits(value)?),
        "cpuset.mems" => return one("AllowedMemoryNodes", bits(value)?),
        "io.weight" => {
            let weight = value.lines().find_map(|line| line.strip_prefix("default ").unwrap_or(line).parse().ok())?;
            return one("IOWeight", Value::U64(weight));
        }
        "cpu.weight" => "CPUWeight",
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return None,
    };
    one(name, Value::U64(limit(value)?))
}

fn of_v1(file: &str, value: &str, settings: &Settings) -> Option<Vec<Property>> {
    let name = match file {
        "cpu.cfs_quota_us" => {
            return bandwidth(value, settings.get("cpu.cfs_period_us").map_or(DEFAULT_PERIOD, |period| period.trim()));
        }
        "cpu.shares" => "CPUShares",
        "memory.limit_in_bytes" => "MemoryLimit",
        "blkio.weight" | "blkio.bfq.weight" => "BlockIOWeight",
        "pids.max" => "TasksMax",
        _ => return None,
    };
    one(name, Value::U64(limit(value)?))
}

#[expect(clippy::unnecessary_wraps, reason = "what all arms of its callers return")]
fn one(name: &str, value: Value) -> Option<Vec<Property>> {
    Some(vec![Property::new(name, value)])
}

fn bandwidth(quota: &str, period: &str) -> Option<Vec<Property>> {
    let (quota, period) = (limit(quota)?, period.parse().ok()?);
    let per_second = Property::new("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period)));
    Some(vec![per_second, Property::new("CPUQuotaPeriodUSec", Value::U64(period))])
}

/// Every file that a property is made of, on its own or with others: of `touched` ones all that are needed.
pub(super) fn companions(version: Version, touched: &str) -> &'static [&'static str] {
    match (version, touched) {
        (Version::V1, "cpu.cfs_quota_us" | "cpu.cfs_period_us") => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
        _ => &[],
    }
}

/// `max` and -1 are systemd's infinity.
fn limit(text: &str) -> Option<u64> {
    if text == "max" || text.starts_with('-') { Some(u64::MAX) } else { text.parse().ok() }
}

/// CPU time in a second, in whole steps of 10 ms, up: systemd keeps it as a percentage, and would round it down to nothing.
fn quota_per_second(quota_usec: u64, period_usec: u64) -> u64 {
    const STEP: u64 = 10_000;
    if quota_usec == u64::MAX || period_usec == 0 {
        return u64::MAX;
    }
    let per_second = u128::from(quota_usec) * 1_000_000 / u128::from(period_usec);
    u64::try_from(per_second).unwrap_or(u64::MAX - STEP).max(1).next_multiple_of(STEP)
}

/// A list of numbers as bits, the lowest in the first byte. Empty is every one.
fn bits(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    let ranges = if list.is_empty() { Vec::new() } else { tare_spec::number_list::parse(list).ok()? };
    for number in ranges.into_iter().flatten() {
        // The kernel's own limit is 8192 CPUs: what is above it refuses.
        let index = usize::try_from(number / 8).ok().filter(|index| *index < 1024)?;
        if bytes.len() <= index {
            bytes.resize(index + 1, 0);
        }
        bytes[index] |= 1 << (number % 8);
    }
    Some(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

/// The device rules. A user's systemd has no right to enforce any.
///
/// # Errors
/// A rule that is malformed.
pub(super) fn of_devices(bus: Bus, rules: &[LinuxDeviceCgroup]) -> Result<Vec<Property>> {
    if bus == Bus::User {
        return Ok(Vec::new());
    }
    let allowed = Allowed::of(&Policy::new(rules)?);
    let list = |entries: Vec<Value>| Property::new("DeviceAllow", Value::Array("(ss)".into(), entries));
    let pair = |(device, access)| Value::Tuple(vec![Value::Str(device), Value::Str(access)]);
    let policy = if allowed.strict { "strict" } else { "auto" };
    let mut properties = vec![Property::new("DevicePolicy", Value::str(policy)), list(Vec::new())];
    // An empty list empties it, any other one adds to it.
    if !allowed.devices.is_empty() {
        properties.push(list(allowed.devices.into_iter().map(pair).collect()));
    }
    Ok(properties)
}

/// The properties among the annotations: `org.systemd.property.TimeoutStopUSec: "uint64 5000000"`. A name that ends in
/// `Sec` is in seconds, as in unit files, and is sent in microseconds.
///
/// # Errors
/// A name that no property has; a value that is none.
pub(super) fn of_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let refuse = |cause: String| Error::Refused(format!("annotations[{key:?}]: {cause}"));
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(refuse("not the name of a property".into()));
        }
        let value = text::parse(text).map_err(refuse)?;
        let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|char: char| char.is_ascii_lowercase()));
        properties.push(match seconds {
            Some(stem) => {
                let value =
                    microseconds(&value).ok_or_else(|| refuse(format!("{text:?} is not a number of seconds")))?;
                Property::new(&format!("{stem}USec"), Value::U64(value))
            }
            None => Property::new(name, value),
        });
    }
    properties.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(properties)
}

fn microseconds(value: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = |seconds: u64| seconds.checked_mul(SECOND);
    match *value {
        Value::Byte(seconds) => whole(seconds.into()),
        Value::U16(seconds) => whole(seconds.into()),
        Value::U32(seconds) => whole(seconds.into()),
        Value::U64(seconds) => whole(seconds),
        Value::I16(seconds) => whole(seconds.try_into().ok()?),
        Value::I32(seconds) => whole(seconds.try_into().ok()?),
        Value::I64(seconds) => whole(seconds.try_into().ok()?),
        Value::F64(seconds) if seconds >= 0.0 => {
            let duration = std::time::Duration::try_from_secs_f64(seconds).ok()?;
            u64::try_from(duration.as_micros()).ok()
        }
        _ => None,
    }
}

/// `first`, but for what `wins` sets too.
pub(super) fn merge(mut first: Vec<Property>, wins: Vec<Property>) -> Vec<Property> {
    first.retain(|property| wins.iter().all(|other| other.name != property.name));
    first.extend(wins);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(version: Version, text: &str) -> String {
        let pairs = text.split(", ").filter_map(|pair| pair.split_once('='));
        let settings = pairs.map(|(file, value)| (file.to_owned(), value.to_owned())).collect();
        let line = |property: &Property| match &property.value {
            Value::U64(u64::MAX) => format!("{}=infinity", property.name),
            Value::U64(value) => format!("{}={value}", property.name),
            Value::Array(_, elements) => {
                let byte = |value: &Value| if let Value::Byte(byte) = value { format!("{byte:02x}") } else { panic!() };
                format!("{}={}", property.name, elements.iter().map(byte).collect::<String>())
            }
            other => panic!("{other:?}"),
        };
        of_settings(version, &settings).iter().map(line).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn files_of_cgroup2_are_properties() {
        for (files, properties) in [
            ("memory.max=1000, memory.swap.max=max", "MemoryMax=1000, MemorySwapMax=infinity"),
            ("memory.low=5, memory.high=6, memory.min=7", "MemoryHigh=6, MemoryLow=5, MemoryMin=7"),
            ("cpu.weight=59, cpu.idle=1", "CPUWeight=59"),
            ("cpu.max=50000 100000", "CPUQuotaPerSecUSec=500000, CPUQuotaPeriodUSec=100000"),
            ("cpu.max=50000", "CPUQuotaPerSecUSec=500000, CPUQuotaPeriodUSec=100000"),
            ("cpu.max=max 20000", "CPUQuotaPerSecUSec=infinity, CPUQuotaPeriodUSec=20000"),
            ("cpu.max=12345 100000", "CPUQuotaPerSecUSec=130000, CPUQuotaPeriodUSec=100000"),
            ("cpu.max=1 1000000", "CPUQuotaPerSecUSec=10000, CPUQuotaPeriodUSec=1000000"),
            ("cpuset.cpus=0-3,9, cpuset.mems=0", "AllowedCPUs=0f02, AllowedMemoryNodes=01"),
            ("pids.max=max", "TasksMax=infinity"),
            ("io.weight=default 500\n8:0 300\n", "IOWeight=500"),
            ("io.weight=8:0 300", ""),
            ("io.max=8:0 rbps=1, hugetlb.2MB.max=0", ""),
            ("memory.max=1G, cpuset.cpus=x, cpu.max=, pids.max=5", "TasksMax=5"),
        ] {
            assert_eq!(settings(Version::V2, files), properties, "{files}");
        }
    }

    #[test]
    fn files_of_cgroup_v1_are_properties() {
        for (files, properties) in [
            ("cpu.shares=512, pids.max=9", "CPUShares=512, TasksMax=9"),
            ("cpu.cfs_quota_us=25000, cpu.cfs_period_us=50000", "CPUQuotaPerSecUSec=500000, CPUQuotaPeriodUSec=50000"),
            ("cpu.cfs_quota_us=-1", "CPUQuotaPerSecUSec=infinity, CPUQuotaPeriodUSec=100000"),
            ("memory.limit_in_bytes=1000, blkio.bfq.weight=500", "BlockIOWeight=500, MemoryLimit=1000"),
        ] {
            assert_eq!(settings(Version::V1, files), properties, "{files}");
        }
    }

    #[test]
    fn annotations_are_typed_and_seconds_become_microseconds() {
        let of = |key: &str, value: &str| {
            let annotations =
                BTreeMap::from([(key.to_owned(), value.to_owned()), ("other".to_owned(), "'".to_owned())]);
            of_annotations(&annotations).map_err(|error| error.to_string())
        };
        for (name, text, sent, value) in [
            ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::U64(5)),
            ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::U64(5_000_000)),
            ("TimeoutStopSec", "0.25", "TimeoutStopUSec", Value::U64(250_000)),
            ("CollectMode", "'inactive'", "CollectMode", Value::str("inactive")),
        ] {
            assert_eq!(of(&format!("org.systemd.property.{name}"), text), Ok(vec![Property::new(sent, value)]));
        }
        for (name, text, message) in [
            ("Ab", "1", "annotations[\"org.systemd.property.Ab\"]: not the name of a property"),
            ("A;bc", "1", "annotations[\"org.systemd.property.A;bc\"]: not the name of a property"),
            (
                "TimeoutStopSec",
                "-1",
                "annotations[\"org.systemd.property.TimeoutStopSec\"]: \"-1\" is not a number of seconds",
            ),
            ("Abc", "x", "annotations[\"org.systemd.property.Abc\"]: expected a value at byte 0 of \"x\""),
        ] {
            assert_eq!(of(&format!("org.systemd.property.{name}"), text), Err(message.to_owned()));
        }
    }

    #[test]
    fn what_the_annotations_say_wins() {
        let property = |name, value| Property::new(name, Value::U64(value));
        let merged = merge(vec![property("A", 1), property("B", 2)], vec![property("A", 3)]);
        assert_eq!(merged, [property("B", 2), property("A", 3)]);
    }

    #[test]
    fn a_user_has_no_say_on_devices() {
        assert_eq!(of_devices(Bus::User, &[]).unwrap(), []);
        let system = of_devices(Bus::System, &[]).unwrap();
        assert_eq!(system[0], Property::new("DevicePolicy", Value::str("strict")));
        assert_eq!(system.len(), 3);
    }
}
