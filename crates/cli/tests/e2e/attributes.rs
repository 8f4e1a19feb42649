//! What a process is besides its identity: scheduling, priorities, CPUs, memory nodes, personality, labels, devices.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Container, Runtime, TempDir, known, skip, wait_until};

use crate::runtime;

/// The values of `/proc/PID/stat` from the third on: 19 is nice, 40 the real-time priority, 41 the policy.
const STAT: &str = "cat /proc/self/stat";

fn stat_field(output: &str, number: usize) -> &str {
    output.rsplit_once(") ").unwrap().1.split_whitespace().nth(number - 3).unwrap()
}

fn scheduler(scheduler: Value) -> Bundle {
    Bundle::new().args(STAT.split(' ')).set("/process/scheduler", scheduler)
}

/// A real-time policy needs bandwidth of its v1 cpu cgroup: without that hierarchy there is enough for all.
fn with_real_time_bandwidth(bundle: Bundle) -> Bundle {
    if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        bundle.resource("cpu", json!({"realtimeRuntime": 10_000, "realtimePeriod": 1_000_000}))
    } else {
        bundle
    }
}

fn status(runtime: &Runtime, bundle: Bundle, line: &str) -> String {
    let bundle = bundle.args(["grep", line, "/proc/self/status"]);
    runtime.run(&bundle).ok().text().split_whitespace().nth(1).unwrap().to_owned()
}

/// The CPUs of this host, in the words of the kernel.
fn all_cpus() -> String {
    fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().to_owned()
}

#[test]
fn the_policies_for_all_users_are_set() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    for (policy, number, nice) in [("SCHED_OTHER", "0", 7), ("SCHED_BATCH", "3", -3)] {
        let output = runtime.run(&scheduler(json!({"policy": policy, "nice": nice}))).ok();
        assert_eq!(stat_field(output.text(), 41), number, "{policy}");
        assert_eq!(stat_field(output.text(), 19), nice.to_string(), "{policy}");
    }
    // sched_setattr(2) leaves the nice value of an idle process alone.
    let output = runtime.run(&scheduler(json!({"policy": "SCHED_IDLE"}))).ok();
    assert_eq!(stat_field(output.text(), 41), "5");
}

#[test]
fn nice_is_0_with_a_policy_that_does_not_say() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    let bundle = scheduler(json!({"policy": "SCHED_OTHER"}));
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).through_shell("exec nice -n 5 \"$@\"").run().ok();
    assert_eq!(stat_field(output.text(), 19), "0");
}

#[test]
fn the_deadline_policy_has_its_three_times() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    let times = json!({"policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 20_000_000, "period": 40_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]});
    let bundle = Bundle::new().args(["sleep", "1000"]).set("/process/scheduler", times);
    let container = runtime.container(&bundle);
    container.up();
    assert_eq!(stat_field(&container.proc("stat"), 41), "6");
    let Ok(shown) = Command::new("chrt").args(["-p", &container.pid().to_string()]).output() else {
        skip!("no chrt to see the times with");
    };
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("SCHED_DEADLINE|SCHED_RESET_ON_FORK"), "{shown}");
    assert!(shown.trim_end().ends_with(": 2000000/20000000/40000000"), "{shown}");
}

#[test]
fn a_real_time_policy_has_its_priority_in_a_user_namespace_too() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    for (policy, number) in [("SCHED_FIFO", "1"), ("SCHED_RR", "2")] {
        let bundle = || with_real_time_bandwidth(scheduler(json!({"policy": policy, "priority": 42})));
        for bundle in [bundle(), bundle().user_namespace(100_000, 65_536)] {
            let output = runtime.run(&bundle);
            if output.stderr.contains("cpu.rt_runtime_us") || output.stderr.contains("realtimeRuntime") {
                skip!("no real-time bandwidth for a cgroup of this host: {}", output.stderr.trim());
            }
            let output = output.ok();
            assert_eq!(stat_field(output.text(), 41), number, "{policy}");
            assert_eq!(stat_field(output.text(), 40), "42", "{policy}");
        }
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_is_an_error_that_names_it() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    let output = runtime.run(&scheduler(json!({"policy": "SCHED_ISO"})));
    output.fails(&["process.scheduler: sched_setattr(policy 4"]);
    let deadline =
        json!({"policy": "SCHED_DEADLINE", "runtime": 3_000_000, "deadline": 2_000_000, "period": 4_000_000});
    runtime.run(&scheduler(deadline)).fails(&["sched_setattr"]);
}

