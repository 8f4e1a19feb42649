//! Every field of `linux.resources` as the kernel's file of either version, at create and by `update`: docs/cgroups.md
//! is the table of these tests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, Kind, Runtime, known, record_skip, skip};

/// The runtime under test. runc 1.1 now and then leaves a cgroup behind: its rmdir comes too early.
pub(crate) fn runtime() -> Runtime {
    let mut runtime = crate::runtime();
    if runtime.kind() == Kind::Runc {
        runtime.leaves_residue();
    }
    runtime
}

/// What a file is to say: controller, file, text.
type Says<'a> = (&'a str, &'a str, &'a str);

/// Whether controllers are those of cgroup2.
pub(crate) fn on_v2() -> bool {
    host::cgroup_mode() == CgroupMode::V2
}

/// Whether the host has a controller, in the version that containers are limited by.
fn has_controller(name: &str) -> bool {
    if on_v2() {
        let all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
        return all.split_whitespace().any(|controller| controller == name);
    }
    let of = |mount: &host::CgroupMount| mount.controllers.iter().flatten().any(|controller| controller == name);
    host::cgroup_mounts().iter().any(of)
}

/// The container's file of a controller.
pub(crate) fn file_of(container: &Container<'_>, controller: &str, file: &str) -> PathBuf {
    container.cgroup(if on_v2() { "" } else { controller }).join(file)
}

/// What the container's file of a controller says.
#[track_caller]
pub(crate) fn read(container: &Container<'_>, controller: &str, file: &str) -> String {
    let path = file_of(container, controller, file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// Why the files of `says` cannot be here. A controller that the host has and the container has not is a failure.
fn missing(runtime: &Runtime, says: &[Says<'_>]) -> Option<String> {
    if !host::is_root() || host::cgroup_mode() == CgroupMode::None {
        return Some("needs root and cgroups".to_owned());
    }
    if let Some((controller, _, _)) = says.iter().find(|(controller, _, _)| !has_controller(controller)) {
        return Some(format!("this host has no controller {controller:?}"));
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let lacking = says.iter().find(|(controller, file, _)| !file_of(&container, controller, file).exists());
    lacking.map(|(_, file, _)| format!("this kernel has no {file}"))
}

/// `resources` at create, and then by `update` of a container without.
#[track_caller]
pub(crate) fn arrives(resources: &Value, v1: &[Says<'_>], v2: &[Says<'_>]) {
    let runtime = runtime();
    arrives_at_create(&runtime, resources, v1, v2);
    arrives_by_update(&runtime, resources, v1, v2);
}

#[track_caller]
pub(crate) fn arrives_at_create(runtime: &Runtime, resources: &Value, v1: &[Says<'_>], v2: &[Says<'_>]) {
    let says = if on_v2() { v2 } else { v1 };
    if let Some(reason) = missing(runtime, says) {
        return record_skip(&reason);
    }
    let bundle = limited(resources);
    let container = runtime.container(&bundle);
    container.create().ok();
    check(&container, says, "create");
}

#[track_caller]
fn arrives_by_update(runtime: &Runtime, resources: &Value, v1: &[Says<'_>], v2: &[Says<'_>]) {
    let says = if on_v2() { v2 } else { v1 };
    if let Some(reason) = missing(runtime, says) {
        return record_skip(&reason);
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.verb("update").args(["--resources", "-", container.id()]).stdin(resources.to_string()).run().ok();
    check(&container, says, "update");
}

/// A sleeper with these limits, beside those of every bundle.
pub(crate) fn limited(resources: &Value) -> Bundle {
    let fields = resources.as_object().unwrap();
    fields.iter().fold(Bundle::sleeper(), |bundle, (name, value)| bundle.resource(name, value.clone()))
}

#[track_caller]
fn check(container: &Container<'_>, says: &[Says<'_>], verb: &str) {
    for (controller, file, text) in says {
        assert_eq!(read(container, controller, file), *text, "{verb}: {file}");
    }
}

/// A whole block device of this host: `254:0`.
pub(crate) fn block_device() -> Option<(i64, i64)> {
    let mut names: Vec<PathBuf> = fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let number = |path: &Path| {
        let text = fs::read_to_string(path.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    // Those of a machine rather than those that a kernel makes up (loop, ram), whose queue may not be there.
    let made_up = |path: &PathBuf| path.to_string_lossy().contains("/loop") || path.to_string_lossy().contains("/ram");
    names.iter().filter(|path| !made_up(path)).find_map(|path| number(path))
}

#[test]
fn memory_limit() {
    arrives(
        &json!({"memory": {"limit": 64 << 20}}),
        &[("memory", "memory.limit_in_bytes", "67108864")],
        &[("memory", "memory.max", "67108864")],
    );
}

#[test]
fn memory_reservation() {
    arrives(
        &json!({"memory": {"reservation": 32 << 20}}),
        &[("memory", "memory.soft_limit_in_bytes", "33554432")],
        &[("memory", "memory.low", "33554432")],
    );
}

/// Memory and swap together on v1, swap alone on v2.
#[test]
fn memory_swap() {
    arrives(
        &json!({"memory": {"limit": 64 << 20, "swap": 96 << 20}}),
        &[("memory", "memory.memsw.limit_in_bytes", "100663296")],
        &[("memory", "memory.swap.max", "33554432"), ("memory", "memory.max", "67108864")],
    );
}

#[test]
fn memory_swap_unlimited() {
    let runtime = runtime();
    let resources = json!({"memory": {"limit": 64 << 20, "swap": -1}});
    let v1 = [("memory", "memory.memsw.limit_in_bytes", "9223372036854771712")];
    arrives_at_create(&runtime, &resources, &v1, &[("memory", "memory.swap.max", "max")]);
}

/// v1 alone; on v2 a warning.
#[test]
fn memory_swappiness() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    arrives_at_create(&runtime, &json!({"memory": {"swappiness": 7}}), &[("memory", "memory.swappiness", "7")], &[]);
}

#[test]
fn memory_disable_oom_killer() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    let v1 = [("memory", "memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0")];
    arrives_at_create(&runtime, &json!({"memory": {"disableOOMKiller": true}}), &v1, &[]);
}

#[test]
fn memory_use_hierarchy() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    let v1 = [("memory", "memory.use_hierarchy", "1")];
    arrives_at_create(&runtime, &json!({"memory": {"useHierarchy": true}}), &v1, &[]);
}

/// Gone from the kernel: ignored, not refused.
#[test]
fn memory_kernel_and_kernel_tcp() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    arrives_at_create(&runtime, &json!({"memory": {"kernel": 64 << 20, "kernelTCP": 64 << 20}}), &[], &[]);
}

#[test]
fn cpu_shares() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Runc: "1.1 has the older, linear formula", Crun: "before 1.23 has the older, linear formula");
    }
    arrives(&json!({"cpu": {"shares": 1024}}), &[("cpu", "cpu.shares", "1024")], &[("cpu", "cpu.weight", "100")]);
    arrives(&json!({"cpu": {"shares": 256}}), &[("cpu", "cpu.shares", "256")], &[("cpu", "cpu.weight", "35")]);
    arrives(&json!({"cpu": {"shares": 2}}), &[("cpu", "cpu.shares", "2")], &[("cpu", "cpu.weight", "1")]);
}

