//! `--timeout`: one budget for all that a command waits for. When it is spent, one line says what for and for whom, and nothing
//! is left; what the container does is nobody's to cut short.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tare_testkit::{Bundle, Container, Output, Runtime, TempDir, deadline, known, wait_until};

use crate::rootless::{USER, as_user, script};

const SLEEP: &str = "exec sleep 1000";

macro_rules! runtime {
    () => {{
        let runtime = crate::runtime();
        known!(runtime, Runc: "has no such flag", Crun: "the same", Youki: "the same");
        runtime
    }};
}

/// The verb with so much time, expected to take not much more of it, and to fail in one line that has all these words.
#[track_caller]
fn times_out(container: &Container<'_>, time: &str, verb: &str, arguments: &[&str], words: &[&str]) -> Output {
    let begun = Instant::now();
    let output = container.verb_with(&["--timeout", time], verb).args(arguments).run();
    assert!(begun.elapsed() < deadline() / 2, "{output}");
    let output = output.fails(&[]);
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    for word in words {
        assert!(output.stderr.contains(word), "should say {word:?}: {output}");
    }
    output
}

#[test]
fn a_hook_of_create_that_takes_too_long_is_named_with_its_processes_and_killed() {
    let runtime = runtime!();
    for stage in ["prestart", "createRuntime"] {
        let bundle = Bundle::sleeper().hook_script(stage, "sleep 1000 & sleep 1000");
        let container = runtime.container(&bundle);
        let words = [stage, "hook #0", "timed out after 2 s: pid ", "\"sleep\" (state S, wchan "];
        times_out(&container, "2s", "create", &[container.id()], &words);
        container.is("none");
    }
}

#[test]
fn a_hook_inside_the_container_that_takes_too_long_is_found_from_outside() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper().hook_script("createContainer", SLEEP);
    let container = runtime.container(&bundle);
    let words = ["timed out after 1 s: the container is not ready, nor its createContainer hooks: pid ", "\"sleep\""];
    times_out(&container, "1s", "create", &[container.id()], &words);
    container.is("none");
}

#[test]
fn a_start_that_takes_too_long_names_what_init_waits_for_and_stops_the_container() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper().hook_script("startContainer", SLEEP);
    let words = ["timed out after 1 s: the container's init has not executed its program: pid ", "\"sleep\" (state S"];
    let container = runtime.container(&bundle);
    container.create().ok();
    times_out(&container, "1s", "start", &[container.id()], &words);
    container.is("stopped");
    container.delete().ok();
    let container = runtime.container(&bundle);
    times_out(&container, "1", "run", &[container.id()], &words);
    container.is("none");
}

#[test]
fn hooks_after_the_start_share_the_budget() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper().hook_script("poststart", SLEEP).hook_script("poststop", SLEEP);
    let container = runtime.container(&bundle);
    container.create().ok();
    times_out(&container, "1s", "start", &[container.id()], &["poststart hook #0", "timed out after 1 s: pid "]);
    container.wait_for("stopped");
    // Whatever becomes of a poststop hook, the container is deleted.
    let deleted = container.verb_with(&["--timeout", "1s"], "delete").arg(container.id()).run().ok();
    assert!(deleted.stderr.contains("poststop hook #0") && deleted.stderr.contains("timed out after 1 s"), "{deleted}");
    container.is("none");
}

#[test]
fn the_budget_is_for_the_command_and_not_for_the_container() {
    let runtime = runtime!();
    let bundle = Bundle::script("sleep 2; exit 7");
    let container = runtime.container(&bundle);
    let begun = Instant::now();
    container.verb_with(&["--timeout", "1500ms"], "run").arg(container.id()).run().exits(7);
    assert!(begun.elapsed().as_secs() >= 2);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let exec = container.verb_with(&["--timeout", "1500ms"], "exec");
    exec.args([container.id(), "sh", "-c", "sleep 2; exit 8"]).run().exits(8);
}

#[test]
fn without_limit_a_hook_may_take_what_it_takes() {
    let runtime = runtime!();
    let bundle = Bundle::new().hook_script("createRuntime", "sleep 0.2");
    let container = runtime.container(&bundle);
    container.verb_with(&["--timeout", "0"], "run").arg(container.id()).run().ok();
}

