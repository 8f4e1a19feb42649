//! `update`: the limits of a container at work.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, Output, known, skip, wait_until};

use crate::limits::{block_device, file_of, limited, on_v2, read};
use crate::runtime;

/// Leaves the test without root or cgroups.
macro_rules! needs_cgroups {
    () => {
        if !host::is_root() || host::cgroup_mode() == CgroupMode::None {
            skip!("needs root and cgroups");
        }
    };
}

/// `update --resources -`
fn update(container: &Container<'_>, resources: &Value) -> Output {
    container.verb("update").args(["--resources", "-", container.id()]).stdin(resources.to_string()).run()
}

/// The memory limit.
fn memory(container: &Container<'_>) -> String {
    read(container, "memory", if on_v2() { "memory.max" } else { "memory.limit_in_bytes" })
}

/// Quota and period, as `30000 60000`.
fn bandwidth(container: &Container<'_>) -> String {
    if on_v2() {
        return read(container, "cpu", "cpu.max");
    }
    let quota = read(container, "cpu", "cpu.cfs_quota_us");
    let quota = if quota == "-1" { "max".to_owned() } else { quota };
    format!("{quota} {}", read(container, "cpu", "cpu.cfs_period_us"))
}

/// A container that holds 48 MiB of its own.
fn holder() -> Bundle {
    // What dd reads in one go it holds until it has written it, to a pipe that nobody empties.
    Bundle::script("dd if=/dev/zero bs=48M count=1 2>/dev/null | sleep 1000")
}

fn used(container: &Container<'_>) -> u64 {
    read(container, "memory", if on_v2() { "memory.current" } else { "memory.usage_in_bytes" }).parse().unwrap()
}

#[test]
fn flags_change_what_they_name_and_leave_the_rest() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = limited(&json!({
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100_000},
        "pids": {"limit": 20},
    }));
    let container = runtime.container(&bundle);
    container.up();
    container.call("update", &["--memory", "33554432"]).ok();
    assert_eq!(memory(&container), "33554432");
    container.call("update", &["--pids-limit", "10"]).ok();
    container.call("update", &["--cpu-share", "1024"]).ok();
    container.call("update", &["--cpuset-cpus", "0"]).ok();
    container.call("update", &["--cpuset-mems", "0"]).ok();
    container.call("update", &["--memory-reservation", "16777216"]).ok();
    assert_eq!(memory(&container), "33554432");
    assert_eq!(read(&container, "pids", "pids.max"), "10");
    assert_eq!(read(&container, "cpuset", "cpuset.cpus"), "0");
    assert_eq!(read(&container, "cpuset", "cpuset.mems"), "0");
    assert_eq!(bandwidth(&container), "50000 100000");
    let reservation = if on_v2() { "memory.low" } else { "memory.soft_limit_in_bytes" };
    assert_eq!(read(&container, "memory", reservation), "16777216");
    if !on_v2() {
        assert_eq!(read(&container, "cpu", "cpu.shares"), "1024");
        assert_eq!(read(&container, "memory", "memory.memsw.limit_in_bytes"), (128 << 20).to_string());
    } else if runtime.is_tare() {
        assert_eq!(read(&container, "cpu", "cpu.weight"), "100");
    }
}

#[test]
fn several_flags_at_once() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let flags = ["--memory", "67108864", "--memory-swap", "100663296", "--cpu-quota", "20000", "--cpu-period", "40000"];
    container.call("update", &flags).ok();
    assert_eq!(memory(&container), "67108864");
    let (file, text) =
        if on_v2() { ("memory.swap.max", "33554432") } else { ("memory.memsw.limit_in_bytes", "100663296") };
    if file_of(&container, "memory", file).exists() {
        assert_eq!(read(&container, "memory", file), text);
    }
    assert_eq!(bandwidth(&container), "20000 40000");
}