#[test]
fn cpu_quota_and_period() {
    arrives(
        &json!({"cpu": {"quota": 30000, "period": 60000}}),
        &[("cpu", "cpu.cfs_quota_us", "30000"), ("cpu", "cpu.cfs_period_us", "60000")],
        &[("cpu", "cpu.max", "30000 60000")],
    );
}

#[test]
fn cpu_burst() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1 does not know it");
    if !on_v2() {
        known!(runtime, Crun: "1.8.1 does not know it");
    }
    arrives(
        &json!({"cpu": {"quota": 30000, "period": 60000, "burst": 10000}}),
        &[("cpu", "cpu.cfs_burst_us", "10000")],
        &[("cpu", "cpu.max.burst", "10000")],
    );
}

#[test]
fn cpu_idle() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1 does not know it");
    arrives(&json!({"cpu": {"idle": 1}}), &[("cpu", "cpu.idle", "1")], &[("cpu", "cpu.idle", "1")]);
}

/// v1 with CONFIG_RT_GROUP_SCHED alone; on v2 a warning.
#[test]
fn cpu_realtime_runtime_and_period() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    arrives_at_create(
        &runtime,
        &json!({"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 500_000}}),
        &[("cpu", "cpu.rt_runtime_us", "5000"), ("cpu", "cpu.rt_period_us", "500000")],
        &[],
    );
}

#[test]
fn cpu_cpus_and_mems() {
    arrives(
        &json!({"cpu": {"cpus": "0", "mems": "0"}}),
        &[("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")],
        &[("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")],
    );
}

#[test]
fn pids_limit() {
    arrives(&json!({"pids": {"limit": 23}}), &[("pids", "pids.max", "23")], &[("pids", "pids.max", "23")]);
}

#[test]
fn pids_limit_of_minus_one_is_none() {
    let runtime = runtime();
    if !on_v2() {
        known!(runtime, Crun: "1.8.1 writes -1, which the kernel refuses");
    }
    arrives_at_create(
        &runtime,
        &json!({"pids": {"limit": -1}}),
        &[("pids", "pids.max", "max")],
        &[("pids", "pids.max", "max")],
    );
}

/// runc ≥ 1.4: init alone.
#[test]
fn pids_limit_of_zero_is_one() {
    let runtime = runtime();
    known!(runtime, Runc: "before 1.4 takes it as unset", Crun: "takes it as unset");
    arrives_at_create(
        &runtime,
        &json!({"pids": {"limit": 0}}),
        &[("pids", "pids.max", "1")],
        &[("pids", "pids.max", "1")],
    );
}

#[test]
fn block_io_weight() {
    // CFQ's file on old kernels, BFQ's where that is built, iocost's else.
    let runtime = runtime();
    if !on_v2() {
        known!(runtime, Crun: "1.8.1 looks for CFQ's file alone");
        return arrives_at_create(
            &runtime,
            &json!({"blockIO": {"weight": 500}}),
            &[("blkio", "blkio.bfq.weight", "500")],
            &[],
        );
    }
    let bundle = Bundle::sleeper();
    let plain = runtime.container(&bundle);
    plain.create().ok();
    if file_of(&plain, "io", "io.bfq.weight").exists() {
        let says = [("io", "io.bfq.weight", "default 500")];
        arrives_at_create(&runtime, &json!({"blockIO": {"weight": 500}}), &[], &says);
    } else {
        let says = [("io", "io.weight", "default 4950")];
        arrives_at_create(&runtime, &json!({"blockIO": {"weight": 500}}), &[], &says);
    }
}

/// v1 before Linux 5.0 alone; on v2 a warning.
#[test]
fn block_io_leaf_weight() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    let says = [("blkio", "blkio.leaf_weight", "500")];
    arrives_at_create(&runtime, &json!({"blockIO": {"leafWeight": 500}}), &says, &[]);
}

