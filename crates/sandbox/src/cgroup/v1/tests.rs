//! On the kernel, as root, in cgroups of our own.

use std::path::Path;

use crate::cgroup::device::tests::rule;
use crate::cgroup::scratch::{Process, Scratch, needs_v1, resources, soon, unique};
use crate::cgroup::{Cgroup, Directory, Driver, Freezer, Location, locate, open};

/// A created cgroup on a host with v1, or the end of the test.
macro_rules! created {
    () => {{
        needs_v1!();
        Scratch::created()
    }};
}

#[test]
fn create_makes_a_usable_directory_in_every_hierarchy_and_remove_takes_them_all_away() {
    let scratch = created!();
    for directory in &scratch.0.location().directories {
        assert!(directory.path.is_dir(), "{directory:?}");
    }
    assert_ne!(scratch.read("cpuset", "cpuset.cpus"), "");
    assert_ne!(scratch.read("cpuset", "cpuset.mems"), "");
    let hierarchies = scratch.0.location().directories.iter().filter(|dir| !dir.hierarchy.is_empty()).count();
    assert_eq!(scratch.0.entrances().unwrap().len(), hierarchies);
    scratch.0.remove(soon()).unwrap();
    assert!(scratch.gone());
    scratch.0.remove(soon()).unwrap();
}