#[test]
fn a_process_of_exec_is_scheduled_as_the_container_is() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no scheduler", Crun: "1.8.1 has no scheduler");
    let bundle = Bundle::sleeper()
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 4}))
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let container = runtime.container(&bundle);
    container.up();
    let output = container.exec(STAT.split(' ')).ok();
    assert_eq!((stat_field(output.text(), 41), stat_field(output.text(), 19)), ("3", "4"));
    assert_eq!(container.exec(["ionice"]).ok().text(), "best-effort: prio 6");

    let dir = TempDir::new("process");
    let file = dir.join("process.json");
    let mut process = json!({"args": ["cat", "/proc/self/stat"], "cwd": "/", "env": ["PATH=/bin"]});
    let exec = |process: &Value| {
        fs::write(&file, process.to_string()).unwrap();
        container.verb("exec").arg("--process").arg(&file).arg(container.id()).run().ok()
    };
    assert_eq!(stat_field(exec(&process).text(), 41), "3", "as the container");
    process["scheduler"] = json!({"policy": "SCHED_IDLE"});
    assert_eq!(stat_field(exec(&process).text(), 41), "5", "its own");
}

#[test]
fn io_priority_is_set() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no ioPriority", Crun: "1.8.1 has no ioPriority");
    for (class, priority, shown) in [
        ("IOPRIO_CLASS_RT", 1, "realtime: prio 1"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let given = json!({"class": class, "priority": priority});
        for bundle in [Bundle::new(), Bundle::new().user_namespace(100_000, 65_536)] {
            let output = runtime.run(&bundle.args(["ionice"]).set("/process/ioPriority", given.clone())).ok();
            assert!(output.text().starts_with(shown), "{class}: {output}");
        }
    }
}

#[test]
fn the_callers_affinity_is_not_the_containers() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "1.8.1 inherits it");
    let all = all_cpus();
    if all == "0" {
        skip!("one CPU");
    }
    let bundle = Bundle::script("grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
    let pinned = "exec taskset -c 0 \"$@\"";
    let container = runtime.container(&bundle);
    container.verb("create").arg(container.id()).through_shell(pinned).run().ok();
    container.start().ok();
    let allowed = |output: &str| output.split_whitespace().nth(1).unwrap().to_owned();
    let line = container.proc("status").lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned();
    assert_eq!(allowed(&line), all);
    let exec = container.verb("exec").arg(container.id()).args(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(allowed(exec.through_shell(pinned).run().ok().text()), all);
}

#[test]
fn the_cpuset_of_the_cgroup_holds_after_the_reset() {
    let runtime = runtime();
    let bundle = Bundle::new().resource("cpu", json!({"cpus": "0"}));
    assert_eq!(status(&runtime, bundle, "Cpus_allowed_list"), "0");
}

/// Where a process of exec may run, with this execCPUAffinity.
fn exec_affinity(container: &Container<'_>, affinity: &Value) -> tare_testkit::Output {
    let dir = TempDir::new("process");
    let file = dir.join("process.json");
    let args = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let process = json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity});
    fs::write(&file, process.to_string()).unwrap();
    container.verb("exec").arg("--process").arg(&file).arg(container.id()).run()
}

