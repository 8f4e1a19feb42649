//! Run by a user who is not root.

mod cgroup;
mod ids;
mod nested;
mod refusals;
mod session;

pub(crate) use cgroup::Delegated;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, Output, Runtime, TempDir, known, wait_until};

use crate::runtime;

/// A user who has no line in /etc/passwd, and nothing else on the host.
pub(crate) const USER: u32 = 54_321;

pub(crate) fn as_user() -> Runtime {
    runtime().as_user(USER)
}

pub(crate) fn script(script: &str) -> Bundle {
    Bundle::script(script).rootless(USER)
}

fn sleeper() -> Bundle {
    Bundle::sleeper().rootless(USER)
}

/// Expects one line, and one line of what to do about it.
#[track_caller]
fn advises(runtime: &Runtime, output: &Output, line: &str, hint: &str) {
    if runtime.is_tare() {
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert!(matches!(lines.as_slice(), [_, second] if second.starts_with("  hint: ")), "{output}");
        assert!(lines[0].contains(line), "{line}: {output}");
        assert!(lines[1].contains(hint), "{hint}: {output}");
    }
}

#[test]
fn a_user_runs_what_spec_writes() {
    let runtime = as_user();
    known!(runtime, Crun: "1.8.1 writes no mappings");
    let bundle = Bundle::new().owned_by(USER);
    runtime.bare().arg("spec").arg("--rootless").arg("--bundle").arg(bundle.path()).run().ok();
    let text = fs::read_to_string(bundle.path().join("config.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    let owner = fs::metadata(bundle.path().join("config.json")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (USER, USER));
    let script = "id -u; id -g; cat /proc/self/uid_map; touch /x || echo ro; echo $$";
    let bundle = bundle.edit(|config| *config = written);
    let bundle = bundle.args(["sh", "-c", script]).set("/process/terminal", json!(false));
    let output = runtime.run(&bundle).ok();
    let lines: Vec<String> =
        output.lines().iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["0", "0", "0 54321 1", "ro", "1"], "{output}");
}

#[test]
fn every_verb_of_a_life() {
    let runtime = as_user();
    let bundle = sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    container.is("created");
    container.start().ok();
    container.is("running");
    let listed = runtime.list(&["--format", "json"]).ok().json();
    assert_eq!(listed[0]["id"], container.id());
    assert_eq!(container.shell("id -u; echo $$ > /made; cat /made | wc -l"), "0\n1");
    let made = fs::metadata(bundle.rootfs().join("made")).unwrap();
    assert_eq!(made.uid(), USER);
    container.kill("TERM").ok();
    container.wait_for("stopped");
    container.delete().ok();
    container.is("none");
}

#[test]
fn a_created_container_is_deleted_by_force() {
    let runtime = as_user();
    let bundle = sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    container.delete_force().ok();
    container.is("none");
}

#[test]
fn a_process_list_needs_no_cgroup() {
    let runtime = as_user();
    known!(runtime, Runc: "needs a cgroup", Crun: "needs a cgroup");
    let bundle = script("sleep 1000 & wait");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("two processes", || {
        let pids = container.call("ps", &["--format", "json"]).ok().json();
        pids.as_array().unwrap().len() == 2
    });
    let pids = container.call("ps", &["--format", "json"]).ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(container.pid())), "{pids}");
    let table = container.call("ps", &[]).ok();
    assert_eq!(table.lines().len(), 3, "{table}");
}

#[test]
fn without_a_user_namespace_is_refused() {
    let runtime = as_user();
    known!(runtime, Crun: "makes one unasked");
    let bundle = Bundle::new().owned_by(USER);
    let output = runtime.run(&bundle).fails(&["rootless container requires user namespaces"]);
    advises(&runtime, &output, "linux.namespaces: rootless container", "`tare spec --rootless`");
}

