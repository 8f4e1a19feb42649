//! Cgroups of a user who has been given some, or none.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Runtime, known, skip, wait_until};

use super::{USER, advises, as_user, script, sleeper};

/// Cgroups that are the user's, as a delegation makes them; gone when dropped.
pub(crate) struct Delegated {
    dirs: Vec<PathBuf>,
    own: Vec<PathBuf>,
}

impl Delegated {
    fn name() -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        format!("dg{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    /// In these v1 hierarchies (`name=systemd`, `pids`, `` for cgroup2), or all.
    fn on_v1(wanted: Option<&[&str]>) -> Self {
        let name = Self::name();
        let mut dirs = Vec::new();
        for mount in host::cgroup_mounts() {
            let controllers = mount.controllers.unwrap_or_else(|| vec![String::new()]);
            if wanted.is_some_and(|wanted| !wanted.iter().any(|one| controllers.iter().any(|name| name == one))) {
                continue;
            }
            // Beside the tests' own cgroup: what is there is nobody's but ours.
            let dir = mount.path.join(&name);
            fs::create_dir(&dir).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if dir.join(file).exists() {
                    fs::write(dir.join(file), fs::read(mount.path.join(file)).unwrap()).unwrap();
                }
            }
            give(&dir);
            dirs.push(dir);
        }
        Self { own: dirs.clone(), dirs }
    }

    /// In cgroup2, the user in a cgroup below the one that is the user's.
    pub(crate) fn on_cgroup2() -> Self {
        let mount = host::cgroup_mounts().into_iter().find(|mount| mount.controllers.is_none()).unwrap();
        let dir = mount.path.join(Self::name());
        let own = dir.join("own");
        fs::create_dir_all(&own).unwrap();
        give(&dir);
        give(&own);
        Self { own: vec![own.clone()], dirs: vec![own, dir] }
    }

    /// The user's cgroup itself.
    pub(crate) fn dir(&self) -> &Path {
        self.dirs.last().unwrap()
    }

    /// Puts each command into these cgroups.
    pub(crate) fn around(&self, runtime: Runtime) -> Runtime {
        let enter: Vec<String> =
            self.own.iter().map(|dir| format!("echo $$ > {}/cgroup.procs", dir.display())).collect();
        runtime.around(format!("{} && exec \"$@\"", enter.join(" && ")))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // The last command may still be on its way out.
            let end = std::time::Instant::now() + tare_testkit::deadline();
            while dir.exists() && fs::remove_dir(dir).is_err() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(std::thread::panicking() || !dir.exists(), "{} stays", dir.display());
        }
    }
}

fn give(dir: &Path) {
    chown(dir, Some(USER), Some(USER)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if ["cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"].contains(&name.as_str()) {
            chown(dir.join(name), Some(USER), Some(USER)).unwrap();
        }
    }
}

macro_rules! v1 {
    () => {
        if !matches!(host::cgroup_mode(), CgroupMode::V1 | CgroupMode::Hybrid) {
            skip!("the host has no cgroup v1");
        }
    };
}

/// A private mount of cgroup2 in place of the host's cgroups.
macro_rules! cgroup2 {
    () => {
        match host::cgroup_mode() {
            CgroupMode::Hybrid => true,
            CgroupMode::V2 => false,
            _ => skip!("the host has no cgroup2"),
        }
    };
}

fn on_cgroup2(private: bool) -> Runtime {
    if private { as_user().on_cgroup2() } else { as_user() }
}

