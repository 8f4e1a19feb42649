//! Cgroups made by systemd. Needs systemd as process 1, which the guest of `hack/vm` has; what can be said without one is in
//! `systemd_count`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, Kind, Runtime, known, skip, wait_until};

use crate::words;

/// What making, and opening of /dev/port and /dev/kmsg, take besides a rule.
const DEVICES: &[&str] = &["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYSLOG", "CAP_KILL"];

/// Leaves the test on a host without systemd.
macro_rules! on_systemd {
    () => {{
        if !Path::new("/run/systemd/system").exists() {
            skip!("systemd does not run here");
        }
        crate::runtime().on_systemd()
    }};
}

/// `systemctl ARGS`, its output.
fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A property of a unit as `systemctl show` has it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

/// The cgroup of the unit a container's init is in: crun puts init into a cgroup `container` below it.
#[track_caller]
fn unit_dir(container: &Container<'_>) -> PathBuf {
    let dir = container.cgroup(if host::cgroup_mode() == CgroupMode::V2 { "" } else { "name=systemd" });
    let is_unit = |dir: &&Path| dir.extension().is_some_and(|kind| kind == "scope" || kind == "slice");
    dir.ancestors().find(is_unit).unwrap_or_else(|| panic!("no unit in {}", dir.display())).to_owned()
}

/// The name of that unit.
#[track_caller]
fn unit(container: &Container<'_>) -> String {
    unit_dir(container).file_name().unwrap().to_str().unwrap().to_owned()
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{dir:?}/{file}: {error}")).trim().to_owned()
}

/// Nothing of ours is loaded, not even as failed.
#[track_caller]
fn assert_forgotten(runtime: &Runtime) {
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend"]);
    let left: Vec<&str> = units.lines().filter(|line| line.contains(runtime.tag())).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Slices stay once they were asked for, and so do their directories in the v1 hierarchies that systemd does not use.
fn stop_slices(runtime: &Runtime) {
    systemctl(&["stop", &format!("{}.slice", runtime.tag())]);
    if host::cgroup_mode() != CgroupMode::V2 {
        let mut dirs = host::cgroups_with(runtime.tag());
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
        for dir in dirs {
            assert!(dir.extension().is_some_and(|kind| kind == "slice"), "{}", dir.display());
            fs::remove_dir(dir).unwrap();
        }
    }
}

#[test]
fn the_unit_is_a_scope_in_the_system_slice_with_init_inside() {
    let runtime = on_systemd!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let unit = unit(&container);
    assert!(unit.ends_with(&format!("-{}.scope", container.id())), "{unit}");
    if runtime.is_tare() {
        assert_eq!(unit, format!("tare-{}.scope", container.id()));
        assert_eq!(property(&unit, "Description"), format!("tare container {}", container.id()));
    }
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), "system.slice");
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "Transient"), "yes");
    assert_eq!(property(&unit, "ControlGroup"), format!("/system.slice/{unit}"));
    container.start().ok();
    container.is("running");
    container.delete_force().ok();
    assert_forgotten(&runtime);
}

#[test]
fn a_path_of_three_parts_names_slice_prefix_and_name() {
    let runtime = on_systemd!();
    let slice = format!("{}-inner.slice", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&format!("{slice}:pre:{}-name", runtime.tag()));
    let container = runtime.container(&bundle);
    container.create().ok();
    let unit = unit(&container);
    assert_eq!(unit, format!("pre-{}-name.scope", runtime.tag()));
    assert_eq!(property(&unit, "ControlGroup"), format!("/{}.slice/{slice}/{unit}", runtime.tag()));
    container.delete_force().ok();
    stop_slices(&runtime);
    assert_forgotten(&runtime);
}

#[test]
fn a_name_that_is_a_slice_is_a_slice() {
    let runtime = on_systemd!();
    known!(runtime, Runc: "1.1.5 and 1.1.15 ask for processes in a slice, which systemd refuses",
        Crun: "makes a scope of that name");
    let slice = format!("{}-own.slice", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&format!(":ignored:{slice}")).resource("pids", json!({"limit": 20}));
    let container = runtime.container(&bundle);
    container.up();
    assert_eq!(unit(&container), slice);
    assert_eq!(property(&slice, "TasksMax"), "20");
    container.delete_force().ok();
    assert_eq!(property(&slice, "ActiveState"), "inactive");
    stop_slices(&runtime);
}