#[test]
fn the_state_is_in_the_users_runtime_directory() {
    let runtime = as_user();
    let dir = TempDir::new("xdg");
    std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
    let name = runtime.kind().to_string();
    let bundle = sleeper();
    bundle.write();
    let id = runtime.id("xdg");
    let call = |args: &[&str]| runtime.bare().env("XDG_RUNTIME_DIR", dir.path()).args(args).run();
    call(&["run", "--detach", "--bundle", bundle.path().to_str().unwrap(), &id]).ok();
    let state = dir.join(&name);
    assert!(state.join(&id).is_dir());
    if runtime.is_tare() {
        // Sticky: what cleans up XDG_RUNTIME_DIR leaves it alone.
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o1700);
    }
    assert!(call(&["list"]).ok().stdout.contains(&id));
    call(&["delete", "--force", &id]).ok();
    assert!(!state.join(&id).exists());
}

#[test]
fn the_console_socket_receives_the_pty() {
    let runtime = as_user();
    let bundle = script("tty; stty size; stat -c %u /dev/pts/0; echo done").terminal();
    let container = runtime.container(&bundle);
    let socket = ConsoleSocket::new();
    fs::set_permissions(socket.path(), fs::Permissions::from_mode(0o777)).unwrap();
    container.call("create", &["--console-socket", socket.path()]).ok();
    let mut terminal = socket.receive();
    container.start().ok();
    let output = terminal.expect("done\r\n");
    assert!(output.starts_with("/dev/pts/0\r\n"), "{output}");
    assert!(output.contains("\r\n0\r\n"), "{output}");
}

#[test]
fn hooks_run_with_the_users_rights() {
    let runtime = as_user();
    let bundle = Bundle::new();
    let (host, inside) = (bundle.path().join("host"), bundle.path().join("createContainer"));
    let line = |file: &std::path::Path| format!("id -u > {}", file.display());
    let bundle =
        bundle.hook_script("createRuntime", &line(&host)).hook_script("createContainer", &line(&inside)).rootless(USER);
    runtime.run(&bundle).ok();
    assert_eq!(fs::read_to_string(host).unwrap().trim(), USER.to_string());
    assert_eq!(fs::read_to_string(inside).unwrap().trim(), "0");
}

#[test]
fn devices_are_the_hosts() {
    let runtime = as_user();
    let script_ = "echo x > /dev/null && head -c 4 /dev/zero | wc -c; stat -c '%t:%T' /dev/urandom; \
         mknod /n c 1 3 || echo no";
    let bundle = script(script_).capabilities(&["CAP_MKNOD"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["4", "1:9", "no"], "{output}");
}

#[test]
fn masks_and_read_only_paths_hold() {
    let runtime = as_user();
    let script_ = "cat /proc/kcore | wc -c; echo 1 > /proc/sys/net/ipv4/ip_forward || echo ro; \
         ls /sys/firmware | wc -l; mkdir /sys/fs/cgroup/memory/x || echo no";
    let output = runtime.run(&script(script_)).ok();
    assert_eq!(output.lines(), ["0", "ro", "0", "no"], "{output}");
}

#[test]
fn attributes_of_the_process() {
    let runtime = as_user();
    let status = "grep -e ^CapEff -e ^NoNewPrivs -e ^Seccomp: /proc/self/status; ulimit -n; ulimit -Hc; \
         cat /proc/self/oom_score_adj";
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]});
    let limits =
        json!([{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 90}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]);
    let bundle = script(status)
        .capabilities(&["CAP_CHOWN", "CAP_NET_ADMIN"])
        .set("/process/oomScoreAdj", json!(500))
        .set("/process/rlimits", limits)
        .set("/linux/seccomp", filter);
    let output = runtime.run(&bundle).ok();
    let words: Vec<&str> = output.stdout.split_whitespace().collect();
    let expected = "CapEff: 0000000000001001 NoNewPrivs: 1 Seccomp: 2 90 0 500";
    assert_eq!(words.join(" "), expected, "{output}");
}

