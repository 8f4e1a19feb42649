//! The same on a pure cgroup2 mount: each command of the runtime sees one in a mount namespace of its own.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Kind, Runtime, known, skip, wait_until};

const CAP_SYS_RESOURCE: u32 = 24;

/// Leaves the test if there is no cgroup2 to mount, or nothing to tell it by.
macro_rules! on_cgroup2 {
    () => {{
        if !host::is_root() || !matches!(host::cgroup_mode(), CgroupMode::Hybrid | CgroupMode::V2) {
            skip!("needs root and cgroup2");
        }
        let runtime = crate::runtime().on_cgroup2();
        if runtime.uses_systemd() {
            skip!("on cgroups that systemd does not see");
        }
        if runtime.kind() == Kind::Crun && !host::has_capability(CAP_SYS_RESOURCE) {
            skip!("crun 1.8.1 raises RLIMIT_MEMLOCK before it loads device rules, and we may not");
        }
        runtime
    }};
}

/// The container's directory, as the host's own cgroup2 mount shows it.
fn dirs(runtime: &Runtime) -> Vec<PathBuf> {
    host::cgroups_with(runtime.tag())
}

#[test]
fn cgroup2_init_is_in_a_cgroup_of_its_own_and_in_no_v1_one() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let dir = container.cgroup("");
    assert!(dir.ends_with(container.id()), "{}", dir.display());
    assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap().trim(), container.pid().to_string());
    assert_eq!(dirs(&runtime), [dir]);
    container.start().ok();
    container.is("running");
}

#[test]
fn cgroup2_an_absolute_cgroups_path_is_below_the_root() {
    let runtime = on_cgroup2!();
    let path = format!("/{}-outer/inner", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&path);
    let container = runtime.container(&bundle);
    container.create().ok();
    let dir = container.cgroup("");
    assert!(dir.ends_with(&path[1..]), "{}", dir.display());
    container.delete_force().ok();
    assert!(!dir.exists());
    // The parent was not there before; runtimes leave it.
    if dir.parent().unwrap().exists() {
        fs::remove_dir(dir.parent().unwrap()).unwrap();
    }
}

#[test]
fn cgroup2_delete_removes_sub_cgroups_of_the_container() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::script(
        "mkdir -p /sys/fs/cgroup/a/b; sleep 1000 & echo $! > /sys/fs/cgroup/a/b/cgroup.procs; touch /ready; wait",
    )
    .namespace("cgroup")
    .edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|mount| mount["destination"] == "/sys/fs/cgroup").unwrap();
        mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    });
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    assert!(container.cgroup("").join("a/b").is_dir());
    container.delete_force().ok();
    assert_eq!(dirs(&runtime), Vec::<PathBuf>::new());
}

#[test]
fn cgroup2_the_mount_inside_is_cgroup2() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::script(
        "grep /sys/fs/cgroup /proc/self/mountinfo; cat /sys/fs/cgroup/cgroup.procs; \
         cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x || echo no",
    )
    .namespace("cgroup");
    let output = runtime.run(&bundle).ok();
    assert!(output.lines()[0].contains(" - cgroup2 "), "{output}");
    assert!(output.lines().contains(&"0::/"), "{output}");
    assert!(output.lines().contains(&"1"), "{output}");
    assert_eq!(output.lines().last(), Some(&"no"));
}

#[test]
fn cgroup2_pause_freezes_and_resume_thaws() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.is("paused");
    let dir = container.cgroup("");
    assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap().trim(), "1");
    assert!(fs::read_to_string(dir.join("cgroup.events")).unwrap().contains("frozen 1"));
    container.call("resume", &[]).ok();
    container.is("running");
    assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap().trim(), "0");
    container.shell("true");
}

#[test]
fn cgroup2_kill_acts_on_a_paused_container() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn cgroup2_devices_are_denied_but_for_the_defaults() {
    let runtime = on_cgroup2!();
    let script = "mknod /k c 1 11; head -c 1 /k; mknod /n c 1 3 && echo x > /n && echo null; echo end";
    let bundle = Bundle::script(script).capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["null", "end"], "{output}");
    assert!(output.stderr.contains("Operation not permitted"), "{output}");
}

#[test]
fn cgroup2_a_device_that_is_allowed_can_be_used() {
    let runtime = on_cgroup2!();
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ]);
    let bundle = Bundle::script("mknod /k c 1 11; : < /k && echo opened; echo x > /k || echo no")
        .resource("devices", rules)
        .capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["opened", "no"], "{output}");
}

#[test]
fn cgroup2_exec_is_in_the_cgroup_and_bound_by_its_device_rules() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::sleeper().capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let container = runtime.container(&bundle);
    container.up();
    let own = container.shell("cat /proc/self/cgroup");
    assert!(own.lines().any(|line| line.starts_with("0::") && line.ends_with(container.id())), "{own}");
    let output = container.exec(["sh", "-c", "mknod /k c 1 11; head -c 1 /k"]);
    assert!(!output.success() && output.stderr.contains("Operation not permitted"), "{output}");
}

#[test]
fn cgroup2_without_a_pid_namespace_all_processes_are_killed() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "1.1.5 now and then leaves the cgroup: its rmdir comes too early");
    let bundle = Bundle::script("sleep 1001 & sleep 1002 & wait").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    let count = || fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().count();
    wait_until("three processes", || count() == 3);
    container.delete_force().ok();
    wait_until("all are gone", || count() == 0);
    assert!(!dir.exists());
}

#[test]
fn cgroup2_create_in_a_cgroup_that_has_processes_is_refused() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "1.1.5 warns alone");
    let bundle = Bundle::sleeper().cgroups_path(&format!("/{}-shared", runtime.tag()));
    let (first, second) = (runtime.container(&bundle), runtime.container(&bundle));
    first.up();
    second.create().fails(&["not empty"]);
    first.is("running");
}
