//! Cgroups that a container makes below its own, as systemd and dockerd do inside one; and `exec --cgroup`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, Kind, Runtime, known, skip, wait_until};

use crate::runtime;

const CAP_SYS_RESOURCE: u32 = 24;

/// Leaves the test if there is no cgroup2 to mount.
macro_rules! on_cgroup2 {
    () => {{
        if !host::is_root() || !matches!(host::cgroup_mode(), CgroupMode::Hybrid | CgroupMode::V2) {
            skip!("needs root and cgroup2");
        }
        let runtime = runtime().on_cgroup2();
        if runtime.kind() == Kind::Crun && !host::has_capability(CAP_SYS_RESOURCE) {
            skip!("crun 1.8.1 raises RLIMIT_MEMLOCK before it loads device rules, and we may not");
        }
        runtime
    }};
}

/// Leaves the test unless controllers have v1 hierarchies.
macro_rules! needs_v1 {
    () => {
        if !matches!(host::cgroup_mode(), CgroupMode::V1 | CgroupMode::Hybrid) {
            skip!("needs cgroup v1 hierarchies");
        }
    };
}

/// A script on a cgroup mount that may be written.
fn on_writable_cgroup(script: &str) -> Bundle {
    Bundle::script(script).capabilities(&["CAP_SYS_ADMIN", "CAP_KILL"]).edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|mount| mount["destination"] == "/sys/fs/cgroup").unwrap();
        mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    })
}

/// What systemd and the start script of dockerd do on cgroup2: init leaves the top, which then hands controllers to its
/// children and may have no process any more. A child of init is in a cgroup further down.
const NEST: &str = "cd /sys/fs/cgroup && mkdir init && echo $$ > init/cgroup.procs && \
     for c in $(cat cgroup.controllers); do echo +$c > cgroup.subtree_control; done; \
     mkdir -p work/deep && { sleep 1000 & } && echo $! > work/deep/cgroup.procs && touch /ready; \
     trap 'echo termed >> /termed' TERM; while :; do wait; done";

fn nested() -> Bundle {
    on_writable_cgroup(NEST).namespace("cgroup")
}

/// Creates and starts it, and waits until it has its cgroups. None: the host's cgroup2 has no controller with which the
/// rule about inner processes could be tried.
fn up<'a>(runtime: &'a Runtime, bundle: &'a Bundle) -> Option<Container<'a>> {
    let container = runtime.container(bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let top = top(&container);
    let handed = fs::read_to_string(top.join("cgroup.subtree_control")).unwrap();
    (!handed.trim().is_empty()).then_some(container)
}

/// The container's cgroup2 directory, above the one that init has moved to.
fn top(container: &Container<'_>) -> PathBuf {
    let dir = container.cgroup("");
    assert!(dir.ends_with("init"), "{}", dir.display());
    dir.parent().unwrap().to_owned()
}

fn procs(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

const NO_CONTROLLER: &str = "no controller in cgroup2 to hand on";

#[test]
fn cgroup2_exec_goes_where_init_is_when_the_top_may_have_no_process() {
    let runtime = on_cgroup2!();
    let bundle = nested();
    let Some(container) = up(&runtime, &bundle) else { skip!("{NO_CONTROLLER}") };
    assert_eq!(procs(&top(&container)), Vec::<i32>::new());
    assert_eq!(container.shell("cat /proc/self/cgroup | grep ^0::"), "0::/init");
    assert_eq!(container.exec(["sh", "-c", "exit 7"]).code(), Some(7));
}

/// A systemd inside leaves the top before it hands controllers on, which a process in the top would keep it from.
#[test]
fn cgroup2_exec_goes_where_init_is_before_controllers_are_handed_on() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "goes to the top as long as it may");
    let bundle = on_writable_cgroup(
        "mkdir /sys/fs/cgroup/init && echo $$ > /sys/fs/cgroup/init/cgroup.procs; touch /ready; sleep 1000",
    )
    .namespace("cgroup");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroup", || bundle.rootfs().join("ready").exists());
    assert_eq!(container.shell("cat /proc/self/cgroup | grep ^0::"), "0::/init");
}

