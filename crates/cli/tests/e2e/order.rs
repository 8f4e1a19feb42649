//! What has to come before what, where no other test shows it: "Why this order" in ARCHITECTURE.md names the test of each.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, TempDir, known, rounds, skip, wait_until};

use crate::runtime;

/// chdir(2) comes before the user is changed.
#[test]
fn a_cwd_that_root_alone_can_enter_works_for_another_user() {
    let runtime = runtime();
    let bundle =
        Bundle::new().args(["/bin/pwd"]).user(1000, 1000).dir("private").set("/process/cwd", json!("/private"));
    fs::set_permissions(bundle.rootfs().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(runtime.run(&bundle).ok().text(), "/private");
}

/// Limits come after the last file is opened.
#[test]
fn limits_that_leave_no_room_for_another_file_work() {
    let runtime = runtime();
    known!(runtime, Runc: "opens /proc/self/fd after it", Crun: "opens /proc/self/setgroups after it");
    let limit = json!([{"type": "RLIMIT_NOFILE", "hard": 3, "soft": 3}]);
    let bundle = Bundle::new().args(["echo", "ran"]).set("/process/rlimits", limit);
    assert_eq!(runtime.run(&bundle).ok().text(), "ran");
}

/// oom_score_adj comes before the user namespace, in which the file is somebody else's.
#[test]
fn oom_score_adj_is_set_in_a_user_namespace_too() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /proc/self/oom_score_adj; id -u").user_namespace(100_000, 65_536);
    let bundle = bundle.set("/process/oomScoreAdj", json!(345)).user(1000, 1000);
    assert_eq!(runtime.run(&bundle).ok().lines(), ["345", "1000"]);
}

/// What enters a namespace is not dumpable before: a process there that has every capability of the user namespace may
/// not look into it, nor so much as see which program it is.
#[test]
fn what_enters_a_user_namespace_cannot_be_looked_into_from_there() {
    let runtime = runtime();
    let script = "echo looking; while :; do for p in /proc/[0-9]*; do exe=$(readlink $p/exe) && \
         test \"$exe\" != /bin/busybox && echo \"saw $exe\"; done; done 2>/dev/null";
    let bundle = Bundle::script(script).user_namespace(100_000, 65_536).capabilities(&["CAP_SYS_PTRACE"]);
    let container = runtime.container(&bundle);
    let running = container.spawn();
    wait_until("it looks", || running.stdout_so_far().starts_with("looking\n"));
    for _ in 0..rounds(60) {
        container.exec(["true"]).ok();
    }
    assert_eq!(running.stdout_so_far(), "looking\n");
}

/// Limits and device rules are there before a process is: the first hook finds them on init's cgroups.
#[test]
fn limits_and_device_rules_are_there_before_anything_of_the_container_runs() {
    if !matches!(host::cgroup_mode(), CgroupMode::V1 | CgroupMode::Hybrid) {
        skip!("reads the files of cgroup v1");
    }
    let runtime = runtime();
    let dir = TempDir::new("hook");
    let roots: Vec<_> = ["devices", "memory"]
        .into_iter()
        .map(|name| {
            let with = |mount: &host::CgroupMount| mount.controllers.iter().flatten().any(|one| one == name);
            host::cgroup_mounts().into_iter().find(with).expect("a hierarchy").path.display().to_string()
        })
        .collect();
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); of() {{ sed -n \"s/^[0-9]*:\\(.*,\\)*$1\\(,.*\\)*://p\" /proc/$pid/cgroup; }}; \
         {{ head -n 1 {0}$(of devices)/devices.list; cat {1}$(of memory)/memory.limit_in_bytes; }} > {2}",
        roots[0],
        roots[1],
        dir.join("seen").display()
    );
    let bundle = Bundle::new().resource("memory", json!({"limit": 64 << 20})).hook_script("createRuntime", &script);
    runtime.run(&bundle).ok();
    let seen = fs::read_to_string(dir.join("seen")).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    assert!(matches!(lines[..], [rule, "67108864"] if !rule.starts_with("a ")), "{seen}");
}

/// Of the hooks it is createContainer's that are in the container's cgroup.
#[test]
fn a_create_container_hook_is_bound_by_the_device_rules() {
    let runtime = runtime();
    let dir = TempDir::new("hook");
    let open = |name: &str| {
        format!(
            "if (exec 3<{0}/kmsg) 2>/dev/null; then echo opened; else echo refused; fi >{0}/{name}",
            dir.path().display()
        )
    };
    let make = format!("mknod {}/kmsg c 1 11 && {}", dir.path().display(), open("outside"));
    let bundle = Bundle::new().hook_script("createRuntime", &make).hook_script("createContainer", &open("inside"));
    runtime.run(&bundle).ok();
    let seen = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    if seen("outside") != "opened\n" {
        skip!("/dev/kmsg cannot be opened here");
    }
    assert_eq!(seen("inside"), "refused\n");
    // And where that is the only hook.
    let bundle = Bundle::new().hook_script("createContainer", &open("again"));
    runtime.run(&bundle).ok();
    assert_eq!(seen("again"), "refused\n");
}