#[test]
fn who_has_the_lock_of_a_container_is_named() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper().hook_script("createRuntime", "exec sleep 5");
    let container = runtime.container(&bundle);
    let creating = container.verb("create").arg(container.id()).spawn();
    wait_until("it is being created", || container.status() == "creating");
    let holder = format!("is locked: another command is at work on it: pid {} \"", creating.pid());
    times_out(&container, "300ms", "delete", &[container.id()], &["timed out after 300 ms: ", &holder]);
    creating.wait().ok();
}

#[test]
fn a_bus_that_does_not_answer_is_named_with_who_has_made_it() {
    let runtime = runtime!().on_systemd();
    let dir = TempDir::new("mute");
    let _mute = UnixListener::bind(dir.join("bus")).unwrap();
    let address = format!("unix:path={}", dir.join("bus").display());
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let begun = Instant::now();
    let create = container.verb_with(&["--timeout", "1s"], "create").env("DBUS_SYSTEM_BUS_ADDRESS", address);
    let output = create.arg(container.id()).run().fails(&["systemd: StartTransientUnit: timed out after 1 s"]);
    let maker = format!("no answer from pid {} \"", std::process::id());
    assert!(output.stderr.contains(&maker), "{output}");
    assert!(begun.elapsed() < deadline() / 2, "{output}");
    container.is("none");
}

/// A program of this name for a PATH of its own, which sleeps.
fn sleeping_program(name: &str) -> TempDir {
    let dir = TempDir::new("bin");
    let program = dir.join(name);
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn path_with(dir: &TempDir) -> String {
    format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_helper_that_does_not_end_is_named_and_killed() {
    let runtime = as_user();
    known!(runtime, Runc: "has no such flag", Crun: "the same", Youki: "the same");
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 9}]);
    let bundle = script("true").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let dir = sleeping_program("newuidmap");
    let container = runtime.container(&bundle);
    let begun = Instant::now();
    let create = container.verb_with(&["--timeout", "2s"], "create").env("PATH", path_with(&dir));
    let output = create.arg(container.id()).run();
    let output = output.fails(&["linux.uidMappings: newuidmap: timed out after 2 s: pid ", "\"sleep\" (state S"]);
    assert!(begun.elapsed() < deadline() / 2 && output.stderr.lines().count() == 1, "{output}");
    container.is("none");
}

/// A socket with a backlog that is full: who connects has to wait, and nobody accepts.
struct Full {
    dir: TempDir,
    _listener: UnixListener,
    _waiting: Vec<UnixStream>,
}

impl Full {
    fn new() -> Self {
        let dir = TempDir::new("full");
        let listener = UnixListener::bind(dir.join("s")).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
                None,
            );
            let socket = socket.unwrap();
            let address = rustix::net::SocketAddrUnix::new(dir.join("s")).unwrap();
            match rustix::net::connect(&socket, &address) {
                Ok(()) => waiting.push(UnixStream::from(socket)),
                Err(rustix::io::Errno::AGAIN) => return Self { dir, _listener: listener, _waiting: waiting },
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.join("s")
    }
}

#[test]
fn a_socket_on_which_nobody_accepts_is_named() {
    let runtime = runtime!();
    let full = Full::new();
    let path = full.path();
    let socket = path.to_str().unwrap();
    let words = ["connect(", socket, "timed out after 700 ms: nobody accepts"];
    let with_terminal = Bundle::sleeper().terminal();
    let container = runtime.container(&with_terminal);
    times_out(&container, "700ms", "create", &["--console-socket", socket, container.id()], &words);
    container.is("none");

    let plain = Bundle::sleeper();
    let container = runtime.container(&plain);
    times_out(&container, "700ms", "create", &["--pidfd-socket", socket, container.id()], &words);
    container.is("none");

    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": socket});
    let notifying = Bundle::sleeper().set("/linux/seccomp", profile);
    let container = runtime.container(&notifying);
    times_out(&container, "700ms", "create", &[container.id()], &words);
    container.is("none");
}