/// Born in the top, while init was still there.
#[test]
fn cgroup2_exec_follows_an_init_that_moves_meanwhile() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "stays in the top", Crun: "has no --ignore-paused");
    let bundle = on_writable_cgroup("sleep 1000").namespace("cgroup");
    let container = runtime.container(&bundle);
    container.up();
    let top = container.cgroup("");
    container.call("pause", &[]).ok();
    let (init, cgroup) = (container.pid(), ["sh", "-c", "grep ^0:: /proc/self/cgroup"]);
    let entering = container.verb("exec").args(["--ignore-paused", container.id()]).args(cgroup).spawn();
    wait_until("one more process is in the top", || procs(&top).iter().any(|&pid| pid != init));
    fs::create_dir(top.join("init")).unwrap();
    fs::write(top.join("init/cgroup.procs"), init.to_string()).unwrap();
    container.call("resume", &[]).ok();
    assert_eq!(entering.wait().ok().text(), "0::/init");
}

#[test]
fn cgroup2_exec_cgroup_is_below_the_containers() {
    let runtime = on_cgroup2!();
    let bundle = nested();
    let Some(container) = up(&runtime, &bundle) else { skip!("{NO_CONTROLLER}") };
    let own = |path: &str| container.exec_with(&["--cgroup", path], ["sh", "-c", "grep ^0:: /proc/self/cgroup"]);
    assert_eq!(own("init").ok().text(), "0::/init");
    assert_eq!(own("work/deep").ok().text(), "0::/work/deep");
    assert_eq!(own("/work/deep").ok().text(), "0::/work/deep");
    // Asked for: no other place will do.
    if runtime.kind() != Kind::Crun {
        own("/").fails(&["busy"]);
    }
}

#[test]
fn cgroup2_exec_cgroup_must_exist_and_stay_below() {
    let runtime = on_cgroup2!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let own = |path: &str| container.exec_with(&["--cgroup", path], ["true"]);
    if runtime.kind() != Kind::Crun {
        own("nothing").fails(&["no such file or directory"]);
        own("cpu:nothing").fails(&[]);
    }
    for path in ["../x", "..", "/.."] {
        own(path).fails(&[]);
    }
    if runtime.is_tare() {
        own("a/../b").fails(&["is not a sub cgroup path"]);
    }
    assert!(!container.cgroup("").join("nothing").exists());
}

/// A container on v1 that has made `sub` in each hierarchy it sees, and `other` for pids.
fn with_v1_cgroups() -> Bundle {
    on_writable_cgroup(
        "cd /sys/fs/cgroup; for h in *; do [ -L $h ] || mkdir $h/sub; done; \
         for f in cpus mems; do cat cpuset/cpuset.$f > cpuset/sub/cpuset.$f; done; \
         mkdir pids/other; touch /ready; sleep 1000",
    )
    .namespace("cgroup")
}

/// Where a /proc/PID/cgroup says the process is, for each of some controllers.
fn places(text: &str) -> [&str; 4] {
    ["pids", "memory", "cpuset", "freezer"].map(|controller| {
        let of = |line: &&str| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller);
        text.lines().find(of).unwrap().rsplit(':').next().unwrap()
    })
}