#[test]
fn exec_runs_on_the_cpus_that_it_is_given() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3", Crun: "since 1.17");
    let all = all_cpus();
    if all == "0" {
        skip!("one CPU");
    }
    let bundle = Bundle::sleeper().set("/process/execCPUAffinity", json!({"final": "1"}));
    let container = runtime.container(&bundle);
    container.up();
    let line = container.proc("status").lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned();
    assert_eq!(line.split_whitespace().nth(1), Some(all.as_str()), "it is not for init");
    for (affinity, cpus) in [
        (json!({"initial": "0", "final": "1"}), "1"),
        (json!({"final": "0"}), "0"),
        (json!({"initial": "1"}), "1"),
        (json!({"initial": "", "final": "0-1"}), "0-1"),
    ] {
        let output = exec_affinity(&container, &affinity).ok();
        assert_eq!(output.text().split_whitespace().nth(1), Some(cpus), "{affinity}");
    }
    let own = container.exec(["grep", "Cpus_allowed_list", "/proc/self/status"]).ok();
    assert_eq!(own.text().split_whitespace().nth(1), Some("1"), "of config.json");
}

#[test]
fn an_affinity_without_a_cpu_is_an_error() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3", Crun: "since 1.17");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for field in ["initial", "final"] {
        exec_affinity(&container, &json!({field: "8000"})).fails(&[&format!("execCPUAffinity.{field}")]);
        exec_affinity(&container, &json!({field: "0,x"})).fails(&["execCPUAffinity"]);
    }
}

#[test]
fn the_personality_is_that_of_the_domain_for_exec_too() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.2");
    let native = Command::new("uname").arg("-m").output().unwrap();
    let native = String::from_utf8(native.stdout).unwrap().trim().to_owned();
    let linux32 = if native == "x86_64" { "i686" } else { "armv8l" };
    for (domain, machine) in [("LINUX", native.as_str()), ("LINUX32", linux32)] {
        let bundle = Bundle::script("uname -m; exec sleep 1000").set("/linux/personality", json!({"domain": domain}));
        let container = runtime.container(&bundle);
        container.up();
        let number = container.proc("personality");
        assert_eq!(number.trim(), if domain == "LINUX" { "00000000" } else { "00000008" });
        assert_eq!(container.exec(["uname", "-m"]).ok().text(), machine, "{domain}");
    }
}

#[test]
fn the_memory_policy_is_set_for_exec_too() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.4", Crun: "since 1.24");
    if !Path::new("/proc/self/numa_maps").exists() {
        skip!("a kernel without NUMA");
    }
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "bind=relative:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let bundle = Bundle::new()
            .args(["sh", "-c", "head -1 /proc/self/numa_maps; exec sleep 1000"])
            .set("/linux/memoryPolicy", policy.clone());
        let container = runtime.container(&bundle);
        container.up();
        let mut own = String::new();
        wait_until("it is between no two programs", || {
            own = container.proc("numa_maps");
            !own.is_empty()
        });
        for text in [own, container.exec(["cat", "/proc/self/numa_maps"]).ok().text().to_owned()] {
            let first = text.lines().next().unwrap().split(' ').nth(1).map(str::to_owned);
            assert_eq!(first.as_deref(), Some(shown), "{policy}");
        }
    }
    let bundle = Bundle::new().set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}));
    runtime.run(&bundle).fails(&["linux.memoryPolicy: set_mempolicy"]);
}

#[test]
fn labels_of_modules_that_the_host_does_not_have_are_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 tries to write an AppArmor profile", Crun: "1.8.1 tries to write both");
    if Path::new("/sys/module/apparmor").exists() || Path::new("/sys/fs/selinux/policy").exists() {
        skip!("the host has one");
    }
    for (pointer, words) in [
        ("/process/apparmorProfile", "apparmor not enabled"),
        ("/process/selinuxLabel", "selinux is disabled or not supported"),
        ("/linux/mountLabel", "selinux is disabled or not supported"),
    ] {
        let bundle = Bundle::script("echo ran").set(pointer, json!("some:label"));
        let output = runtime.run(&bundle);
        assert!(!output.stdout.contains("ran"), "{pointer}");
        output.fails(&[words]);
        runtime.run(&Bundle::new().set(pointer, json!(""))).ok();
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for (flag, words) in [("--apparmor", "apparmor not enabled"), ("--process-label", "selinux is disabled")] {
        let output = container.exec_with(&[flag, "some:label"], ["echo", "ran"]);
        assert_eq!(output.stdout, "", "{flag}");
        output.fails(&[words]);
    }
}

