//! On the kernel: every test puts its own thread into a mount namespace with cgroup2 alone. And on plain files, for
//! controllers that a host with v1 hierarchies keeps there.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::limit;
use crate::cgroup::device::tests::rule;
use crate::cgroup::dir::Dir;
use crate::cgroup::files::Occupancy;
use crate::cgroup::scratch::{Scratch, enter_pure_cgroup2, resources, soon, unique};
use crate::cgroup::{Driver, Freezer, locate, open};

/// A directory with plain files in place of cgroupfs'.
struct Files(PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        for (file, value) in files {
            std::fs::write(path.join(file), value).unwrap();
        }
        Self(path)
    }

    fn apply(&self, json: &str) -> crate::Result<()> {
        self.apply_to(Occupancy::Empty, json)
    }

    fn apply_to(&self, occupancy: Occupancy, json: &str) -> crate::Result<()> {
        limit::apply(&Dir::new(&self.0), &resources(json), occupancy)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn every_field_has_its_file_and_form() {
    for (json, file, value) in [
        (r#"{"cpu": {"shares": 1024}}"#, "cpu.weight", "100"),
        (r#"{"cpu": {"quota": 5000}}"#, "cpu.max", "5000"),
        (r#"{"cpu": {"quota": -1, "period": 1000}}"#, "cpu.max", "max 1000"),
        (r#"{"cpu": {"burst": 0}}"#, "cpu.max.burst", "0"),
        (r#"{"cpu": {"idle": 1}}"#, "cpu.idle", "1"),
        (r#"{"cpu": {"cpus": "0-1"}}"#, "cpuset.cpus", "0-1"),
        (r#"{"cpu": {"mems": "0"}}"#, "cpuset.mems", "0"),
        (r#"{"memory": {"limit": 1000}}"#, "memory.max", "1000"),
        (r#"{"memory": {"limit": -1}}"#, "memory.max", "max"),
        (r#"{"memory": {"reservation": 500}}"#, "memory.low", "500"),
        (r#"{"memory": {"limit": 1000, "swap": 1500}}"#, "memory.swap.max", "500"),
        (r#"{"memory": {"limit": 1000, "swap": 1000}}"#, "memory.swap.max", "0"),
        (r#"{"memory": {"limit": -1}}"#, "memory.swap.max", "max"),
        (r#"{"pids": {"limit": 0}}"#, "pids.max", "1"),
        (r#"{"pids": {"limit": -1}}"#, "pids.max", "max"),
        (r#"{"blockIO": {"weight": 500}}"#, "io.weight", "4950"),
        (r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]}}"#, "io.max", "8:0 rbps=7"),
        (
            r#"{"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}}"#,
            "io.max",
            "8:1 wiops=max",
        ),
        (r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}"#, "hugetlb.2MB.max", "4096"),
        (r#"{"rdma": {"mlx5_1": {"hcaHandles": 3}}}"#, "rdma.max", "mlx5_1 hca_handle=3"),
        (r#"{"memory": {"limit": 1000}, "unified": {"memory.max": "2000"}}"#, "memory.max", "2000"),
    ] {
        let mut files = vec![("memory.swap.max", "")];
        files.push((file, ""));
        if file != "memory.max" {
            files.push(("memory.max", ""));
        }
        let dir = Files::new(&files);
        dir.apply(json).unwrap();
        assert_eq!(dir.read(file), value, "{json}");
    }
}

#[test]
fn what_is_zero_or_absent_is_not_written() {
    let dir = Files::new(&[]);
    dir.apply(
        r#"{"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}, "memory": {"limit": 0, "swap": 0, "reservation": 0},
            "blockIO": {"weight": 0, "leafWeight": 0}, "network": {"classID": 0}, "unified": {}}"#,
    )
    .unwrap();
}

#[test]
fn a_period_alone_keeps_the_quota_and_a_swap_alone_counts_from_the_limit_in_force() {
    let dir = Files::new(&[("cpu.max", "5000 100000\n"), ("memory.max", "1000\n"), ("memory.swap.max", "")]);
    dir.apply(r#"{"cpu": {"period": 999999}, "memory": {"swap": 1700}}"#).unwrap();
    assert!(dir.read("cpu.max").starts_with("5000 999999"));
    assert_eq!(dir.read("memory.swap.max"), "700");
}

#[test]
fn bfq_has_a_weight_of_its_own_scale() {
    let dir = Files::new(&[("io.bfq.weight", "")]);
    dir.apply(r#"{"blockIO": {"weight": 500}}"#).unwrap();
    assert_eq!(dir.read("io.bfq.weight"), "500");
}

#[test]
fn a_kernel_without_swap_needs_no_file_to_have_none() {
    let dir = Files::new(&[("memory.max", "")]);
    dir.apply(r#"{"memory": {"limit": 1000, "swap": 1000}}"#).unwrap();
    let error = dir.apply(r#"{"memory": {"limit": 1000, "swap": 2000}}"#).unwrap_err().to_string();
    assert!(
        error.starts_with("linux.resources.memory.swap: controller \"memory\" is not available: write("),
        "{error}"
    );
}

#[test]
fn what_cannot_be_had_is_refused_by_field() {
    let dir = Files::new(&[]);
    for (json, start) in [
        (r#"{"pids": {"limit": 5}}"#, "linux.resources.pids.limit: controller \"pids\" is not available: write("),
        (r#"{"unified": {"../x": "1"}}"#, "linux.resources.unified[\"../x\"]: not the name of a file"),
        (r#"{"unified": {"..": "1"}}"#, "linux.resources.unified[\"..\"]: not the name of a file"),
        (
            r#"{"unified": {"foo.max": "1"}}"#,
            "linux.resources.unified[\"foo.max\"]: controller \"foo\" is not available",
        ),
    ] {
        let error = dir.apply(json).unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn what_v2_has_nothing_for_is_passed_over() {
    let dir = Files::new(&[]);
    dir.apply(
        r#"{"cpu": {"realtimeRuntime": 1, "realtimePeriod": 2},
            "memory": {"swappiness": 1, "disableOOMKiller": true, "useHierarchy": false, "kernel": 5},
            "blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 30}]},
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}}"#,
    )
    .unwrap();
}

#[test]
fn a_memory_limit_below_what_is_in_use_is_made_room_for_first() {
    let files = [
        ("memory.current", "5000\n"),
        ("memory.max", ""),
        ("memory.high", "max\n"),
        ("memory.reclaim", ""),
        ("memory.swap.current", "300\n"),
        ("memory.swap.max", ""),
    ];
    let dir = Files::new(&files);
    let asked = r#"{"memory": {"limit": 4000, "checkBeforeUpdate": true}}"#;
    // Nobody is in a cgroup that is just made.
    dir.apply(asked).unwrap();
    assert_eq!(dir.read("memory.max"), "4000");
    let dir = Files::new(&files);
    let error = dir.apply_to(Occupancy::InUse, asked).unwrap_err().to_string();
    assert_eq!(
        error,
        "linux.resources.memory.limit: rejecting memory limit 4000: 5000 bytes are in use (memory.checkBeforeUpdate is set)"
    );
    assert_eq!((dir.read("memory.reclaim").as_str(), dir.read("memory.max").as_str()), ("1000", ""));
    let error = dir
        .apply_to(Occupancy::InUse, r#"{"memory": {"limit": 5100, "swap": 5200, "checkBeforeUpdate": true}}"#)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("linux.resources.memory.swap: rejecting memory+swap limit 5200: 5300 bytes"), "{error}");
    // Without the check the kernel decides, and memory.high is as it was.
    let dir = Files::new(&files);
    dir.apply_to(Occupancy::InUse, r#"{"memory": {"limit": 4000}}"#).unwrap();
    // Plain files keep what lies behind a shorter text.
    assert_eq!((dir.read("memory.high").as_str(), dir.read("memory.max").as_str()), ("max0", "4000"));
    // Above what is in use nothing else is touched.
    let dir = Files::new(&files);
    dir.apply_to(Occupancy::InUse, r#"{"memory": {"limit": 6000, "checkBeforeUpdate": true}}"#).unwrap();
    assert_eq!((dir.read("memory.high").as_str(), dir.read("memory.reclaim").as_str()), ("max\n", ""));
    assert_eq!(dir.read("memory.max"), "6000");
}

#[test]
fn a_unified_value_goes_line_by_line() {
    let dir = Files::new(&[]);
    let path = dir.0.join("io.max");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Both ends, so that neither open waits; the lines stay in the pipe one after the other.
    let mut pipe = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    dir.apply(r#"{"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n"}}"#).unwrap();
    let mut bytes = [0; 64];
    let count = pipe.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"8:0 rbps=18:16 rbps=2");
}

#[test]
fn create_clone_target_and_remove() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    let [directory] = scratch.0.location().directories.as_slice() else { panic!("one directory") };
    assert_eq!(directory.hierarchy, "");
    assert!(directory.path.starts_with("/sys/fs/cgroup") && directory.path.join("cgroup.procs").exists());
    assert!(scratch.0.clone_target().unwrap().is_some());
    assert!(scratch.0.entrances().unwrap().is_empty());
    scratch.0.remove(soon()).unwrap();
    assert!(scratch.gone());
    scratch.0.remove(soon()).unwrap();
}

#[test]
fn a_controller_is_handed_down_through_all_ancestors() {
    enter_pure_cgroup2();
    let root = Path::new("/sys/fs/cgroup");
    let words = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    if !words("cgroup.controllers").contains("hugetlb") {
        tare_testkit::skip!("no hugetlb in cgroup2 here");
    }
    let before = words("cgroup.subtree_control");
    let name = unique();
    let location = locate(Driver::Cgroupfs, Some(Path::new(&format!("/{name}/inner"))), "ignored").unwrap();
    {
        let scratch = Scratch(open(&location));
        scratch.0.create(soon()).unwrap();
        scratch.0.apply(&resources(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#)).unwrap();
        assert_eq!(scratch.read("", "hugetlb.2MB.max"), "4194304");
        assert_eq!(scratch.read("", "hugetlb.2MB.rsvd.max"), "4194304");
        let error = scratch.0.apply(&resources(r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#));
        assert!(error.unwrap_err().to_string().starts_with("linux.resources.hugepageLimits: "));
    }
    std::fs::remove_dir(root.join(&name)).unwrap();
    if !before.contains("hugetlb") {
        // As it was; EBUSY would mean that another test has begun to need it.
        let _ = std::fs::write(root.join("cgroup.subtree_control"), "-hugetlb");
    }
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    open(scratch.0.location()).create(soon()).unwrap();
    {
        let _process = scratch.sleeper();
        let error = open(scratch.0.location()).create(soon()).unwrap_err();
        assert_eq!(error.to_string(), "container's cgroup is not empty: 1 process(es) found");
    }
    scratch.0.freeze(Freezer::Frozen, soon()).unwrap();
    let error = open(scratch.0.location()).create(soon()).unwrap_err();
    assert_eq!(error.to_string(), "container's cgroup unexpectedly frozen");
    assert!(!scratch.gone());
}

#[test]
fn frozen_processes_and_sub_cgroups_are_killed_and_removed() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    let nested = scratch.dir("").join("a/b");
    std::fs::create_dir_all(&nested).unwrap();
    let (mut one, mut two) = (scratch.sleeper(), scratch.sleeper());
    std::fs::write(nested.join("cgroup.procs"), two.0.id().to_string()).unwrap();
    let mut expected = [one.pid(), two.pid()];
    expected.sort_unstable();
    assert_eq!(scratch.0.pids().unwrap().iter().map(|pid| pid.as_raw()).collect::<Vec<_>>(), expected);
    scratch.0.freeze(Freezer::Frozen, soon()).unwrap();
    assert_eq!(scratch.0.frozen().unwrap(), Freezer::Frozen);
    assert!(scratch.read("", "cgroup.events").contains("frozen 1"));
    scratch.0.remove(soon()).unwrap();
    assert!(scratch.gone());
    assert_eq!((one.signal(), two.signal()), (Some(libc::SIGKILL), Some(libc::SIGKILL)));
}

#[test]
fn freezing_gives_up_at_the_deadline_and_thaws() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    let _process = scratch.sleeper();
    // The deadline has passed: the wait may still find it done, but never hangs and never leaves it half frozen.
    if scratch.0.freeze(Freezer::Frozen, crate::deadline::Deadline::after(std::time::Duration::ZERO)).is_err() {
        assert_eq!(scratch.0.frozen().unwrap(), Freezer::Thawed);
    }
}

#[test]
fn the_device_program_decides_and_an_update_replaces_it() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    // kmsg is 1:11: not among the default devices.
    let opens = ["true </dev/null", "true >/dev/zero", "true </dev/kmsg", "true >/dev/kmsg"];
    scratch.0.allow_devices(&[]).unwrap();
    assert_eq!(scratch.run_inside("", &opens), [true, true, false, false]);
    scratch.0.allow_devices(&[rule("allow c 1:11 r")]).unwrap();
    assert_eq!(scratch.run_inside("", &opens), [true, true, true, false]);
    // A hole in a wider rule: v1 could not.
    scratch.0.allow_devices(&[rule("allow c 1:* rw"), rule("deny c 1:11 r")]).unwrap();
    assert_eq!(scratch.run_inside("", &opens), [true, true, false, true]);
    scratch.0.allow_devices(&[rule("allow a")]).unwrap();
    assert_eq!(scratch.run_inside("", &opens), [true, true, true, true]);
    let cgroup = scratch.0.clone_target().unwrap().unwrap();
    let programs = crate::sys::bpf::device_programs(std::os::fd::AsFd::as_fd(&cgroup)).unwrap();
    assert_eq!(programs.len(), 1, "replaced, not piled up");
}

#[test]
fn while_a_device_program_is_replaced_both_rules_hold() {
    enter_pure_cgroup2();
    let scratch = Scratch::created();
    scratch.0.allow_devices(&[]).unwrap();
    // /dev/null is allowed by both lists, kmsg by none: an instant without a program would open it.
    let opens = "true </dev/null || echo refused; true </dev/kmsg && echo opened";
    let seen = scratch.repeat_inside(&[""], opens, || {
        for _ in 0..100 {
            let tun = r#"{"devices": [{"allow": true, "type": "c", "major": 10, "access": "rw"}]}"#;
            scratch.0.update(&resources(tun), soon()).unwrap();
            scratch.0.update(&resources(r#"{"devices": []}"#), soon()).unwrap();
        }
    });
    assert_eq!(seen.lines().count(), 0, "{:?}", seen.lines().next());
}