#[test]
fn sizes_have_units_and_minus_one_lifts_a_limit() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes numbers without units alone");
    let bundle = limited(&json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}));
    let container = runtime.container(&bundle);
    container.up();
    for (size, bytes) in [("48M", 48 << 20), ("65536k", 64 << 20), ("1g", 1 << 30)] {
        container.call("update", &["--memory", size]).ok();
        assert_eq!(memory(&container), bytes.to_string(), "{size}");
    }
    container.call("update", &["--memory", "-1"]).ok();
    let unlimited = memory(&container);
    assert!(unlimited == "max" || unlimited.parse::<u64>().unwrap() > 1 << 60, "{unlimited}");
    container.call("update", &["--pids-limit", "-1"]).ok();
    assert_eq!(read(&container, "pids", "pids.max"), "max");
    container.call("update", &["--cpu-quota", "-1"]).ok();
    assert!(bandwidth(&container).starts_with("max "));
}

#[test]
fn a_quota_alone_keeps_the_period_and_a_period_alone_the_quota() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = limited(&json!({"cpu": {"quota": 30000, "period": 60000}}));
    let container = runtime.container(&bundle);
    container.up();
    container.call("update", &["--cpu-quota", "40000"]).ok();
    assert_eq!(bandwidth(&container), "40000 60000");
    container.call("update", &["--cpu-period", "50000"]).ok();
    assert_eq!(bandwidth(&container), "40000 50000");
    update(&container, &json!({"cpu": {"quota": 20000}})).ok();
    assert_eq!(bandwidth(&container), "20000 50000");
    update(&container, &json!({"cpu": {"period": 100_000}})).ok();
    assert_eq!(bandwidth(&container), "20000 100000");
}

#[test]
fn burst_and_idle_by_flags() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has neither flag", Crun: "has neither flag");
    let bundle = limited(&json!({"cpu": {"quota": 50000, "period": 100_000}}));
    let container = runtime.container(&bundle);
    container.up();
    let burst = if on_v2() { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    if !file_of(&container, "cpu", burst).exists() || !file_of(&container, "cpu", "cpu.idle").exists() {
        skip!("this kernel has no {burst} or no cpu.idle");
    }
    container.call("update", &["--cpu-burst", "30000"]).ok();
    assert_eq!(read(&container, "cpu", burst), "30000");
    container.call("update", &["--cpu-burst", "0"]).ok();
    assert_eq!(read(&container, "cpu", burst), "0");
    container.call("update", &["--cpu-idle", "1"]).ok();
    assert_eq!(read(&container, "cpu", "cpu.idle"), "1");
    // An idle group takes no weight: the switch goes first.
    container.call("update", &["--cpu-idle", "0", "--cpu-share", "1024"]).ok();
    assert_eq!(read(&container, "cpu", "cpu.idle"), "0");
    container.call("update", &["--cpu-idle", "1", "--cpu-share", "512"]).ok();
    assert_eq!(read(&container, "cpu", "cpu.idle"), "1");
}

#[test]
fn realtime_by_flags() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    if on_v2() || !file_of(&container, "cpu", "cpu.rt_runtime_us").exists() {
        skip!("no realtime limits: cgroup v2, or a kernel without CONFIG_RT_GROUP_SCHED");
    }
    container.call("update", &["--cpu-rt-period", "800000", "--cpu-rt-runtime", "4000"]).ok();
    assert_eq!(read(&container, "cpu", "cpu.rt_period_us"), "800000");
    assert_eq!(read(&container, "cpu", "cpu.rt_runtime_us"), "4000");
}

#[test]
fn the_block_io_weight_by_its_flag() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 looks for CFQ's file alone");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for (controller, file, text) in [
        ("blkio", "blkio.bfq.weight", "300"),
        ("io", "io.bfq.weight", "default 300"),
        ("io", "io.weight", "default 2930"),
    ] {
        if on_v2() == (controller == "io") && file_of(&container, controller, file).exists() {
            container.call("update", &["--blkio-weight", "300"]).ok();
            assert_eq!(read(&container, controller, file), text);
            return;
        }
    }
    skip!("this kernel has no file for a weight");
}