#[test]
fn intel_rdt_without_resctrl_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "ignores it", Crun: "1.8.1 has no intelRdt");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        skip!("the host has a resctrl, which is not ours to change");
    }
    for given in [json!({}), json!({"closID": "gold", "schemata": ["L3:0=f"]}), json!({"enableMonitoring": true})] {
        let bundle = Bundle::script("echo ran").set("/linux/intelRdt", given);
        let output = runtime.run(&bundle);
        assert_eq!(output.stdout, "");
        output.fails(&["linux.intelRdt: no resctrl file system is mounted"]);
    }
}

/// Runs a bundle with the runtime in a network namespace of its own, prepared by a script.
fn run_with_devices(runtime: &Runtime, bundle: &Bundle, prepare: &str) -> tare_testkit::Output {
    let container = runtime.container(bundle);
    let script = format!("exec unshare --net sh -c 'set -e; {prepare}; exec \"$@\"' sh \"$@\"");
    container.verb("run").arg(container.id()).through_shell(&script).run()
}

fn can_make_devices() -> bool {
    let veth = "ip link add tv0 type veth peer name tv1";
    Command::new("unshare").args(["--net", "sh", "-c", veth]).output().is_ok_and(|output| output.status.success())
}

const TWO_DEVICES: &str = "ip link add tv0 type veth peer name tv1; ip addr add 10.11.12.13/24 dev tv0; \
     ip addr add 10.11.12.14/24 dev tv0; ip addr add fd00::13/64 dev tv0 nodad; ip link set tv0 mtu 1400 up; \
     ip link set tv1 up; ip addr add 10.11.12.99/24 dev tv0 valid_lft 100 preferred_lft 100";

#[test]
fn devices_move_with_their_permanent_addresses_and_are_up() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    for namespace in ["network", "user"] {
        let bundle = Bundle::script("ip addr show eth7; ip addr show tv1; ls /sys/class/net");
        let bundle = bundle.set("/linux/netDevices", json!({"tv0": {"name": "eth7"}, "tv1": {}}));
        let bundle = if namespace == "user" { bundle.user_namespace(100_000, 65_536) } else { bundle };
        let output = run_with_devices(&runtime, &bundle, TWO_DEVICES).ok();
        let text = output.text();
        for part in [
            "eth7",
            "mtu 1400",
            "inet 10.11.12.13/24",
            "inet 10.11.12.14/24",
            "inet6 fd00::13/64",
            "tv1",
            ",UP,",
            "LOWER_UP",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("10.11.12.99"), "not permanent: {text}");
        assert!(!text.contains("state DOWN"), "{text}");
    }
}

#[test]
fn the_kernel_numbers_a_device_whose_name_is_a_template() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    let bundle = Bundle::script("ls /sys/class/net; ip addr show | grep 10.11.12.13")
        .set("/linux/netDevices", json!({"tv0": {"name": "net%d"}, "tv1": {"name": "net%d"}}));
    let output = run_with_devices(&runtime, &bundle, TWO_DEVICES).ok();
    assert_eq!(output.lines()[..3], ["lo", "net0", "net1"]);
    assert!(output.text().ends_with("net0"), "{output}");
}

#[test]
fn a_device_that_cannot_move_leaves_all_where_they_are() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    for (devices, words) in [
        (json!({"tv0": {}, "zz": {}}), "\"zz\" as \"zz\": no such network device"),
        (json!({"tv0": {}, "tv1": {"name": "lo"}}), "the container has a network device of that name"),
        (json!({"lo": {"name": "lo1"}}), "linux.netDevices: \"lo\""),
    ] {
        let bundle = Bundle::script("echo ran").set("/linux/netDevices", devices);
        let container = runtime.container(&bundle);
        let after = "\"$@\" || { code=$?; ip link show tv0; ip link show tv1; exit $code; }";
        let script = format!("exec unshare --net sh -c '{TWO_DEVICES}; {after}' sh \"$@\"");
        let output = container.verb("run").arg(container.id()).through_shell(&script).run();
        assert!(output.stdout.contains("tv0@tv1") && output.stdout.contains("tv1@tv0"), "{output}");
        output.fails(&[words]);
    }
}