#[test]
fn a_single_threaded_process_enters_through_the_entrances() {
    let scratch = created!();
    let tasks = scratch.dir("memory").join("tasks");
    let script = format!("echo 0 > {} && grep :memory: /proc/self/cgroup", tasks.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let name = scratch.dir("memory").file_name().unwrap().to_str().unwrap().to_owned();
    assert!(line.trim().ends_with(&name), "{line}");
}

#[test]
fn parents_are_made_with_their_cpusets_and_an_absolute_path_starts_at_the_root() {
    needs_v1!();
    let parent = format!("/{}", unique());
    let path = format!("{parent}/../..{parent}/a/b");
    let location = locate(Driver::Cgroupfs, Some(Path::new(&path)), "ignored").unwrap();
    let scratch = Scratch(open(&location));
    let memory = scratch.dir("memory");
    assert_eq!(memory, Path::new("/sys/fs/cgroup/memory").join(&parent[1..]).join("a/b"));
    scratch.0.create(soon()).unwrap();
    assert_ne!(scratch.read("cpuset", "cpuset.cpus"), "");
    scratch.0.remove(soon()).unwrap();
    // The parents are not the container's.
    for directory in &location.directories {
        for ancestor in directory.path.ancestors().skip(1).take(2) {
            std::fs::remove_dir(ancestor).unwrap();
        }
    }
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    needs_v1!();
    let mut location = locate(Driver::Cgroupfs, None, &unique()).unwrap();
    let made = location.directories.clone();
    let bad = Directory { hierarchy: "bogus".into(), path: "/proc/tare/bogus".into() };
    location.directories.insert(made.len() - 1, bad);
    let error = open(&location).create(soon()).unwrap_err();
    assert_eq!(error.to_string(), "\"/proc\" is not on a cgroup file system");
    assert!(made.iter().all(|directory| !directory.path.exists()));
}

#[test]
fn limits_arrive_in_their_files() {
    let scratch = created!();
    scratch
        .0
        .apply(&resources(
            r#"{"cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 1000, "cpus": "0", "mems": "0"},
                "memory": {"limit": 33554432, "reservation": 16777216, "swap": 67108864, "swappiness": 7},
                "pids": {"limit": 0},
                "blockIO": {"throttleReadBpsDevice": [], "weight": 0}}"#,
        ))
        .unwrap();
    for (controller, file, value) in [
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_burst_us", "1000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("memory", "memory.swappiness", "7"),
        ("pids", "pids.max", "1"),
    ] {
        assert_eq!(scratch.read(controller, file), value, "{file}");
    }
    // An update that names one of them keeps the others.
    scratch.0.apply(&resources(r#"{"cpu": {"period": 25000}, "pids": {"limit": -1}}"#)).unwrap();
    assert_eq!(scratch.read("cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(scratch.read("cpu", "cpu.cfs_period_us"), "25000");
    assert_eq!(scratch.read("pids", "pids.max"), "max");
    assert_eq!(scratch.read("memory", "memory.limit_in_bytes"), "33554432");
}

#[test]
fn memory_and_swap_are_raised_lowered_and_lifted_in_the_order_the_kernel_wants() {
    let scratch = created!();
    for (limit, swap) in [(40 << 20, 80 << 20), (400 << 20, 800 << 20), (20 << 20, 30 << 20), (25 << 20, 25 << 20)] {
        scratch.0.apply(&resources(&format!(r#"{{"memory": {{"limit": {limit}, "swap": {swap}}}}}"#))).unwrap();
        assert_eq!(scratch.read("memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(scratch.read("memory", "memory.memsw.limit_in_bytes"), swap.to_string());
    }
    scratch.0.apply(&resources(r#"{"memory": {"limit": -1}}"#)).unwrap();
    assert!(scratch.read("memory", "memory.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    assert!(scratch.read("memory", "memory.memsw.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    let error = scratch.0.apply(&resources(r#"{"memory": {"limit": 20971520, "swap": 10485760}}"#)).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("linux.resources.memory.") && text.ends_with("invalid argument (EINVAL)"), "{text}");
}

#[test]
fn quota_and_period_may_change_together_in_either_direction() {
    let scratch = created!();
    for (quota, period, burst) in [(50_000, 100_000, 40_000), (2_000, 4_000, 1_000), (200_000, 400_000, 150_000)] {
        let json = format!(r#"{{"cpu": {{"quota": {quota}, "period": {period}, "burst": {burst}}}}}"#);
        scratch.0.apply(&resources(&json)).unwrap();
        assert_eq!(scratch.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(scratch.read("cpu", "cpu.cfs_period_us"), period.to_string());
        assert_eq!(scratch.read("cpu", "cpu.cfs_burst_us"), burst.to_string());
    }
    scratch.0.apply(&resources(r#"{"cpu": {"shares": 300, "idle": 1}}"#)).unwrap();
    assert_eq!(scratch.read("cpu", "cpu.idle"), "1");
    scratch.0.apply(&resources(r#"{"cpu": {"shares": 400, "idle": 0}}"#)).unwrap();
    assert_eq!(scratch.read("cpu", "cpu.shares"), "400");
}

#[test]
fn switches_of_memory_go_either_way() {
    let scratch = created!();
    let oom = || scratch.read("memory", "memory.oom_control").lines().next().map(str::to_owned).unwrap();
    scratch.0.apply(&resources(r#"{"memory": {"disableOOMKiller": true, "useHierarchy": true}}"#)).unwrap();
    assert_eq!(oom(), "oom_kill_disable 1");
    assert_eq!(scratch.read("memory", "memory.use_hierarchy"), "1");
    // Linux ≥ 5.11 cannot do without the hierarchy: a warning.
    scratch.0.update(&resources(r#"{"memory": {"disableOOMKiller": false, "useHierarchy": false}}"#), soon()).unwrap();
    assert_eq!(oom(), "oom_kill_disable 0");
    // What a client in Go makes of -1: not asked for.
    scratch.0.apply(&resources(r#"{"memory": {"swappiness": 18446744073709551615}}"#)).unwrap();
    assert_eq!(scratch.read("memory", "memory.swappiness"), "60");
}

#[test]
fn realtime_runtime_and_period_may_change_together_in_either_direction() {
    let scratch = created!();
    if !scratch.dir("cpu").join("cpu.rt_runtime_us").exists() {
        tare_testkit::skip!("CONFIG_RT_GROUP_SCHED is off");
    }
    for (runtime, period) in [(1_000, 500_000), (100, 800), (2_000, 900_000)] {
        let json = format!(r#"{{"cpu": {{"realtimeRuntime": {runtime}, "realtimePeriod": {period}}}}}"#);
        scratch.0.apply(&resources(&json)).unwrap();
        assert_eq!(scratch.read("cpu", "cpu.rt_runtime_us"), runtime.to_string());
        assert_eq!(scratch.read("cpu", "cpu.rt_period_us"), period.to_string());
    }
}

#[test]
fn an_update_that_fails_leaves_every_limit_as_it_was() {
    let scratch = created!();
    scratch
        .0
        .apply(&resources(
            r#"{"cpu": {"shares": 512, "quota": 20000, "period": 50000}, "pids": {"limit": 77},
                "memory": {"limit": 33554432, "swap": 67108864}}"#,
        ))
        .unwrap();
    let files = [
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.cfs_period_us"),
        ("cpuset", "cpuset.cpus"),
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.memsw.limit_in_bytes"),
        ("pids", "pids.max"),
        ("devices", "devices.list"),
        ("blkio", "blkio.throttle.read_bps_device"),
    ];
    let state = || files.map(|(controller, file)| scratch.read(controller, file));
    scratch.0.allow_devices(&[]).unwrap();
    let before = state();
    let changes = r#""cpu": {"shares": 400, "quota": 5000, "period": 10000, "cpus": "0"},
        "memory": {"limit": 134217728, "swap": 268435456}, "pids": {"limit": 88}"#;
    let rules = r#""devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]"#;
    let throttle = |device: &str| format!(r#""blockIO": {{"throttleReadBpsDevice": [{{{device}, "rate": 1000000}}]}}"#);
    let no_device = throttle(r#""major": 4095, "minor": 1"#);
    let error = scratch.0.update(&resources(&format!("{{{changes}, {rules}, {no_device}}}")), soon()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("linux.resources.blockIO.throttleReadBpsDevice: write("), "{text}");
    assert_eq!(state(), before);
    // A rule that v1 cannot express comes last, and takes everything back too.
    let hole = r#""devices": [{"allow": true, "type": "b", "major": 8, "access": "rw"},
        {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "w"}]"#;
    let error = scratch.0.update(&resources(&format!("{{{changes}, {hole}}}")), soon()).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.devices: "), "{error}");
    assert_eq!(state(), before);
    scratch.0.update(&resources(&format!("{{{changes}, {rules}}}")), soon()).unwrap();
    let after = state();
    assert_eq!(after[..7], ["400", "5000", "10000", "0", "134217728", "268435456", "88"]);
    assert!(after[7].contains("c 10:229 rw"));
}

#[test]
fn a_memory_limit_below_what_is_in_use_is_refused_with_the_numbers() {
    let scratch = created!();
    // Anonymous memory that nothing can be done about: this host has no swap, or may have some.
    scratch.0.apply(&resources(r#"{"memory": {"limit": 134217728, "swap": 134217728}}"#)).unwrap();
    let mut holder = scratch.holder("memory", 48);
    let error = scratch
        .0
        .update(&resources(r#"{"memory": {"limit": 16777216, "swap": 16777216}, "pids": {"limit": 5}}"#), soon());
    let text = error.unwrap_err().to_string();
    assert!(text.contains(" bytes are in use: linux.resources.memory.limit: write("), "{text}");
    assert!(text.ends_with("(EBUSY)"), "{text}");
    assert_eq!(scratch.read("memory", "memory.limit_in_bytes"), "134217728");
    assert_eq!(scratch.read("pids", "pids.max"), "max");
    assert!(holder.0.try_wait().unwrap().is_none());
}

#[test]
fn another_default_of_the_device_list_comes_while_nobody_runs() {
    let scratch = created!();
    scratch.0.allow_devices(&[rule("allow a")]).unwrap();
    // /dev/null is allowed by every list: a refusal is an instant of "deny all".
    let refused = scratch.repeat_inside(&["devices", "freezer"], "true </dev/null || echo refused", || {
        for _ in 0..50 {
            scratch.0.allow_devices(&[]).unwrap();
            assert_eq!(scratch.0.frozen().unwrap(), Freezer::Thawed);
            scratch.0.allow_devices(&[rule("allow a")]).unwrap();
        }
    });
    assert_eq!(refused.lines().count(), 0);
}

#[test]
fn what_the_host_cannot_do_is_refused_by_field() {
    let scratch = created!();
    for (json, message) in [
        (
            r#"{"unified": {"memory.max": "1"}}"#,
            "linux.resources.unified: this host has cgroup v1, its files have other names",
        ),
        (r#"{"cpu": {"shares": 1}}"#, "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"),
        (r#"{"memory": {"swappiness": 101}}"#, "linux.resources.memory.swappiness: 101 is not in 0..=100"),
        (
            r#"{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}"#,
            "linux.resources.hugepageLimits: \"../x\" is not a page size",
        ),
    ] {
        assert_eq!(scratch.0.apply(&resources(json)).unwrap_err().to_string(), message);
    }
    let error = scratch.0.apply(&resources(r#"{"cpu": {"cpus": "4095"}}"#)).unwrap_err().to_string();
    let file = scratch.dir("cpuset").join("cpuset.cpus");
    assert!(error.starts_with(&format!("linux.resources.cpu.cpus: write({file:?}, \"4095\"): ")), "{error}");
    if !scratch.0.location().directories.iter().any(|directory| directory.hierarchy.contains("net_cls")) {
        assert_eq!(
            scratch.0.apply(&resources(r#"{"network": {"classID": 5}}"#)).unwrap_err().to_string(),
            "linux.resources.network.classID: this host has no cgroup v1 hierarchy with controller \"net_cls\""
        );
    }
}

#[test]
fn devices_are_denied_by_default_and_an_update_changes_the_difference() {
    let scratch = created!();
    scratch.0.allow_devices(&[]).unwrap();
    let default = scratch.read("devices", "devices.list");
    assert!(default.contains("c 1:3 rwm") && default.contains("c *:* m") && !default.contains('a'), "{default}");
    assert!(!default.contains("c 5:1"), "{default}");
    scratch.0.allow_devices(&[rule("deny a"), rule("allow c 10:229 rw")]).unwrap();
    assert!(scratch.read("devices", "devices.list").contains("c 10:229 rw"));
    scratch.0.apply(&resources(r#"{"cpu": {"shares": 300}}"#)).unwrap();
    assert!(scratch.read("devices", "devices.list").contains("c 10:229 rw"));
    scratch.0.allow_devices(&[]).unwrap();
    assert_eq!(scratch.read("devices", "devices.list"), default);
    scratch.0.allow_devices(&[rule("allow a")]).unwrap();
    assert_eq!(scratch.read("devices", "devices.list"), "a *:* rwm");
}

#[test]
fn the_device_list_decides() {
    let scratch = created!();
    // kmsg is 1:11: not among the default devices.
    let opens = ["true </dev/null", "true <>/dev/zero", "true </dev/kmsg", "true >/dev/kmsg"];
    scratch.0.allow_devices(&[]).unwrap();
    assert_eq!(scratch.run_inside("devices", &opens), [true, true, false, false]);
    scratch.0.allow_devices(&[rule("allow c 1:11 r")]).unwrap();
    assert_eq!(scratch.run_inside("devices", &opens), [true, true, true, false]);
    scratch.0.allow_devices(&[rule("allow a"), rule("deny c 1:11 w")]).unwrap();
    assert_eq!(scratch.run_inside("devices", &opens), [true, true, true, false]);
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    let scratch = created!();
    open(scratch.0.location()).create(soon()).unwrap();
    {
        let mut process = scratch.sleeper();
        let error = open(scratch.0.location()).create(soon()).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
        assert_eq!(scratch.0.pids().unwrap().iter().map(|pid| pid.as_raw()).collect::<Vec<_>>(), [process.pid()]);
        assert!(process.0.try_wait().unwrap().is_none());
    }
    scratch.0.freeze(Freezer::Frozen, soon()).unwrap();
    let error = open(scratch.0.location()).create(soon()).unwrap_err();
    assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
}

#[test]
fn a_frozen_container_is_killed_and_removed() {
    let scratch = created!();
    let mut process = scratch.sleeper();
    scratch.0.freeze(Freezer::Frozen, soon()).unwrap();
    assert_eq!(scratch.0.frozen().unwrap(), Freezer::Frozen);
    scratch.0.freeze(Freezer::Thawed, soon()).unwrap();
    assert_eq!(scratch.0.frozen().unwrap(), Freezer::Thawed);
    scratch.0.freeze(Freezer::Frozen, soon()).unwrap();
    scratch.0.kill().unwrap();
    assert_eq!(process.signal(), Some(libc::SIGKILL));
    scratch.0.remove(soon()).unwrap();
    assert!(scratch.gone());
}

#[test]
fn without_cgroup2_killing_goes_by_the_freezer() {
    let scratch = created!();
    let mut location = scratch.0.location().clone();
    location.directories.retain(|directory| !directory.hierarchy.is_empty());
    let v1 = super::Manager::new(&location);
    let (mut one, mut two) = (scratch.sleeper(), scratch.sleeper());
    v1.kill().unwrap();
    assert_eq!((one.signal(), two.signal()), (Some(libc::SIGKILL), Some(libc::SIGKILL)));
    let mut three = scratch.sleeper();
    v1.remove(soon()).unwrap();
    assert_eq!(three.signal(), Some(libc::SIGKILL));
    assert!(location.directories.iter().all(|directory| !directory.path.exists()));
}

#[test]
fn cgroups_that_the_container_made_go_with_it_and_processes_in_one_hierarchy_alone_too() {
    let scratch = created!();
    let nested = scratch.dir("memory").join("a/b");
    std::fs::create_dir_all(&nested).unwrap();
    let mut alone = Process::sleeping();
    std::fs::write(nested.join("cgroup.procs"), alone.0.id().to_string()).unwrap();
    let mut inside = scratch.sleeper();
    std::fs::create_dir_all(scratch.dir("").join("c")).unwrap();
    scratch.0.remove(soon()).unwrap();
    assert!(scratch.gone());
    assert_eq!((alone.signal(), inside.signal()), (Some(libc::SIGKILL), Some(libc::SIGKILL)));
}

#[test]
fn what_stays_is_named() {
    needs_v1!();
    let parent = unique();
    let path = format!("/{parent}/inner");
    let location = locate(Driver::Cgroupfs, Some(Path::new(&path)), "ignored").unwrap();
    {
        let scratch = Scratch(open(&location));
        scratch.0.create(soon()).unwrap();
        let process = scratch.sleeper();
        // Held by the parent's freezer, which is not the container's to thaw: SIGKILL has to wait.
        let state = scratch.dir("freezer").parent().unwrap().join("freezer.state");
        std::fs::write(&state, "FROZEN").unwrap();
        let error =
            scratch.0.remove(crate::deadline::Deadline::after(std::time::Duration::ZERO)).unwrap_err().to_string();
        std::fs::write(&state, "THAWED").unwrap();
        let named = format!("is still in use: pid {} \"sleep\" (state ", process.pid());
        assert!(error.contains(&named) && error.contains(", wchan "), "{error}");
    }
    for directory in &location.directories {
        std::fs::remove_dir(directory.path.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_location_survives_its_manager() {
    needs_v1!();
    let scratch = Scratch::created();
    let text = serde_json::to_string(scratch.0.location()).unwrap();
    let location: Location = serde_json::from_str(&text).unwrap();
    open(&location).remove(soon()).unwrap();
    assert!(scratch.gone());
}