#[test]
fn cgroups_that_are_the_users_are_used() {
    v1!();
    let delegated = Delegated::on_v1(None);
    let runtime = delegated.around(as_user());
    known!(runtime, Crun: "1.8.1 has no cgroups for users on v1");
    let bundle = sleeper().set("/linux/resources", json!({"pids": {"limit": 20}, "memory": {"limit": 33_554_432}}));
    let container = runtime.container(&bundle);
    container.up();
    for controller in ["pids", "memory", "freezer", "cpuset", "devices", "name=systemd"] {
        let dir = container.cgroup(controller);
        assert!(dir.to_string_lossy().contains(&*delegated.dir().file_name().unwrap().to_string_lossy()), "{dir:?}");
    }
    assert_eq!(fs::read_to_string(container.cgroup("pids").join("pids.max")).unwrap(), "20\n");
    let memory = container.cgroup("memory").join("memory.limit_in_bytes");
    assert_eq!(fs::read_to_string(memory).unwrap(), "33554432\n");
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    let own = container.shell("cat /proc/self/cgroup");
    assert!(own.lines().filter(|line| line.ends_with(container.id())).count() > 8, "{own}");
    let pids = container.call("ps", &["--format", "json"]).ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(container.pid())), "{pids}");
    container.call("update", &["--pids-limit", "30"]).ok();
    assert_eq!(fs::read_to_string(container.cgroup("pids").join("pids.max")).unwrap(), "30\n");
    container.delete_force().ok();
    assert!(!delegated.dir().join(container.id()).exists());
}

#[test]
fn of_the_hierarchies_those_are_used_that_are_the_users() {
    v1!();
    let delegated = Delegated::on_v1(Some(&["pids", ""]));
    let runtime = delegated.around(as_user());
    known!(runtime, Runc: "1.1.5 does not ask what is delegated", Crun: "1.8.1 has no cgroups for users on v1");
    let bundle = sleeper().set("/linux/resources", json!({"pids": {"limit": 20}}));
    let container = runtime.container(&bundle);
    container.up();
    assert!(container.cgroup("pids").ends_with(container.id()));
    assert!(container.cgroup("").ends_with(container.id()));
    assert!(!container.cgroup("memory").ends_with(container.id()));
    // No freezer of v1: that of cgroup2.
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.delete_force().ok();

    let bundle = sleeper().set("/linux/resources", json!({"memory": {"limit": 33_554_432}}));
    let output = runtime.run(&bundle).fails(&[]);
    advises(&runtime, &output, "linux.resources.memory.limit: mkdir(\"/sys/fs/cgroup/memory/", "chown");
}

#[test]
fn cgroup2_beside_v1_alone_will_do() {
    if host::cgroup_mode() != CgroupMode::Hybrid {
        skip!("not a hybrid host");
    }
    let delegated = Delegated::on_v1(Some(&[""]));
    let runtime = delegated.around(as_user());
    known!(runtime, Runc: "1.1.5 has no cgroup2 on a hybrid host", Crun: "1.8.1 has no cgroups for users on v1");
    let bundle = Bundle::script("sleep 1001 & sleep 1002 & wait").without_namespace("pid").rootless(USER);
    let bundle = bundle.edit(|config| {
        // A new proc takes a new pid namespace.
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "proc");
        config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
    });
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    wait_until("three processes", || fs::read_to_string(dir.join("cgroup.procs")).unwrap().lines().count() == 3);
    container.delete_force().ok();
    assert!(!dir.exists());
}

#[test]
fn a_limit_without_a_cgroup_is_refused_by_its_field() {
    let runtime = as_user();
    known!(runtime, Crun: "goes without");
    let bundle = script("true").set("/linux/resources", json!({"pids": {"limit": 20}}));
    let output = runtime.run(&bundle).fails(&[]);
    advises(&runtime, &output, "linux.resources.pids.limit: mkdir(\"/sys/fs/cgroup/", "leave limits and");
    assert!(output.stderr.contains("ermission denied") || !runtime.is_tare(), "{output}");
    // Devices are no limit: a user namespace can make none.
    let devices = json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "r"}]});
    runtime.run(&script("true").set("/linux/resources", devices)).ok();
}

#[test]
fn a_cgroup_that_is_asked_for_by_name_is_no_luxury() {
    let runtime = as_user();
    known!(runtime, Crun: "goes without");
    let output = runtime.run(&script("true").cgroups_path("/tare-rootless-test/x")).fails(&["ermission denied"]);
    advises(&runtime, &output, "mkdir(\"/sys/fs/cgroup/", "cgroupsPath out");
}