#[test]
fn devices_come_back_whole_when_create_fails_after_they_moved() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    let devices = json!({"tv0": {"name": "eth7"}, "tv1": {"name": "net%d"}});
    let hook = json!({"path": "/bin/false"});
    let late = || Bundle::new().set("/linux/netDevices", devices.clone());
    for bundle in [
        late().mount(json!({"destination": "/x", "type": "no-such-fs", "source": "none"})),
        late().hook("createRuntime", hook),
        late().args(["no-such-program"]),
        // Only the last of several cannot be moved.
        late().set("/linux/netDevices/zz", json!({"name": "zz%d"})),
        late().args(["no-such-program"]).user_namespace(100_000, 65_536),
    ] {
        for verb in ["run", "create"] {
            let container = runtime.container(&bundle);
            let after = "\"$@\"; code=$?; ip addr show tv0; ip link show tv1; ls /sys/class/net; exit $code";
            let script = format!(
                "exec unshare --net --mount --propagation slave sh -c 'mount -t sysfs s /sys; {TWO_DEVICES}; {after}' sh \"$@\""
            );
            let output = container.verb(verb).arg(container.id()).through_shell(&script).run();
            assert_eq!(output.code(), Some(1), "{output}");
            for part in
                ["tv0@tv1", "inet 10.11.12.13/24", "inet 10.11.12.14/24", "inet6 fd00::13/64", "mtu 1400", "tv1@tv0"]
            {
                assert!(output.stdout.contains(part), "{part}: {output}");
            }
            assert_eq!(output.stdout.matches(",UP").count(), 2, "{output}");
            assert_eq!(output.lines().into_iter().rev().take(3).collect::<Vec<_>>(), ["tv1", "tv0", "lo"], "{output}");
        }
    }
}

/// The specification: "the runtime MUST NOT attempt to move the interface out of the namespace before deletion".
#[test]
fn a_device_stays_in_a_namespace_that_was_joined() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    let dir = TempDir::new("net");
    let path = dir.join("ns");
    fs::write(&path, "").unwrap();
    let bundle =
        Bundle::new().join_namespace("network", &path).set("/linux/netDevices", json!({"tv0": {"name": "eth7"}}));
    let container = runtime.container(&bundle);
    let path = path.display();
    let script = format!(
        "exec unshare --net --mount --propagation slave sh -c '{TWO_DEVICES}; unshare --net={path} true; \
         \"$@\"; code=$?; nsenter --net={path} ip addr show eth7; umount {path}; exit $code' sh \"$@\""
    );
    let output = container.verb("run").arg(container.id()).through_shell(&script).run().ok();
    assert!(output.stdout.contains("eth7@") && output.stdout.contains("inet 10.11.12.13/24"), "{output}");
}

#[test]
fn a_device_goes_with_the_network_namespace() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.3.1", Crun: "since 1.23");
    if !can_make_devices() {
        skip!("no ip, or no veth");
    }
    let bundle = Bundle::new().set("/linux/netDevices", json!({"tv0": {}}));
    let container = runtime.container(&bundle);
    // A pair dies together; that the namespace goes is the kernel's work, soon after its last process.
    let after = "\"$@\"; i=0; while ip link show tv1 2>/dev/null && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; \
                 ls /sys/class/net/tv1 && exit 3; exit 0";
    let script = format!("exec unshare --net sh -c '{TWO_DEVICES}; {after}' sh \"$@\"");
    container.verb("run").arg(container.id()).through_shell(&script).run().ok();
}