#[test]
fn the_throttle_of_one_device_leaves_that_of_another() {
    needs_cgroups!();
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 takes only the weight from an update");
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = limited(&json!({"blockIO": {"throttleReadBpsDevice": device(1_000_000)}}));
    let container = runtime.container(&bundle);
    container.up();
    update(&container, &json!({"blockIO": {"throttleWriteBpsDevice": device(2_000_000)}})).ok();
    let name = format!("{major}:{minor}");
    if on_v2() {
        let expected = format!("{name} rbps=1000000 wbps=2000000 riops=max wiops=max");
        assert_eq!(read(&container, "io", "io.max"), expected);
    } else {
        assert_eq!(read(&container, "blkio", "blkio.throttle.read_bps_device"), format!("{name} 1000000"));
        assert_eq!(read(&container, "blkio", "blkio.throttle.write_bps_device"), format!("{name} 2000000"));
    }
    // A rate of 0 takes it away.
    update(&container, &json!({"blockIO": {"throttleReadBpsDevice": device(0)}})).ok();
    if on_v2() {
        let expected = format!("{name} rbps=max wbps=2000000 riops=max wiops=max");
        assert_eq!(read(&container, "io", "io.max"), expected);
    } else {
        assert_eq!(read(&container, "blkio", "blkio.throttle.read_bps_device"), "");
    }
}

#[test]
fn a_document_is_read_from_a_file_or_stdin_and_the_flags_are_then_ignored() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let file = runtime.dir().join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 33}}).to_string()).unwrap();
    container.verb("update").arg("-r").arg(&file).arg(container.id()).run().ok();
    assert_eq!(read(&container, "pids", "pids.max"), "33");
    update(&container, &json!({"pids": {"limit": 34}, "memory": {"limit": 64 << 20}})).ok();
    assert_eq!(read(&container, "pids", "pids.max"), "34");
    assert_eq!(memory(&container), "67108864");
    known!(runtime, Crun: "1.8.1 succeeds without a document");
    fs::write(&file, "{\n  \"pids\": 7\n}").unwrap();
    container.verb("update").arg("-r").arg(&file).arg(container.id()).run().fails(&[]);
    container.verb("update").arg("-r").arg("/nonexistent").arg(container.id()).run().fails(&[]);
    assert_eq!(read(&container, "pids", "pids.max"), "34");
}

#[test]
fn memory_and_swap_are_raised_and_lowered_together() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = limited(&json!({"memory": {"limit": 64 << 20, "swap": 96 << 20}}));
    let container = runtime.container(&bundle);
    container.up();
    let file = if on_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    if !file_of(&container, "memory", file).exists() {
        skip!("this kernel does not account swap");
    }
    for (limit, swap) in [(128u64 << 20, 256u64 << 20), (32 << 20, 48 << 20), (512 << 20, 512 << 20)] {
        update(&container, &json!({"memory": {"limit": limit, "swap": swap}})).ok();
        assert_eq!(memory(&container), limit.to_string());
        let expected = if on_v2() { swap - limit } else { swap };
        assert_eq!(read(&container, "memory", file), expected.to_string());
    }
}

/// Kubernetes KEP 1287: a limit below what is in use must not kill.
#[test]
fn with_check_before_update_a_limit_below_what_is_in_use_is_refused_with_the_numbers() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 does not know the field: other words on v1", Crun: "1.8.1 does not know the field");
    let bundle = holder().resource("memory", json!({"limit": 128 << 20, "swap": 128 << 20}));
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it holds its memory", || used(&container) > 48 << 20);
    let high = on_v2().then(|| read(&container, "memory", "memory.high"));
    let pids = read(&container, "pids", "pids.max");
    let asked =
        json!({"memory": {"limit": 16 << 20, "swap": 16 << 20, "checkBeforeUpdate": true}, "pids": {"limit": 5}});
    let output = update(&container, &asked).fails(&[]);
    let line = output.stderr.lines().find(|line| line.contains("memory.")).unwrap_or_default();
    assert!(line.contains("16777216") && line.contains("bytes are in use"), "{output}");
    if on_v2() {
        assert!(line.contains("rejecting memory"), "{output}");
    }
    container.is("running");
    assert_eq!(memory(&container), (128 << 20).to_string());
    assert_eq!(read(&container, "pids", "pids.max"), pids);
    assert_eq!(on_v2().then(|| read(&container, "memory", "memory.high")), high);
    // What there is room for is granted all the same.
    let asked = json!({"memory": {"limit": 96 << 20, "swap": 96 << 20, "checkBeforeUpdate": true}});
    update(&container, &asked).ok();
    assert_eq!(memory(&container), (96 << 20).to_string());
    container.is("running");
}