#[test]
fn other_paths_are_refused_before_anything_is_made() {
    let runtime = on_systemd!();
    let [parts] = words(&runtime, "slice:prefix:name", "invalid unit name");
    for (path, text) in [("/a/b", parts), ("a--b.slice:x:y", "slice"), ("system.slice:x:a b", "unit")] {
        if !runtime.is_tare() && path != "/a/b" {
            continue;
        }
        let bundle = Bundle::sleeper().cgroups_path(path);
        let output = runtime.container(&bundle).create();
        if runtime.kind() == Kind::Crun && output.success() {
            continue;
        }
        output.fails(&[text]);
    }
    assert_forgotten(&runtime);
}

#[test]
fn limits_are_properties_and_files() {
    let runtime = on_systemd!();
    if host::cgroup_mode() != CgroupMode::V2 {
        skip!("needs cgroup2 with its controllers");
    }
    let bundle = Bundle::sleeper()
        .resource("memory", json!({"limit": 64 << 20, "reservation": 32 << 20}))
        .resource("pids", json!({"limit": 40}))
        .resource("cpu", json!({"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0"}));
    let container = runtime.container(&bundle);
    container.up();
    let (unit, dir) = (unit(&container), unit_dir(&container));
    for (name, value) in
        [("MemoryMax", "67108864"), ("MemoryLow", "33554432"), ("TasksMax", "40"), ("AllowedCPUs", "0")]
    {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    // Up to a whole percent.
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "250ms");
    assert_eq!(property(&unit, "CPUQuotaPeriodUSec"), "50ms");
    // And here as it was asked for, until systemd looks after its slice: whenever a neighbour comes or goes.
    let one_of = |values: [&str; 2]| {
        let value = read(&dir, "cpu.max");
        assert!(values.contains(&value.as_str()), "{value} is none of {values:?}");
    };
    one_of(["12345 50000", "12500 50000"]);
    assert_eq!(read(&dir, "memory.max"), "67108864");
    assert_eq!(read(&dir, "pids.max"), "40");
    if runtime.is_tare() {
        assert_eq!(property(&unit, "CPUWeight"), "100");
    }

    container.call("update", &["--pids-limit", "50", "--memory", "100663296", "--cpu-quota", "23456"]).ok();
    assert_eq!(property(&unit, "TasksMax"), "50");
    assert_eq!(property(&unit, "MemoryMax"), (96 << 20).to_string());
    known!(runtime, Crun "1.21": "leaves the unit the CPU quota that it had");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "470ms");
    one_of(["23456 50000", "23500 50000"]);
    systemctl(&["daemon-reload"]);
    assert_eq!(read(&dir, "memory.max"), (96 << 20).to_string());
    assert_eq!(read(&dir, "pids.max"), "50");
}

/// opencontainers/runc#4568 and its family: what only the runtime knows is gone after a reload.
#[test]
fn device_rules_outlive_a_daemon_reload() {
    let runtime = on_systemd!();
    let rule = |minor: u32| {
        json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": minor, "access": "rwm"}])
    };
    // 1:11 is kmsg, 1:4 port, neither of them in the default list.
    let bundle = Bundle::sleeper().capabilities(DEVICES).resource("devices", rule(11));
    let container = runtime.container(&bundle);
    container.up();
    container.shell("mknod /kmsg c 1 11; mknod /port c 1 4; mknod /full c 1 7; mknod /mem c 1 1");
    let opens = || container.shell("for d in kmsg port full; do if (: < /$d) 2>/dev/null; then echo $d; fi; done");
    assert_eq!(opens(), "kmsg\nfull");
    systemctl(&["daemon-reload"]);
    assert_eq!(opens(), "kmsg\nfull");
    let resources = json!({"devices": rule(4)}).to_string();
    container.verb("update").args(["--resources", "-", container.id()]).stdin(resources).run().ok();
    known!(runtime, Runc: "1.1.15 and before do not update devices", Crun: "does not update devices");
    assert_eq!(opens(), "port\nfull");
    systemctl(&["daemon-reload"]);
    assert_eq!(opens(), "port\nfull");
    // What does not name devices leaves them.
    container.call("update", &["--pids-limit", "50"]).ok();
    assert_eq!(opens(), "port\nfull");
}

