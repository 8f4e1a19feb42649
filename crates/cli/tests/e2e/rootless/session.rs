//! In a login session, as its user: `hack/vm --user user E2E rootless::session`. Root cannot play this user, whose systemd
//! and whose bus are its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Runtime, skip};

use super::advises;
use crate::runtime;

/// The user's number, in a session on cgroup2.
fn session() -> Option<u32> {
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let bus = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join("bus");
    (uid != 0 && bus.exists() && host::cgroup_mode() == CgroupMode::V2).then_some(uid)
}

macro_rules! session {
    () => {
        match session() {
            Some(uid) => uid,
            None => skip!("not an ordinary user in a session with a bus on cgroup2"),
        }
    };
}

/// Commands in scopes of the user's systemd, as the hint advises: there the cgroups around are the user's.
fn in_a_scope() -> Runtime {
    runtime().inside("exec systemd-run --user --scope --quiet -p Delegate=yes -- \"$@\"")
}

fn limits() -> Value {
    json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 50}})
}

#[test]
fn session_a_container_runs() {
    let uid = session!();
    let output = runtime().run(&Bundle::script("id -u; cat /proc/self/uid_map").rootless(uid)).ok();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", uid.to_string().as_str(), "1"], "{output}");
}

#[test]
fn session_subordinate_ids_of_the_host() {
    let uid = session!();
    let grants = fs::read_to_string("/etc/subuid").unwrap();
    let Some(first) =
        grants.lines().find_map(|line| line.strip_prefix("user:")?.split(':').next()?.parse::<u32>().ok())
    else {
        skip!("no subordinate ids for \"user\"");
    };
    let map = json!([{"containerID": 0, "hostID": uid, "size": 1}, {"containerID": 1, "hostID": first, "size": 1000}]);
    let bundle = Bundle::script("id -u; id -g").rootless(uid).user(7, 8);
    let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    assert_eq!(runtime().run(&bundle).ok().lines(), ["7", "8"]);
}

#[test]
fn session_limits_in_a_delegated_cgroup() {
    let uid = session!();
    let runtime = in_a_scope();
    let bundle = Bundle::sleeper().rootless(uid).namespace("cgroup").set("/linux/resources", limits());
    let container = runtime.container(&bundle);
    container.up();
    let dir = container.cgroup("");
    assert!(dir.ends_with(container.id()), "{}", dir.display());
    assert_eq!(fs::read_to_string(dir.join("memory.max")).unwrap(), "67108864\n");
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap(), "50\n");
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.call("update", &["--pids-limit", "60"]).ok();
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap(), "60\n");
    assert_eq!(container.shell("cat /proc/self/cgroup"), "0::/");
    container.delete_force().ok();
    assert!(!dir.exists());
}

#[test]
fn session_limits_by_the_users_systemd() {
    let uid = session!();
    let runtime = runtime();
    let bundle = Bundle::sleeper().rootless(uid).namespace("cgroup").set("/linux/resources", limits());
    let bundle = bundle.cgroups_path(&format!("user.slice:tare:{}", runtime.tag()));
    bundle.write();
    let id = runtime.id("s");
    let call = |args: &[&str]| runtime.raw().arg("--systemd-cgroup").args(args).arg(&id).run();
    call(&["create", "--bundle", bundle.path().to_str().unwrap()]).ok();
    call(&["start"]).ok();
    let state = call(&["state"]).ok().json();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let dir = host::cgroup_dir(&own, "").unwrap();
    assert!(own.contains(&format!("user@{uid}.service/")), "{own}");
    assert!(own.contains(&format!("tare-{}.scope", runtime.tag())), "{own}");
    assert_eq!(fs::read_to_string(dir.join("memory.max")).unwrap(), "67108864\n");
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap(), "50\n");
    call(&["delete", "--force"]).ok();
    assert!(!dir.exists());
}

#[test]
fn session_limits_without_a_scope_are_refused() {
    let uid = session!();
    let runtime = runtime();
    let output = runtime.run(&Bundle::new().rootless(uid).set("/linux/resources", limits())).fails(&[]);
    advises(&runtime, &output, "linux.resources.memory.limit: mkdir(\"/sys/fs/cgroup/user.slice/", "--systemd-cgroup");
}

#[test]
fn session_a_controller_that_is_not_delegated_is_named() {
    let uid = session!();
    let user = format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service");
    if fs::read_to_string(format!("{user}/cgroup.controllers")).unwrap().contains("cpuset") {
        skip!("cpuset is delegated");
    }
    let runtime = in_a_scope();
    let bundle = Bundle::new().rootless(uid).set("/linux/resources", json!({"cpu": {"cpus": "0"}}));
    let output = runtime.run(&bundle).fails(&[]);
    let line = "linux.resources.cpu.cpus: controller \"cpuset\" is not available";
    advises(&runtime, &output, line, "Delegate=cpu cpuset io memory pids");
}
