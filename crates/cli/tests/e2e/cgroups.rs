//! cgroups: placement, limits, devices, freezing, removal.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Kind, known, skip, wait_until};

use crate::{runtime, words};

const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

/// Leaves the test unless controllers have v1 hierarchies.
macro_rules! needs_v1 {
    () => {
        if !matches!(host::cgroup_mode(), CgroupMode::V1 | CgroupMode::Hybrid) {
            skip!("needs cgroup v1 hierarchies");
        }
    };
}

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// The processes of a cgroup: none if it is gone, as systemd removes what is empty.
fn procs(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn init_is_in_a_cgroup_of_its_own_in_each_hierarchy() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let pid = container.pid().to_string();
    for controller in CONTROLLERS {
        let dir = container.cgroup(controller);
        assert!(dir.ends_with(container.id()), "{controller}: {}", dir.display());
        assert_eq!(read(&dir, "cgroup.procs"), pid, "{controller}");
    }
}

#[test]
fn an_absolute_cgroups_path_is_below_the_root_of_each_hierarchy() {
    needs_v1!();
    let runtime = runtime();
    let path = format!("/{}-outer/inner", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&path);
    let container = runtime.container(&bundle);
    container.create().ok();
    for mount in host::cgroup_mounts() {
        let Some(controllers) = mount.controllers else { continue };
        let controller = controllers.iter().find(|name| CONTROLLERS.contains(&name.as_str()));
        if let Some(controller) = controller {
            assert_eq!(container.cgroup(controller), mount.path.join(&path[1..]));
        }
    }
    container.delete_force().ok();
    // The parent was not there before; runtimes leave it.
    for dir in host::cgroups_with(runtime.tag()) {
        assert!(dir.ends_with(&path[1..path.len() - 6]), "{}", dir.display());
        fs::remove_dir(dir).unwrap();
    }
}

#[test]
fn a_relative_cgroups_path_is_below_a_hierarchy_too() {
    needs_v1!();
    let runtime = runtime();
    let path = format!("{}-relative", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&path);
    let container = runtime.container(&bundle);
    container.create().ok();
    assert!(container.cgroup("pids").ends_with(&path));
}

#[test]
fn delete_leaves_a_parent_that_was_there() {
    needs_v1!();
    let runtime = runtime();
    let parent = format!("{}-parent", runtime.tag());
    let dirs: Vec<PathBuf> =
        ["pids", "memory", "freezer"].map(|name| Path::new("/sys/fs/cgroup").join(name).join(&parent)).into();
    for dir in &dirs {
        fs::create_dir(dir).unwrap();
    }
    let bundle = Bundle::sleeper().cgroups_path(&format!("/{parent}/child"));
    let container = runtime.container(&bundle);
    container.create().ok();
    container.delete_force().ok();
    for dir in &dirs {
        assert!(dir.exists() && !dir.join("child").exists(), "{}", dir.display());
    }
    for dir in host::cgroups_with(runtime.tag()) {
        fs::remove_dir(dir).unwrap();
    }
}