#[test]
fn exec_cgroup_of_each_controller_on_v1() {
    needs_v1!();
    let runtime = runtime();
    known!(runtime, Crun: "takes one path for all");
    let bundle = with_v1_cgroups();
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let flags = ["--cgroup", "pids:other", "--cgroup", "memory,cpuset:/sub"];
    let output = container.exec_with(&flags, ["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(places(&output.stdout), ["/other", "/sub", "/sub", "/"], "{output}");
    let refused = |flags: &[&str], texts: &[&str]| {
        container.exec_with(flags, ["true"]).fails(texts);
    };
    refused(&["--cgroup", "pids:nothing"], &["no such file or directory"]);
    refused(&["--cgroup", "nothing"], &["no such file or directory"]);
    refused(&["--cgroup", "nonsense:sub"], &[]);
    refused(&["--cgroup", "pids:../x"], &[]);
    if runtime.is_tare() {
        // runc 1.1.5 lets the last one win.
        refused(&["--cgroup", "pids:sub", "--cgroup", "pids:other"], &["multiple paths"]);
    }
    refused(&["--cgroup", "sub", "--cgroup", "other"], &[]);
}

#[test]
fn exec_cgroup_of_all_hierarchies_on_v1() {
    needs_v1!();
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 on a hybrid host wants it in cgroup2 too, which the container cannot see");
    let bundle = with_v1_cgroups();
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let output = container.exec_with(&["--cgroup", "sub"], ["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(places(&output.stdout), ["/sub"; 4], "{output}");
}

#[test]
fn cgroup2_ps_lists_the_processes_of_nested_cgroups() {
    let runtime = on_cgroup2!();
    let bundle = nested();
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let deep = procs(&top(&container).join("work/deep"));
    assert_eq!(deep.len(), 1);
    let listed = container.call("ps", &["--format", "json"]).ok().json();
    let mut expected = vec![container.pid(), deep[0]];
    expected.sort_unstable();
    assert_eq!(listed, json!(expected));
}

#[test]
fn cgroup2_pause_and_resume_reach_nested_cgroups() {
    let runtime = on_cgroup2!();
    let bundle = nested();
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let events = top(&container).join("work/deep/cgroup.events");
    container.call("pause", &[]).ok();
    container.is("paused");
    assert!(fs::read_to_string(&events).unwrap().contains("frozen 1"));
    container.call("resume", &[]).ok();
    assert!(fs::read_to_string(&events).unwrap().contains("frozen 0"));
    container.is("running");
}

#[test]
fn cgroup2_kill_and_delete_reach_nested_cgroups_that_are_frozen() {
    let runtime = on_cgroup2!();
    let bundle = nested().without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let top = top(&container);
    let deep = procs(&top.join("work/deep"));
    fs::write(top.join("work/cgroup.freeze"), "1").unwrap();
    container.verb("kill").args(["--all", container.id(), "KILL"]).run().ok();
    for pid in deep {
        wait_until("it is gone", || !host::is_alive(pid));
    }
    container.wait_for("stopped");
    container.delete().ok();
    assert!(!top.exists());
}

/// Who owns the container's cgroup2 directory, its `cgroup.procs`, and a file that stays with root.
fn owners(dir: &Path) -> [u32; 3] {
    ["", "cgroup.procs", "cgroup.max.depth"].map(|file| fs::metadata(dir.join(file)).unwrap().uid())
}

#[test]
fn cgroup2_a_user_namespace_with_a_writable_cgroup_mount_owns_its_cgroup() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "1.1.5 does so with systemd alone");
    let bundle = nested().user_namespace(100_000, 65536);
    // For the files that it tells us by.
    fs::set_permissions(bundle.rootfs(), fs::Permissions::from_mode(0o777)).unwrap();
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has its cgroups", || bundle.rootfs().join("ready").exists());
    let top = top(&container);
    assert_eq!(owners(&top), [100_000, 100_000, 0]);
    assert_eq!(fs::metadata(top.join("work/deep")).unwrap().uid(), 100_000, "it made that itself");
    assert_eq!(procs(&top.join("work/deep")).len(), 1);
    container.call("pause", &[]).ok();
    container.call("resume", &[]).ok();
    assert_eq!(container.exec(["sh", "-c", "exit 3"]).code(), Some(3));
    container.delete_force().ok();
    assert!(!top.exists());
}

#[test]
fn cgroup2_a_cgroup_is_not_given_away_without_need() {
    let runtime = on_cgroup2!();
    let none = on_writable_cgroup("sleep 1000");
    let read_only = Bundle::script("sleep 1000").namespace("cgroup");
    for bundle in [none, read_only] {
        let bundle = bundle.user_namespace(100_000, 65536);
        let container = runtime.container(&bundle);
        container.create().ok();
        assert_eq!(owners(&container.cgroup("")), [0; 3]);
    }
}

#[test]
fn cgroup2_without_a_user_namespace_the_process_user_owns_its_cgroup() {
    let runtime = on_cgroup2!();
    known!(runtime, Runc: "1.1.5 does so with systemd alone", Crun: "1.8.1 gives it to root");
    let bundle = on_writable_cgroup("sleep 1000").namespace("cgroup").user(1234, 1234);
    let container = runtime.container(&bundle);
    container.create().ok();
    assert_eq!(owners(&container.cgroup("")), [1234, 1234, 0]);
}

/// The host's systemd on the host's /usr, with a target that wants one service.
fn systemd() -> Bundle {
    let unit = |text: &str| format!("[Unit]\nDefaultDependencies=no\n{text}");
    let mut bundle = Bundle::new()
        .args(["/usr/lib/systemd/systemd", "--unit=test.target", "--log-target=console", "--show-status=no"])
        .env("container=oci")
        .namespace("cgroup")
        .capabilities(&["CAP_SYS_ADMIN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_CHOWN"])
        .bind("/usr", "/usr", &["rbind", "ro"])
        .mount(json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}))
        .mount(json!({"destination": "/var/log/journal", "type": "tmpfs", "source": "tmpfs"}))
        .file("etc/systemd/system/test.target", &unit("Wants=work.service\n"))
        .file(
            "etc/systemd/system/work.service",
            &unit("[Service]\nMemoryAccounting=yes\nExecStart=/usr/bin/sleep 1000\n"),
        )
        .file("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        .edit(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            let mounts = config["mounts"].as_array_mut().unwrap();
            let mount = mounts.iter_mut().find(|mount| mount["destination"] == "/sys/fs/cgroup").unwrap();
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        });
    for directory in ["bin", "sbin", "lib", "lib64"] {
        let path = bundle.rootfs().join(directory);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).unwrap();
        }
        bundle = bundle.symlink(directory, format!("usr/{directory}"));
    }
    bundle
}