#[test]
fn block_io_throttles() {
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let resources = json!({"blockIO": {
        "throttleReadBpsDevice": device(1_000_000),
        "throttleWriteBpsDevice": device(2_000_000),
        "throttleReadIOPSDevice": device(300),
        "throttleWriteIOPSDevice": device(400),
    }});
    let says = |rate: u64| format!("{major}:{minor} {rate}");
    let rates = [says(1_000_000), says(2_000_000), says(300), says(400)];
    let v1: [Says<'_>; 4] = [
        ("blkio", "blkio.throttle.read_bps_device", &rates[0]),
        ("blkio", "blkio.throttle.write_bps_device", &rates[1]),
        ("blkio", "blkio.throttle.read_iops_device", &rates[2]),
        ("blkio", "blkio.throttle.write_iops_device", &rates[3]),
    ];
    let line = format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=300 wiops=400");
    let v2: [Says<'_>; 1] = [("io", "io.max", &line)];
    let runtime = runtime();
    arrives_at_create(&runtime, &resources, &v1, &v2);
    known!(runtime, Runc: "1.1 takes only the weight from an update");
    arrives_by_update(&runtime, &resources, &v1, &v2);
}

#[test]
fn block_io_weight_device() {
    let runtime = runtime();
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let queue = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/queue/scheduler")).unwrap_or_default();
    if !queue.contains("[bfq]") {
        skip!("no device with the scheduler BFQ, whose weights these are: {}", queue.trim());
    }
    let resources = json!({"blockIO": {"weightDevice": [{"major": major, "minor": minor, "weight": 300}]}});
    // On v1 systemd gives each unit its own default of 500, which is 136 on BFQ's scale.
    let default = if runtime.uses_systemd() && !on_v2() { 136 } else { 100 };
    let line = format!("default {default}\n{major}:{minor} 300");
    arrives_at_create(
        &runtime,
        &resources,
        &[("blkio", "blkio.bfq.weight_device", &line)],
        &[("io", "io.bfq.weight", &line)],
    );
}

/// Pages in use and pages reserved. The controller may be in cgroup2 while all others are in v1.
#[test]
fn hugepage_limits() {
    let resources = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
    let v2 = [("hugetlb", "hugetlb.2MB.max", "4194304"), ("hugetlb", "hugetlb.2MB.rsvd.max", "4194304")];
    let v1 = [
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
        ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
    ];
    let runtime = runtime();
    known!(runtime, Crun: "does not limit the reserved pages");
    arrives_at_create(&runtime, &resources, &v1, &v2);
    known!(runtime, Runc: "1.1 does not take it from an update");
    arrives_by_update(&runtime, &resources, &v1, &v2);
}

#[test]
fn hugepage_limits_on_cgroup2_beside_v1() {
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if host::cgroup_mode() != CgroupMode::Hybrid || !controllers.contains("hugetlb") {
        skip!("no hugetlb in a cgroup2 beside v1");
    }
    let runtime = runtime().on_cgroup2();
    known!(runtime, Crun: "1.8.1 does not limit the reserved pages", Runc: "1.1.5 does not limit the reserved pages");
    let bundle = limited(&json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    assert_eq!(text("hugetlb.2MB.max"), "4194304\n");
    assert_eq!(text("hugetlb.2MB.rsvd.max"), "4194304\n");
    let change = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8 << 20}]}).to_string();
    container.verb("update").args(["-r", "-", container.id()]).stdin(change).run().ok();
    assert_eq!(text("hugetlb.2MB.max"), "8388608\n");
}