#[test]
fn memory_limits_are_written() {
    needs_v1!();
    let runtime = runtime();
    let memory = json!({"limit": 64 << 20, "reservation": 32 << 20, "swappiness": 7});
    let bundle = Bundle::sleeper().resource("memory", memory);
    let container = runtime.container(&bundle);
    container.create().ok();
    let dir = container.cgroup("memory");
    assert_eq!(read(&dir, "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(read(&dir, "memory.soft_limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(read(&dir, "memory.swappiness"), "7");
}

#[test]
fn a_process_over_its_memory_limit_is_killed_and_run_exits_with_137() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::script("dd if=/dev/zero of=/dev/null bs=256M count=1; exit 5")
        .resource("memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    let output = runtime.run(&bundle);
    assert!(output.code() == Some(5) || output.code() == Some(137), "{output}");
    assert!(!output.stderr.contains("1+0 records out"), "{output}");
    let alone = Bundle::new()
        .args(["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"])
        .resource("memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    runtime.run(&alone).exits(137);
}

#[test]
fn cpu_limits_are_written() {
    needs_v1!();
    let runtime = runtime();
    let bundle =
        Bundle::sleeper().resource("cpu", json!({"shares": 512, "quota": 50000, "period": 200_000, "cpus": "0"}));
    let container = runtime.container(&bundle);
    container.create().ok();
    let dir = container.cgroup("cpu");
    assert_eq!(read(&dir, "cpu.shares"), "512");
    assert_eq!(read(&dir, "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&dir, "cpu.cfs_period_us"), "200000");
    assert_eq!(read(&container.cgroup("cpuset"), "cpuset.cpus"), "0");
}

#[test]
fn the_pids_limit_holds() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::script("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo all")
        .resource("pids", json!({"limit": 6}));
    let output = runtime.run(&bundle);
    assert!(output.stderr.contains("fork") && !output.stdout.contains("all"), "{output}");
}

#[test]
fn the_pids_limit_is_written_and_minus_one_is_max() {
    needs_v1!();
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 writes -1, which the kernel refuses");
    for (limit, written) in [(17, "17"), (-1, "max")] {
        let bundle = Bundle::sleeper().resource("pids", json!({"limit": limit}));
        let container = runtime.container(&bundle);
        container.create().ok();
        assert_eq!(read(&container.cgroup("pids"), "pids.max"), written);
    }
}

#[test]
fn a_device_that_is_allowed_can_be_used() {
    needs_v1!();
    let runtime = runtime();
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
fn pause_freezes_and_resume_thaws() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.is("paused");
    assert_eq!(read(&container.cgroup("freezer"), "freezer.state"), "FROZEN");
    container.call("resume", &[]).ok();
    container.is("running");
    assert_eq!(read(&container.cgroup("freezer"), "freezer.state"), "THAWED");
    container.shell("true");
}

#[test]
fn exec_in_a_paused_container_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.exec(["true"]).fails(&words(&runtime, "cannot exec in a paused container", "is paused"));
    container.is("paused");
}

#[test]
fn exec_with_ignore_paused_waits_for_the_thaw() {
    let runtime = runtime();
    known!(runtime, Crun: "has no --ignore-paused");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    let exec = container.verb("exec").args(["--ignore-paused", container.id(), "echo", "thawed"]).spawn();
    container.call("resume", &[]).ok();
    assert_eq!(exec.wait().ok().text(), "thawed");
}

#[test]
fn delete_of_a_paused_container_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.delete().fails(&[]);
    container.is("paused");
}

#[test]
fn kill_reaches_a_paused_container() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.kill("KILL").ok();
    // On v1 a frozen process dies when it is thawed; runc thaws for SIGKILL, and so does delete.
    container.delete_force().ok();
    container.is("none");
}

#[test]
fn pause_twice_and_resume_of_what_is_not_paused_are_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes them for done");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("resume", &[]).fails(&["not paused"]);
    container.call("pause", &[]).ok();
    container.call("pause", &[]).fails(&["paused", "not running"]);
    container.is("paused");
}

#[test]
fn sub_cgroups_that_the_container_made_are_removed() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::script(
        "cd /sys/fs/cgroup; for h in pids memory freezer; do mkdir -p $h/a/b; done; \
             sleep 1000 & echo $! > pids/a/b/cgroup.procs; touch /ready; wait",
    )
    .capabilities(&["CAP_SYS_ADMIN"])
    .edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|mount| mount["destination"] == "/sys/fs/cgroup").unwrap();
        mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    });
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    assert!(container.cgroup("pids").join("a/b").is_dir());
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
    assert_eq!(host::cgroups_with(runtime.tag()), Vec::<PathBuf>::new());
}

#[test]
fn without_a_pid_namespace_delete_force_kills_all_processes() {
    let runtime = runtime();
    let bundle = Bundle::script("sleep 1001 & sleep 1002 & wait").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup(if host::cgroup_mode() == CgroupMode::V2 { "" } else { "pids" });
    let pids = || -> Vec<i32> { read(&dir, "cgroup.procs").lines().map(|pid| pid.parse().unwrap()).collect() };
    wait_until("three processes", || pids().len() == 3);
    let all = pids();
    container.delete_force().ok();
    container.is("none");
    for pid in all {
        wait_until("it is gone", || !host::is_alive(pid));
    }
}