#[test]
fn a_seccomp_agent_that_does_not_read_is_named() {
    let runtime = runtime!();
    let dir = TempDir::new("mute");
    let _mute = UnixListener::bind(dir.join("s")).unwrap();
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": dir.join("s")});
    // The state that it is sent is more than a socket holds.
    let bundle =
        Bundle::sleeper().set("/linux/seccomp", profile).set("/annotations", json!({"long": "x".repeat(1 << 20)}));
    let container = runtime.container(&bundle);
    let agent = format!("sendmsg(seccomp listener): timed out after 3 s: nobody reads: pid {} \"", std::process::id());
    times_out(&container, "3s", "create", &[container.id()], &["linux.seccomp.listenerPath", &agent]);
    container.is("none");
}

/// The verb for a service manager that listens.
fn unready(runtime: &Runtime, verb: &str, prepare: &[&str], arguments: &[&str]) -> (Output, String) {
    let dir = TempDir::new("notify");
    let _manager = UnixDatagram::bind(dir.join("manager")).unwrap();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    for &before in prepare {
        container.verb(before).env("NOTIFY_SOCKET", dir.join("manager")).arg(container.id()).run().ok();
    }
    let begun = Instant::now();
    let command = container.verb_with(&["--timeout", "2s"], verb).env("NOTIFY_SOCKET", dir.join("manager"));
    let output = command.args(arguments).arg(container.id()).run();
    assert!(begun.elapsed() < deadline() / 2, "{output}");
    let words = "timed out after 2 s: the container has not said READY=1 to its NOTIFY_SOCKET: pid ";
    (output.fails(&[words, "\"sleep\" (state S"]), container.status())
}

/// As with a poststart hook that fails.
#[test]
fn a_container_that_is_not_ready_in_time_is_stopped() {
    let runtime = runtime!();
    let (output, status) = unready(&runtime, "start", &["create"], &[]);
    assert!(status == "stopped" && output.stderr.lines().count() == 1, "{status}: {output}");
    let (output, status) = unready(&runtime, "run", &[], &["--detach"]);
    assert!(status == "none" && output.stderr.lines().count() == 1, "{status}: {output}");
}

/// One that CRIU has half saved must not be left with CRIU's code in it: what does not give up is let, and named.
#[test]
fn a_criu_that_does_not_end_is_named() {
    let runtime = runtime!();
    let dir = sleeping_program("criu");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let images = TempDir::new("images");
    let checkpoint = container.verb_with(&["--timeout", "1s"], "checkpoint").env("PATH", path_with(&dir));
    let output = checkpoint.args(["--image-path", images.path().to_str().unwrap(), container.id()]).run();
    let output = output.fails(&["timed out after 1 s: criu is not done: pid "]);
    let warning = "criu has not given up, the container may be saved yet: pid ";
    let (_, named) = output.stderr.split_once(warning).unwrap_or_else(|| panic!("{output}"));
    let pid: i32 = named.split(' ').next().unwrap().parse().unwrap();
    container.is("running");
    assert!(Path::new("/proc").join(pid.to_string()).exists(), "{output}");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

/// On cgroup v1 what is born into a frozen cgroup cannot even be killed until that is thawed.
#[test]
fn an_exec_in_a_container_that_stays_paused_ends_and_so_does_its_process_after_the_thaw() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let count = || container.call("ps", &["--format", "json"]).ok().json().as_array().unwrap().len();
    container.up();
    let before = count();
    container.call("pause", &[]).ok();
    let arguments = ["--ignore-paused", container.id(), "touch", "/ran"];
    let exec = container.verb_with(&["--timeout", "1s"], "exec").args(arguments).run().exits(255);
    assert!(exec.stderr.contains("timed out after 1 s: the container's "), "{exec}");
    container.is("paused");
    container.call("resume", &[]).ok();
    wait_until("there are as many processes as before", || count() == before);
    assert!(!bundle.rootfs().join("ran").exists());
}

#[test]
fn a_timeout_that_is_none_is_refused() {
    let runtime = runtime!();
    for word in ["soon", "-3s", "5 s"] {
        runtime.bare().args(["--timeout", word, "list"]).run().fails(&["--timeout"]);
    }
}