/// Page cache is in use too, but nobody needs it: it is reclaimed first.
#[test]
fn page_cache_makes_room_for_a_lower_memory_limit() {
    needs_cgroups!();
    let runtime = runtime();
    let script =
        "dd if=/dev/zero of=/cache bs=1M count=48 2>/dev/null; sync; cat /cache >/dev/null; touch /ready; sleep 1000";
    let bundle = Bundle::script(script).resource("memory", json!({"limit": 128 << 20, "swap": 128 << 20}));
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the file is read", || bundle.rootfs().join("ready").exists());
    let stat = read(&container, "memory", "memory.stat");
    let shmem = stat.lines().find_map(|line| line.strip_prefix("shmem ")?.parse::<u64>().ok()).unwrap_or(0);
    if used(&container) < 40 << 20 || shmem > 40 << 20 {
        skip!("the bundle is on a file system without a page cache that could be given up");
    }
    let asked = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20, "checkBeforeUpdate": true}});
    update(&container, &asked).ok();
    assert_eq!(memory(&container), (16 << 20).to_string());
    if on_v2() {
        assert_eq!(read(&container, "memory", "memory.high"), "max");
    }
    container.is("running");
}

#[test]
fn an_update_that_fails_changes_nothing_and_names_the_field() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "leaves what it wrote before", Crun: "leaves what it wrote before");
    let bundle = limited(&json!({
        "memory": {"limit": 64 << 20},
        "cpu": {"quota": 50000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20},
    }));
    let container = runtime.container(&bundle);
    container.up();
    let state = || {
        [memory(&container), bandwidth(&container), read(&container, "pids", "pids.max"), {
            read(&container, "cpuset", "cpuset.cpus")
        }]
    };
    let before = state();
    let output = update(
        &container,
        &json!({
            "cpu": {"quota": 10000, "period": 20000},
            "memory": {"limit": 96 << 20},
            "pids": {"limit": 21},
            "blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 1, "rate": 1}]},
        }),
    )
    .fails(&[]);
    assert!(output.stderr.contains("linux.resources.blockIO.throttleReadBpsDevice: "), "{output}");
    assert_eq!(state(), before);
    let output = container.call("update", &["--pids-limit", "30", "--cpuset-cpus", "4000"]).fails(&[]);
    assert!(output.stderr.contains("linux.resources.cpu.cpus: "), "{output}");
    assert_eq!(state(), before);
}

#[test]
fn a_created_and_a_paused_container_can_be_updated_and_a_stopped_one_not() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    container.call("update", &["--pids-limit", "30"]).ok();
    container.start().ok();
    assert_eq!(read(&container, "pids", "pids.max"), "30");
    container.call("pause", &[]).ok();
    let paused = container.call("update", &["--pids-limit", "31"]);
    if runtime.is_tare() {
        paused.ok();
        container.is("paused");
    }
    container.call("resume", &[]).ok();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    known!(runtime, Crun: "1.8.1 updates what is not there");
    container.call("update", &["--pids-limit", "32"]).fails(&["not running"]);
}

const KMSG: &str = "c 1:11";

fn rules(also: &[(i64, i64)]) -> Value {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    let allow = |(major, minor): &(i64, i64)| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"});
    rules.extend(also.iter().map(allow));
    Value::Array(rules)
}

/// A container that can try devices: `/dev/k` is kmsg, 1:11, `/dev/n` is null.
fn with_nodes(also: &[(i64, i64)]) -> Bundle {
    Bundle::script("mknod /dev/k c 1 11; mknod /dev/n c 1 3; touch /ready; sleep 1000")
        .resource("devices", rules(also))
        .capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
}

fn opens_kmsg(container: &Container<'_>) -> bool {
    container.exec(["sh", "-c", ": < /dev/k"]).success()
}

#[test]
fn without_a_list_the_devices_stay_as_they_are() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = with_nodes(&[(1, 11)]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    assert!(opens_kmsg(&container));
    container.call("update", &["--pids-limit", "50"]).ok();
    update(&container, &json!({"cpu": {"shares": 700}})).ok();
    assert!(opens_kmsg(&container));
}

#[test]
fn a_list_of_devices_takes_the_place_of_the_one_before() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "never updates devices");
    let bundle = with_nodes(&[]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    assert!(!opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[(1, 11)])})).ok();
    assert!(opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[(10, 229)])})).ok();
    assert!(!opens_kmsg(&container));
    // The one of create comes back: the comparison is with what holds, not with config.json.
    update(&container, &json!({"devices": rules(&[])})).ok();
    assert!(!opens_kmsg(&container));
    update(&container, &json!({"devices": [{"allow": true, "access": "rwm"}]})).ok();
    assert!(opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[])})).ok();
    assert!(!opens_kmsg(&container));
}