#[test]
fn without_a_pid_namespace_kill_kill_kills_all_processes() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 kills init alone without --all", Crun: "1.8.1 kills init alone");
    let bundle = Bundle::script("sleep 1001 & sleep 1002 & wait").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup(if host::cgroup_mode() == CgroupMode::V2 { "" } else { "pids" });
    wait_until("three processes", || procs(&dir).len() == 3);
    container.kill("KILL").ok();
    wait_until("all are gone", || procs(&dir).is_empty());
}

#[test]
fn without_a_pid_namespace_the_rest_can_be_killed_when_init_is_gone() {
    let runtime = runtime();
    let bundle = Bundle::script("sleep 1001 & exit").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    container.wait_for("stopped");
    let left = host::cgroups_with(container.id());
    let dir = left.iter().find(|dir| dir.to_string_lossy().contains("pids")).unwrap_or(&left[0]).clone();
    assert_eq!(procs(&dir).len(), 1);
    container.verb("kill").args(["--all", container.id(), "KILL"]).run().ok();
    wait_until("it is gone", || procs(&dir).is_empty());
    container.delete().ok();
}

#[test]
fn without_a_pid_namespace_kill_kill_ends_the_rest_when_init_is_gone() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 wants --all", Crun: "1.8.1 wants --all");
    let bundle = Bundle::script("sleep 1001 & exit").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    container.wait_for("stopped");
    container.kill("TERM").fails(&["not running"]);
    container.kill("KILL").ok();
    let dirs = host::cgroups_with(container.id());
    wait_until("nothing is left", || dirs.iter().all(|dir| procs(dir).is_empty()));
    container.kill("KILL").fails(&["not running"]);
    container.delete().ok();
}

#[test]
fn kill_all_reaches_each_process_with_any_signal() {
    let runtime = runtime();
    let script = "sh -c 'trap \"echo child >> /got\" USR1; touch /child; while :; do sleep 0.02; done' & \
                  trap 'echo init >> /got' USR1; touch /init; while :; do sleep 0.02; done";
    let bundle = Bundle::script(script);
    let container = runtime.container(&bundle);
    container.up();
    let there = |name: &str| bundle.rootfs().join(name).exists();
    wait_until("both are ready", || there("init") && there("child"));
    container.kill("USR1").ok();
    let got = || fs::read_to_string(bundle.rootfs().join("got")).unwrap_or_default();
    wait_until("init alone has got it", || got() == "init\n");
    container.verb("kill").args(["--all", container.id(), "USR1"]).run().ok();
    wait_until("both have got it", || got().lines().count() == 3);
    let mut lines: Vec<_> = got().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["child", "init", "init"]);
}

/// Each of its processes forks the next and ends: a list of them is out of date when it is read.
#[test]
fn kill_all_loses_no_process_that_is_just_forked() {
    let runtime = runtime();
    let bundle = Bundle::script("trap : TERM; sh /chain & while :; do sleep 1000 & wait; done")
        .file("chain", "echo link >> /links; sh /chain &\n");
    let container = runtime.container(&bundle);
    container.up();
    let links = || fs::read_to_string(bundle.rootfs().join("links")).unwrap_or_default().len();
    wait_until("it runs", || links() > 0);
    container.verb("kill").args(["--all", container.id(), "TERM"]).run().ok();
    // A link that was on its way out before the signal may still write; one that lives on does so for ever.
    let mut last = links();
    wait_until("the chain is broken", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::mem::replace(&mut last, links()) == links()
    });
    container.is("running");
}

#[test]
fn kill_all_of_a_paused_container_waits_for_resume() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 thaws it", Crun: "1.8.1 thaws it");
    let bundle = Bundle::script("trap 'touch /got' TERM; touch /ready; while :; do sleep 0.02; done");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it is ready", || bundle.rootfs().join("ready").exists());
    container.call("pause", &[]).ok();
    container.verb("kill").args(["--all", container.id(), "TERM"]).run().ok();
    container.is("paused");
    assert!(!bundle.rootfs().join("got").exists());
    container.call("resume", &[]).ok();
    wait_until("it has got it", || bundle.rootfs().join("got").exists());
}