#[test]
fn systemd_runs_inside_and_every_verb_reaches_it() {
    if host::cgroup_mode() != CgroupMode::V2 || !Path::new("/usr/lib/systemd/systemd").exists() {
        skip!("needs cgroup v2 with controllers, and systemd");
    }
    let runtime = runtime();
    let bundle = systemd();
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    // Before systemd is up its own cgroup is the container's.
    let top = if dir.ends_with("init.scope") { dir.parent().unwrap().to_owned() } else { dir };
    let work = || host::cgroups_with(container.id()).into_iter().find(|dir| dir.ends_with("work.service"));
    wait_until("its service runs", || work().is_some_and(|dir| procs(&dir).len() == 1));
    let service = procs(&work().unwrap())[0];
    assert!(container.cgroup("").ends_with("init.scope"), "{}", container.cgroup("").display());
    assert!(fs::read_to_string(top.join("cgroup.subtree_control")).unwrap().contains("memory"));

    assert_eq!(container.shell("grep ^0:: /proc/self/cgroup"), "0::/init.scope");
    assert_eq!(container.exec(["sh", "-c", "exit 9"]).code(), Some(9));
    if runtime.uses_systemd() {
        known!(runtime, Crun "1.21": "ps is empty once init has left the cgroup that it was put in");
    }
    let listed = container.call("ps", &["--format", "json"]).ok().json();
    for pid in [container.pid(), service] {
        assert!(listed.as_array().unwrap().contains(&json!(pid)), "{pid} in {listed}");
    }
    container.call("update", &["--memory", "268435456"]).ok();
    assert_eq!(fs::read_to_string(top.join("memory.max")).unwrap().trim(), "268435456");
    container.call("pause", &[]).ok();
    container.is("paused");
    let events = work().unwrap().join("cgroup.events");
    assert!(fs::read_to_string(&events).unwrap().contains("frozen 1"));
    container.call("resume", &[]).ok();
    assert!(fs::read_to_string(&events).unwrap().contains("frozen 0"));
    assert_eq!(container.shell("echo thawed"), "thawed");
    container.delete_force().ok();
    assert!(!top.exists());
    assert!(!host::is_alive(service));
}