/// A container that opens a device over and over sees no instant without rules, and none where all is denied.
#[test]
fn while_the_list_of_devices_changes_what_both_allow_can_be_opened() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "never updates devices", Crun: "denies everything for an instant");
    let script = "mknod /dev/k c 1 11; mknod /dev/n c 1 3; touch /ready; \
        while [ ! -e /stop ]; do true < /dev/n || echo refused; true < /dev/k && echo opened; done 2>/dev/null; touch /stopped; sleep 1000";
    let bundle = Bundle::script(script).resource("devices", rules(&[])).capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let container = runtime.container(&bundle);
    let output = runtime.dir().join("output");
    let create = container.verb("create").arg(container.id());
    let file = fs::File::create(&output).unwrap();
    let null = || fs::File::open("/dev/null").unwrap();
    let status = create.stdio([null().into(), file.try_clone().unwrap().into(), file.into()]).run();
    status.ok();
    container.start().ok();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    for round in 0..20 {
        let list = if round % 2 == 0 { rules(&[(10, 229), (10, 232)]) } else { rules(&[(10, 223)]) };
        update(&container, &json!({"devices": list})).ok();
    }
    fs::write(bundle.rootfs().join("stop"), "").unwrap();
    wait_until("it has stopped", || bundle.rootfs().join("stopped").exists());
    let seen = fs::read_to_string(&output).unwrap();
    assert!(seen.is_empty(), "{} lines, the first is {:?}", seen.lines().count(), seen.lines().next());
}

/// What a hook has added, a GPU say, goes away only by a list that is another one: clients send all they know again.
#[test]
fn the_same_list_again_leaves_what_others_have_added() {
    needs_cgroups!();
    if on_v2() {
        skip!("a cgroup v2 program has no list that others could add to");
    }
    let runtime = runtime();
    known!(runtime, Crun: "takes away what is not in the list");
    let bundle = with_nodes(&[(10, 229)]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    fs::write(file_of(&container, "devices", "devices.allow"), format!("{KMSG} rw")).unwrap();
    assert!(opens_kmsg(&container));
    let list = container_rules(&bundle);
    update(&container, &json!({"devices": list, "pids": {"limit": 60}})).ok();
    assert_eq!(read(&container, "pids", "pids.max"), "60");
    assert!(opens_kmsg(&container));
}

fn container_rules(bundle: &Bundle) -> Value {
    bundle.config()["linux"]["resources"]["devices"].clone()
}

#[test]
fn dropped_flags_are_warnings() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes numbers without units alone");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let output = container.call("update", &["--kernel-memory", "50M", "--kernel-memory-tcp", "50M"]).ok();
    assert!(output.stderr.to_lowercase().contains("kernel"), "{output}");
}

#[test]
fn cache_and_bandwidth_need_resctrl() {
    needs_cgroups!();
    let runtime = runtime();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        skip!("this host has resctrl: its classes are not ours to change");
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for flag in ["--l3-cache-schema", "--mem-bw-schema"] {
        container.call("update", &[flag, "L3:0=f"]).fails(&[]);
    }
    known!(runtime, Crun: "looks for resctrl even so");
    // An empty one asks for nothing.
    container.call("update", &["--l3-cache-schema", "", "--mem-bw-schema", ""]).ok();
}

/// Two at once: both arrive, none tears the other's.
#[test]
fn updates_take_turns() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let running: Vec<_> = (0..6)
        .map(|round| {
            let (flag, value) = if round % 2 == 0 { ("--pids-limit", "70") } else { ("--cpu-share", "1024") };
            container.verb("update").args([flag, value, container.id()]).spawn()
        })
        .collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(read(&container, "pids", "pids.max"), "70");
    if runtime.is_tare() {
        let recorded = fs::read_to_string(runtime.root().join(container.id()).join("updates.json")).unwrap();
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        assert_eq!(recorded, json!({"pids": {"limit": 70}, "cpu": {"shares": 1024}}));
    }
}