#[test]
fn a_foreground_run_without_a_pid_namespace_leaves_no_process() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 waits for the children of init, as their subreaper");
    let bundle = Bundle::script("sleep 1001 & exit 4").without_namespace("pid");
    runtime.run(&bundle).exits(4);
}

#[test]
fn ps_lists_the_processes() {
    let runtime = runtime();
    let bundle = Bundle::script("sleep 1001 & sleep 1002 & wait");
    let container = runtime.container(&bundle);
    container.up();
    let listed = || container.call("ps", &["--format", "json"]).ok().json();
    wait_until("three processes", || listed().as_array().unwrap().len() == 3);
    assert!(listed().as_array().unwrap().contains(&json!(container.pid())));
    let table = container.call("ps", &[]).ok();
    assert!(table.lines()[0].contains("PID"), "{table}");
    assert_eq!(table.lines().len(), 4, "{table}");
}

#[test]
fn ps_with_options_has_a_pid_column() {
    let runtime = runtime();
    known!(runtime, Crun: "takes no ps options");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let table = container.verb("ps").args([container.id(), "-o", "pid,comm"]).run().ok();
    assert_eq!(table.lines()[0].split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
    assert!(table.lines()[1..].iter().any(|line| line.contains(&container.pid().to_string())), "{table}");
}

#[test]
fn update_changes_limits_by_flags() {
    needs_v1!();
    let runtime = runtime();
    let bundle =
        Bundle::sleeper().resource("memory", json!({"limit": 64 << 20})).resource("pids", json!({"limit": 20}));
    let container = runtime.container(&bundle);
    container.up();
    container.call("update", &["--pids-limit", "42"]).ok();
    assert_eq!(read(&container.cgroup("pids"), "pids.max"), "42");
    assert_eq!(read(&container.cgroup("memory"), "memory.limit_in_bytes"), (64 << 20).to_string());
    let size = if runtime.kind() == Kind::Crun { "33554432" } else { "32M" };
    container.call("update", &["--memory", size]).ok();
    assert_eq!(read(&container.cgroup("memory"), "memory.limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(read(&container.cgroup("pids"), "pids.max"), "42");
}

#[test]
fn update_changes_limits_by_a_document_and_leaves_devices() {
    needs_v1!();
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let before = read(&container.cgroup("devices"), "devices.list");
    let resources = json!({"cpu": {"shares": 321}, "pids": {"limit": 12}}).to_string();
    container.verb("update").args(["--resources", "-", container.id()]).stdin(resources).run().ok();
    assert_eq!(read(&container.cgroup("cpu"), "cpu.shares"), "321");
    assert_eq!(read(&container.cgroup("pids"), "pids.max"), "12");
    assert_eq!(read(&container.cgroup("devices"), "devices.list"), before);
}

#[test]
fn create_in_a_cgroup_that_has_processes_is_refused() {
    needs_v1!();
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 warns alone", Crun: "1.8.1 joins it");
    let bundle = Bundle::sleeper().cgroups_path(&format!("/{}-shared", runtime.tag()));
    let (first, second) = (runtime.container(&bundle), runtime.container(&bundle));
    first.up();
    second.create().fails(&["not empty"]);
    first.is("running");
}

/// The mount table lists a cgroup2 mount that another one covers: nothing may be made where it was.
#[test]
fn a_cgroup2_mount_that_is_covered_is_left_alone() {
    let runtime = runtime();
    if host::cgroup_mode() != CgroupMode::Hybrid || !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        skip!("no cgroup2 beside v1 here");
    }
    let bundle = Bundle::script("echo ran");
    bundle.write();
    let script = "mount -t tmpfs tmpfs /sys/fs/cgroup/unified && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "-"])
        .arg(runtime.program())
        .arg("--root")
        .arg(runtime.root())
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(runtime.id("c"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ran\n", "{}", String::from_utf8_lossy(&output.stderr));
}