#[test]
fn a_rule_that_systemd_cannot_say_holds_all_the_same() {
    let runtime = on_systemd!();
    known!(runtime, Runc: "1.1.15 refuses such a rule", Crun: "1.21 refuses such a rule");
    if host::cgroup_mode() != CgroupMode::V2 {
        skip!("cgroup v1 cannot say it either");
    }
    let rules = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    let bundle = Bundle::sleeper().capabilities(DEVICES).resource("devices", rules);
    let container = runtime.container(&bundle);
    container.up();
    container.shell("mknod /kmsg c 1 11; mknod /port c 1 4");
    let opens = || container.shell("for d in kmsg port; do if (: < /$d) 2>/dev/null; then echo $d; fi; done");
    assert_eq!(opens(), "port");
    systemctl(&["daemon-reload"]);
    assert_eq!(opens(), "port");
}

#[test]
fn annotations_are_properties() {
    let runtime = on_systemd!();
    let annotate = |bundle: Bundle, name: &str, text: &str| {
        bundle.set(&format!("/annotations/org.systemd.property.{name}"), json!(text))
    };
    let bundle = Bundle::sleeper().set("/annotations", json!({}));
    let bundle = annotate(annotate(bundle, "TimeoutStopUSec", "uint64 7000000"), "Description", "'of my own'");
    let container = runtime.container(&bundle);
    container.create().ok();
    let unit = unit(&container);
    assert_eq!(property(&unit, "TimeoutStopUSec"), "7s");
    known!(runtime, Crun: "1.21 describes its units itself");
    assert_eq!(property(&unit, "Description"), "of my own");
    container.delete_force().ok();
    for (name, text) in [("TimeoutStopUSec", "'"), ("ExecStartPre", "'/bin/true'")] {
        let bundle = annotate(Bundle::sleeper().set("/annotations", json!({})), name, text);
        let output = runtime.container(&bundle).create();
        if runtime.is_tare() || !output.success() {
            output.fails(&[]);
        }
    }
    assert_forgotten(&runtime);
}