/// v1 alone; on v2 a warning.
#[test]
fn network_class_id() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    let says = [("net_cls", "net_cls.classid", "1048577")];
    arrives_at_create(&runtime, &json!({"network": {"classID": 1_048_577}}), &says, &[]);
}

#[test]
fn network_priorities() {
    let runtime = runtime();
    if on_v2() {
        known!(runtime, Crun: "refuses it on v2");
    }
    let says = [("net_prio", "net_prio.ifpriomap", "lo 3")];
    let resources = json!({"network": {"priorities": [{"name": "lo", "priority": 3}]}});
    if on_v2() {
        return arrives_at_create(&runtime, &resources, &[], &[]);
    }
    if let Some(reason) = missing(&runtime, &says) {
        skip!("{reason}");
    }
    let bundle = limited(&resources);
    let container = runtime.container(&bundle);
    container.create().ok();
    // A line for each interface.
    let map = read(&container, "net_prio", "net_prio.ifpriomap");
    assert!(map.lines().any(|line| line == "lo 3"), "{map}");
}

#[test]
fn rdma() {
    let Some(Ok(device)) = fs::read_dir("/sys/class/infiniband").ok().and_then(|mut devices| devices.next()) else {
        skip!("no RDMA device");
    };
    let name = device.file_name().into_string().unwrap();
    let says = [("rdma", "rdma.max", &*format!("{name} hca_handle=3 hca_object=100"))];
    let runtime = runtime();
    known!(runtime, Crun: "drops it");
    arrives(&json!({"rdma": {name.as_str(): {"hcaHandles": 3, "hcaObjects": 100}}}), &says, &says);
}

/// Fields that v2 has nothing for do not fail the container, and are told by name.
#[test]
fn fields_of_v1_alone_are_warned_of_on_v2() {
    if !on_v2() {
        skip!("needs cgroup v2");
    }
    let runtime = runtime();
    known!(runtime, Runc: "drops them without a word", Crun: "refuses them");
    let bundle = limited(&json!({
        "memory": {"swappiness": 7, "disableOOMKiller": true, "kernel": 5, "kernelTCP": 6},
        "cpu": {"realtimeRuntime": 5000, "realtimePeriod": 500_000},
        "blockIO": {"leafWeight": 500},
        "network": {"classID": 5, "priorities": [{"name": "lo", "priority": 3}]},
    }));
    let container = runtime.container(&bundle);
    let output = container.create().ok();
    for field in [
        "memory.swappiness",
        "memory.disableOOMKiller",
        "memory.kernel",
        "memory.kernelTCP",
        "cpu.realtimeRuntime",
        "cpu.realtimePeriod",
        "blockIO.leafWeight",
        "network.classID",
        "network.priorities",
    ] {
        assert!(output.stderr.contains(&format!("linux.resources.{field} is ignored")), "{field}: {output}");
    }
}

/// Controllers are handed down through parents that nobody has prepared.
#[test]
fn limits_below_parents_that_are_made_for_them() {
    let runtime = runtime();
    if runtime.uses_systemd() {
        skip!("parents are slices then, and systemd's to make");
    }
    let path = format!("/{}-outer/middle/inner", runtime.tag());
    let resources = json!({"cpu": {"cpus": "0", "shares": 512}, "memory": {"limit": 64 << 20}, "pids": {"limit": 9}});
    if let Some(reason) = ["cpuset", "memory", "pids"].iter().find(|name| !has_controller(name)) {
        skip!("this host has no controller {reason:?}");
    }
    {
        let bundle = limited(&resources).cgroups_path(&path);
        let container = runtime.container(&bundle);
        container.create().ok();
        assert_eq!(read(&container, "cpuset", "cpuset.cpus"), "0");
        assert_eq!(
            read(&container, "memory", if on_v2() { "memory.max" } else { "memory.limit_in_bytes" }),
            "67108864"
        );
        assert_eq!(read(&container, "pids", "pids.max"), "9");
        container.delete_force().ok();
    }
    // The parents were not there before; runtimes leave them.
    let mut left = host::cgroups_with(runtime.tag());
    left.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for dir in left {
        assert!(!dir.ends_with("inner"), "{}", dir.display());
        fs::remove_dir(dir).unwrap();
    }
    if runtime.kind() == Kind::Tare {
        assert_eq!(host::cgroups_with(runtime.tag()), Vec::<PathBuf>::new());
    }
}