#[test]
fn exec_has_all_of_its_options() {
    let runtime = as_user();
    known!(runtime, Crun: "1.8.1 forgets the environment with --env");
    let bundle = sleeper().capabilities(&["CAP_KILL"]);
    let container = runtime.container(&bundle);
    container.up();
    let options = ["--env", "A=b", "--cwd", "/tmp", "--cap", "CAP_NET_RAW"];
    let output = container.exec_with(&options, ["sh", "-c", "echo $A; pwd; grep ^CapEff /proc/self/status"]).ok();
    assert_eq!(output.lines()[..2], ["b", "/tmp"]);
    assert!(output.lines()[2].ends_with("2020"), "{output}");
    assert_eq!(container.exec(["sh", "-c", "exit 7"]).code(), Some(7));
    // In every namespace of the container.
    for kind in ["user", "mnt", "pid", "ipc", "uts"] {
        let theirs = container.shell(&format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(theirs, container.link(&format!("ns/{kind}")).to_string_lossy());
    }
}

#[test]
fn exec_with_a_terminal() {
    let runtime = as_user();
    let bundle = sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let socket = ConsoleSocket::new();
    fs::set_permissions(socket.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let verb = container.verb("exec").args(["--tty", "--detach", "--console-socket", socket.path()]);
    verb.arg(container.id()).args(["sh", "-c", "tty; echo done"]).run().ok();
    let output = socket.receive().expect("done\r\n");
    assert!(output.starts_with("/dev/pts/0\r\n"), "{output}");
}

#[test]
fn a_bind_keeps_what_the_host_has_locked() {
    let runtime = as_user();
    known!(runtime, Runc: "1.1.5 drops the flags that are locked, and is refused");
    let volume = TempDir::new("volume");
    fs::create_dir(volume.join("in")).unwrap();
    let around =
        format!("mount -t tmpfs -o nosuid,nodev,noexec,mode=777 none {0}/in && exec \"$@\"", volume.path().display());
    let runtime = runtime.around(around).around("exec unshare --mount --propagation private \"$@\"");
    let bundle = Bundle::script("grep ' /v ' /proc/self/mountinfo | cut -d' ' -f6; touch /v/x || echo no")
        .bind(volume.join("in"), "/v", &["bind", "ro"])
        .dir("v")
        .rootless(USER);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["ro,nosuid,nodev,noexec,relatime", "no"], "{output}");
}

#[test]
fn a_pod_shares_its_namespaces() {
    let runtime = as_user();
    let first = sleeper();
    let first = runtime.container(&first);
    first.up();
    let mut bundle = script("for kind in user ipc uts; do readlink /proc/self/ns/$kind; done; hostname");
    for kind in ["user", "ipc", "uts"] {
        bundle = bundle.join_namespace(kind, format!("/proc/{}/ns/{kind}", first.pid()));
    }
    let bundle = bundle.remove("", "hostname");
    let output = runtime.run(&bundle).ok();
    for (line, kind) in output.lines().iter().zip(["user", "ipc", "uts"]) {
        assert_eq!(*line, first.link(&format!("ns/{kind}")).to_string_lossy());
    }
    assert_eq!(output.lines()[3], "tare-test");
}

#[test]
fn exec_enters_a_container_that_waits_for_start() {
    let runtime = as_user();
    known!(runtime, Crun: "1.8.1 keeps init not dumpable until exec: the user's other processes may not look at it");
    let bundle = sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    assert_eq!(container.shell("id -u; cat /proc/1/comm | wc -l"), "0\n1");
    container.start().ok();
    container.is("running");
}

#[test]
fn hooks_may_open_the_namespaces_of_the_container() {
    let runtime = as_user();
    known!(runtime, Crun: "1.8.1 keeps init not dumpable until exec: the user's other processes may not look at it");
    let bundle = Bundle::new();
    let file = bundle.path().join("namespaces");
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/ipc /proc/$pid/ns/user > {}",
        file.display()
    );
    let bundle = bundle.hook_script("createRuntime", &script).rootless(USER);
    runtime.run(&bundle).ok();
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 2);
}