#[test]
fn may_be_told_and_forbidden() {
    let runtime = as_user();
    known!(runtime, Crun: "ignores the option");
    let bundle = script("true");
    bundle.write();
    let run = |runtime: &Runtime, rootless: &str| {
        let id = runtime.id("r");
        runtime.raw().arg(rootless).arg("run").arg("--bundle").arg(bundle.path()).arg(id).run()
    };
    run(&runtime, "--rootless=true").ok();
    run(&runtime, "--rootless=auto").ok();
    let output = run(&runtime, "--rootless=false").fails(&["ermission denied"]);
    advises(&runtime, &output, "mkdir(\"/sys/fs/cgroup/", "cgroupsPath out");
}

#[test]
fn goes_without_cgroups_where_root_may_not_write_them() {
    v1!();
    let read_only = "for m in /sys/fs/cgroup/*; do mountpoint -q $m && mount -o remount,bind,ro $m; done; \
         mount -o remount,bind,ro /sys/fs/cgroup; exec \"$@\"";
    let own = || crate::runtime().around(read_only).around("exec unshare --mount --propagation private \"$@\"");
    let runtime = own();
    known!(runtime, Crun: "ignores the option");
    let bundle = Bundle::new();
    bundle.write();
    let run = |rootless: &str| {
        let id = runtime.id("r");
        runtime.raw().arg(rootless).arg("run").arg("--bundle").arg(bundle.path()).arg(id).run()
    };
    let output = run("--rootless=auto").fails(&["ead-only file system"]);
    advises(&runtime, &output, "mkdir(\"/sys/fs/cgroup/", "cgroupsPath out");
    run("--rootless=true").ok();
}

#[test]
fn a_container_without_a_cgroup_cannot_be_paused_nor_limited_later() {
    let runtime = as_user();
    known!(runtime, Runc: "1.1.5 says so in other words", Crun: "says so in other words");
    let bundle = sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).fails(&["cannot freeze a container without a cgroup"]);
    container.is("running");
    container.call("update", &["--pids-limit", "30"]).fails(&["cannot limit a container without a cgroup"]);
}

#[test]
fn a_delegated_cgroup2_is_used() {
    let private = cgroup2!();
    let delegated = Delegated::on_cgroup2();
    let runtime = delegated.around(on_cgroup2(private));
    known!(runtime, Crun: "1.8.1 wants systemd for it");
    let bundle = sleeper().namespace("cgroup").set("/linux/resources", json!({"unified": {"cgroup.max.depth": "7"}}));
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    assert_eq!(dir, delegated.dir().join(container.id()));
    assert_eq!(fs::read_to_string(dir.join("cgroup.max.depth")).unwrap(), "7\n");
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    assert_eq!(container.shell("cat /proc/self/cgroup").lines().last(), Some("0::/"));
    let pids = container.call("ps", &["--format", "json"]).ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(container.pid())), "{pids}");
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
    assert!(!dir.exists());
}

#[test]
fn on_cgroup2_that_is_not_the_users() {
    let private = cgroup2!();
    let runtime = on_cgroup2(private);
    known!(runtime, Crun: "goes without");
    let bundle = script("mkdir /sys/fs/cgroup/x || echo no; echo $$ > /sys/fs/cgroup/cgroup.procs || echo no");
    for bundle in [bundle, script("mkdir /sys/fs/cgroup/x || echo no; echo no").namespace("cgroup")] {
        let output = runtime.run(&bundle).ok();
        assert_eq!(output.lines(), ["no", "no"], "{output}");
    }
    let output = runtime.run(&script("true").set("/linux/resources", json!({"unified": {"cgroup.max.depth": "7"}})));
    let output = output.fails(&[]);
    advises(&runtime, &output, "linux.resources.unified", "leave limits and");
}