#[test]
fn what_ended_by_itself_or_out_of_memory_leaves_no_unit() {
    let runtime = on_systemd!();
    for _ in 0..3 {
        // One name all the time: it has to be free.
        let bundle = Bundle::script("exit 3");
        Container::new(&runtime, &bundle, format!("{}-again", runtime.tag())).run().exits(3);
    }
    let bundle = Bundle::script("x=x; while :; do x=$x$x; done")
        .resource("memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    let container = runtime.container(&bundle);
    container.create().ok();
    container.start().ok();
    container.wait_for("stopped");
    container.delete().ok();
    assert_forgotten(&runtime);
    assert_eq!(systemctl(&["list-units", "--failed", "--plain", "--no-legend"]).matches(runtime.tag()).count(), 0);
}

/// asks: "exec never talks to D-Bus". Nothing else but create and update does, and delete only if it has to.
#[test]
fn a_container_is_used_and_deleted_without_a_bus() {
    let runtime = on_systemd!();
    known!(runtime, Runc: "asks systemd in every verb", Crun: "asks systemd to delete");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let mute = |verb: &str| container.verb(verb).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere");
    mute("start").arg(container.id()).run().ok();
    assert_eq!(mute("exec").args([container.id(), "echo", "here"]).run().ok().text(), "here");
    for verb in ["pause", "resume", "state", "ps"] {
        mute(verb).arg(container.id()).run().ok();
    }
    mute("update").args(["--pids-limit", "50", container.id()]).run().fails(&["systemd: the system bus"]);
    mute("kill").args([container.id(), "KILL"]).run().ok();
    container.wait_for("stopped");
    mute("delete").arg(container.id()).run().ok();
    assert_forgotten(&runtime);
    let refused = runtime.container(&bundle);
    let output = refused.verb("create").env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere").arg(refused.id()).run();
    output.fails(&["systemd: the system bus: connect(\"/nowhere\"): no such file or directory (enoent)"]);
}

#[test]
fn a_host_without_a_message_bus_has_systemds_own_socket() {
    let runtime = on_systemd!();
    known!(runtime, Crun: "needs the bus");
    if !host::is_root() {
        skip!("the socket is root's");
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let script = "mount -t tmpfs none /run/dbus && exec \"$@\"";
    let hidden = |verb: &str| {
        container
            .verb(verb)
            .arg(container.id())
            .through_shell(&format!("exec unshare --mount --propagation slave sh -c '{script}' sh \"$@\""))
    };
    hidden("create").run().ok();
    assert_eq!(property(&unit(&container), "ActiveState"), "active");
    hidden("start").run().ok();
    container.delete_force().ok();
    assert_forgotten(&runtime);
}

#[test]
fn a_unit_of_somebody_else_is_refused_and_left_alone() {
    let runtime = on_systemd!();
    known!(runtime, Runc: "1.1.15 and before join it or fail in other words", Crun: "says it in other words");
    let name = format!("pre-{}-name", runtime.tag());
    let unit = format!("{name}.scope");
    let mut other =
        Command::new("systemd-run").args(["--quiet", "--scope", "--unit", &unit, "sleep", "1000"]).spawn().unwrap();
    wait_until("the other's scope", || property(&unit, "ActiveState") == "active");
    let bundle = Bundle::sleeper().cgroups_path(&format!("system.slice:pre:{}-name", runtime.tag()));
    runtime.container(&bundle).create().fails(&["unitexists"]);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    wait_until("the end of the other's scope", || property(&unit, "ActiveState") == "inactive");
}

/// A scope whose kill -9ed runtime could say nothing any more.
#[test]
fn a_runtime_that_was_killed_leaves_what_delete_finds() {
    let runtime = on_systemd!();
    known!(runtime, Crun: "killed at the wrong moment it leaves a scope that runs, and delete does not know");
    let bundle = Bundle::sleeper();
    for delay in [0, 20, 60, 120, 250] {
        let container = runtime.container(&bundle);
        let running = container.verb("create").arg(container.id()).spawn();
        // At any point: before, during and after the exchange with systemd.
        std::thread::sleep(std::time::Duration::from_millis(delay));
        drop(running);
        container.delete_force().ok();
    }
    wait_until("systemd has forgotten them", || {
        !systemctl(&["list-units", "--all", "--plain", "--no-legend"]).contains(runtime.tag())
    });
}

/// The guest's own systemd as process 1 of a container: a cgroup tree below ours, which exec, update, pause and delete have
/// to live with.
#[test]
fn a_systemd_inside_a_container_is_run_entered_updated_paused_and_deleted() {
    let runtime = on_systemd!();
    known!(runtime, Runc: "1.1.15 joins the container's own cgroup, EBUSY");
    let init = "/usr/lib/systemd/systemd";
    if host::cgroup_mode() != CgroupMode::V2 || !Path::new(init).exists() {
        skip!("needs cgroup2 and a systemd to run");
    }
    let bundle = nested(init);
    let container = runtime.container(&bundle);
    container.create().ok();
    // Before init moves.
    let dir = container.cgroup("");
    container.start().ok();
    let active = || {
        // Stays, at whatever moment it came: in the top it would keep systemd from handing on controllers.
        container.exec_with(&["--detach"], ["sleep", "1000"]).ok();
        let output = container.exec(["systemctl", "is-active", "basic.target"]);
        output.text() == "active"
    };
    wait_until("systemd inside is up", active);
    assert!(dir.join("init.scope").is_dir());
    let inside = container.exec(["cat", "/proc/self/cgroup"]).ok();
    assert!(inside.text().starts_with("0::/"), "{inside}");
    container.exec(["systemd-run", "--quiet", "--unit=below", "-p", "MemoryMax=100M", "sleep", "1000"]).ok();
    let limit = dir.join("system.slice/below.service/memory.max");
    wait_until("a unit inside with its limit", || {
        fs::read_to_string(&limit).is_ok_and(|text| text.trim() == (100 << 20).to_string())
    });
    container.call("update", &["--memory", "314572800"]).ok();
    assert_eq!(read(&dir, "memory.max"), (300 << 20).to_string());
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.is("running");
    assert_eq!(container.exec(["systemctl", "is-active", "basic.target"]).text(), "active");
    container.delete_force().ok();
    assert!(!dir.exists());
    assert_forgotten(&runtime);
}

/// The host's /usr and /etc to read, everything else new.
fn nested(init: &str) -> Bundle {
    let mut bundle = Bundle::new().args([init, "--unit=basic.target", "--log-target=console"]).env("container=oci");
    for dir in ["/usr", "/etc"] {
        bundle = bundle.bind(dir, dir, &["bind", "ro"]);
    }
    for dir in ["/run", "/tmp", "/var", "/root"] {
        bundle = bundle.mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": dir, "options": ["mode=755"]}));
    }
    let all = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_SYS_RESOURCE",
        "CAP_AUDIT_WRITE",
        "CAP_MKNOD",
        "CAP_NET_ADMIN",
    ];
    bundle
        .capabilities(&all)
        .namespace("cgroup")
        .set("/process/env", json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"]))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys/fs/cgroup") {
                mount["options"] = json!(["rw", "nosuid", "noexec", "nodev"]);
            }
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        })
        .symlink("lib", "usr/lib")
        .symlink("lib64", "usr/lib64")
        .symlink("sbin", "usr/sbin")
}
