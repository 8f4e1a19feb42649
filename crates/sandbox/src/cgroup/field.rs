//! What the fields of `linux.resources` mean, on either version.

use oci_spec::runtime::{LinuxHugepageLimit, LinuxMemory, LinuxRdma, LinuxResources};

use super::outline::Version;
use crate::{Error, Result};

/// A number that asks for something: runc's and so everybody's 0 is "unset".
pub(super) fn asked<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// A text that asks for something.
pub(super) fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

/// `pids.limit`: below 0 is unlimited. 0 is a limit like any other (runc ≥ 1.4), but `pids.max` 0 would keep even init
/// from being made: 1, the process that is there.
pub(super) fn pids_max(limit: i64) -> i64 {
    if limit == 0 { 1 } else { limit.max(-1) }
}

/// The page size of a file name, `2MB`: the name of a file is made from it.
pub(super) fn page_size(limit: &LinuxHugepageLimit) -> Result<&str> {
    let size = limit.page_size().as_str();
    if !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(size);
    }
    Err(Error::Refused(format!("linux.resources.hugepageLimits: {size:?} is not a page size")))
}

/// One line for `rdma.max`: the same file on both versions. None if it limits nothing.
pub(super) fn rdma_line(device: &str, limit: LinuxRdma) -> Option<String> {
    let mut line = device.to_owned();
    for (key, value) in [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    (line.len() > device.len()).then_some(line)
}

/// `memory.swappiness`: −1 as a client in Go writes it into an unsigned field, which runc takes as unset.
pub(super) fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|swappiness| *swappiness != u64::MAX)
}

/// The fields of `resources` that are asked for and that `version` has nothing for. They are ignored, as runc ignores
/// them, since the same configurations run on either version; but not without a word.
pub(super) fn ignored(version: Version, resources: &LinuxResources) -> Vec<&'static str> {
    let mut fields = Vec::new();
    let mut add = |given: bool, field| {
        if given {
            fields.push(field);
        }
    };
    if let Some(memory) = resources.memory() {
        // Kernel memory has no limit of its own any more (kernel ≥ 5.16 answers EOPNOTSUPP, runc ignores it since 1.0).
        #[allow(deprecated)] // by the specification
        let kernel = memory.kernel();
        add(asked(kernel).is_some(), "linux.resources.memory.kernel");
        add(asked(memory.kernel_tcp()).is_some(), "linux.resources.memory.kernelTCP");
    }
    if version == Version::V1 {
        return fields;
    }
    if let Some(memory) = resources.memory() {
        add(swappiness(memory).is_some(), "linux.resources.memory.swappiness");
        add(memory.disable_oom_killer() == Some(true), "linux.resources.memory.disableOOMKiller");
        // What it says when it is true is always so.
        add(memory.use_hierarchy() == Some(false), "linux.resources.memory.useHierarchy");
    }
    if let Some(cpu) = resources.cpu() {
        add(asked(cpu.realtime_runtime()).is_some(), "linux.resources.cpu.realtimeRuntime");
        add(asked(cpu.realtime_period()).is_some(), "linux.resources.cpu.realtimePeriod");
    }
    if let Some(io) = resources.block_io() {
        add(asked(io.leaf_weight()).is_some(), "linux.resources.blockIO.leafWeight");
        let mut devices = io.weight_device().iter().flatten();
        let leaf = devices.any(|device| asked(device.leaf_weight()).is_some());
        add(leaf, "linux.resources.blockIO.weightDevice[].leafWeight");
    }
    if let Some(network) = resources.network() {
        add(asked(network.class_id()).is_some(), "linux.resources.network.classID");
        let priorities = network.priorities().as_ref().is_some_and(|priorities| !priorities.is_empty());
        add(priorities, "linux.resources.network.priorities");
    }
    fields
}

/// Says what [`ignored`] found.
pub(super) fn warn_ignored(version: Version, resources: &LinuxResources) {
    for field in ignored(version, resources) {
        tracing::warn!("{field} is ignored: cgroup {version} has nothing that does this");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_empty_ask_for_nothing() {
        assert_eq!(asked(Some(0u64)), None);
        assert_eq!(asked(Some(-1i64)), Some(-1));
        assert_eq!(given(Some("")), None);
        assert_eq!(given(Some("0-1")), Some("0-1"));
    }

    #[test]
    fn a_pids_limit_of_zero_leaves_init_alone() {
        for (limit, max) in [(0, 1), (1, 1), (100, 100), (-1, -1), (-7, -1)] {
            assert_eq!(pids_max(limit), max);
        }
    }

    #[test]
    fn a_page_size_is_no_path() {
        let mut limit = LinuxHugepageLimit::default();
        for (size, good) in [("2MB", true), ("64KB", true), ("", false), ("../x", false), ("2MB/", false)] {
            limit.set_page_size(size.into());
            assert_eq!(page_size(&limit).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn an_rdma_line_has_only_what_is_limited() {
        for (json, line) in [
            ("{}", None),
            (r#"{"hcaObjects": 10}"#, Some("mlx5_1 hca_object=10")),
            (r#"{"hcaObjects": 10, "hcaHandles": 3}"#, Some("mlx5_1 hca_handle=3 hca_object=10")),
        ] {
            assert_eq!(rdma_line("mlx5_1", serde_json::from_str(json).unwrap()).as_deref(), line);
        }
    }

    const OF_V1: &str = r#"{
        "cpu": {"realtimeRuntime": 5, "realtimePeriod": 7},
        "memory": {"kernel": 1, "kernelTCP": 2, "swappiness": 0, "disableOOMKiller": true, "useHierarchy": false},
        "blockIO": {"leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 30}]},
        "network": {"classID": 5, "priorities": [{"name": "lo", "priority": 1}]}}"#;

    #[test]
    fn what_a_version_has_nothing_for_is_said_by_name() {
        let resources = serde_json::from_str(OF_V1).unwrap();
        let dropped = ["linux.resources.memory.kernel", "linux.resources.memory.kernelTCP"];
        assert_eq!(ignored(Version::V1, &resources), dropped);
        let all = ignored(Version::V2, &resources);
        let mut expected = dropped.to_vec();
        expected.extend([
            "linux.resources.memory.swappiness",
            "linux.resources.memory.disableOOMKiller",
            "linux.resources.memory.useHierarchy",
            "linux.resources.cpu.realtimeRuntime",
            "linux.resources.cpu.realtimePeriod",
            "linux.resources.blockIO.leafWeight",
            "linux.resources.blockIO.weightDevice[].leafWeight",
            "linux.resources.network.classID",
            "linux.resources.network.priorities",
        ]);
        assert_eq!(all, expected);
    }

    #[test]
    fn what_asks_for_nothing_is_not_said_to_be_ignored() {
        let nothing = r#"{
            "cpu": {"shares": 5, "realtimeRuntime": 0, "realtimePeriod": 0},
            "memory": {"limit": 5, "kernel": 0, "swappiness": 18446744073709551615, "disableOOMKiller": false,
                       "useHierarchy": true},
            "blockIO": {"leafWeight": 0, "weightDevice": [{"major": 8, "minor": 0, "weight": 30}]},
            "network": {"classID": 0, "priorities": []}}"#;
        assert_eq!(ignored(Version::V2, &serde_json::from_str(nothing).unwrap()), Vec::<&str>::new());
    }
}
