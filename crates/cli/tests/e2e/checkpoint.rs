//! `checkpoint` and `restore`: a container is saved, and goes on elsewhere.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use tare_testkit::{
    Bundle, ConsoleSocket, Container, Criu, Invocation, Output, Pty, Runtime, TempDir, host, known, skip, wait_until,
};

use crate::runtime;

/// The runtime under test with CRIU in its PATH; leaves the test where there is none.
macro_rules! with_criu {
    () => {{
        let runtime = runtime();
        known!(runtime, Crun: "1.8.1 of Debian is built without CRIU");
        match Criu::find() {
            Ok(criu) => (runtime, criu),
            Err(reason) => skip!("{reason}"),
        }
    }};
}
pub(crate) use with_criu;

/// What is done with one container and one directory of images.
pub(crate) struct Saved<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) criu: &'static Criu,
    pub(crate) images: PathBuf,
}

impl<'a> Saved<'a> {
    pub(crate) fn new(runtime: &Runtime, container: &'a Container<'a>, criu: &'static Criu) -> Self {
        Self { container, criu, images: runtime.dir().join("images") }
    }

    pub(crate) fn images(&self) -> &str {
        self.images.to_str().unwrap()
    }

    /// A verb with the images; stdio that is from nowhere.
    pub(crate) fn verb(&self, verb: &str) -> Invocation {
        let invocation = self.container.verb(verb).env("PATH", self.criu.path());
        invocation.through_shell(NO_STDIO).args(["--image-path", self.images()])
    }

    pub(crate) fn checkpoint(&self, options: &[&str]) -> Output {
        self.verb("checkpoint").args(options).arg(self.container.id()).run()
    }

    pub(crate) fn restore(&self, options: &[&str]) -> Output {
        let bundle = ["--bundle", self.container.bundle().to_str().unwrap()];
        self.verb("restore").args(bundle).args(["--detach"]).args(options).arg(self.container.id()).run()
    }

    /// `restore` in the foreground.
    pub(crate) fn restoring(&self, options: &[&str]) -> Invocation {
        let bundle = ["--bundle", self.container.bundle().to_str().unwrap()];
        self.verb("restore").args(bundle).args(options).arg(self.container.id())
    }

    /// `checkpoint` and `restore`, which have to succeed.
    #[track_caller]
    pub(crate) fn there_and_back(&self, checkpoint: &[&str], restore: &[&str]) {
        self.explain(self.checkpoint(checkpoint), "dump.log").ok();
        self.explain(self.restore(restore), "restore.log").ok();
    }

    /// Shows CRIU's log if the command failed.
    pub(crate) fn explain(&self, mut output: Output, log: &str) -> Output {
        if !output.success() {
            let log = fs::read_to_string(self.images.join(log)).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            output.stderr += &tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        }
        output
    }
}

/// A container has no descriptor of the host's as its stdio: runc cannot save files, only pipes. Messages are kept.
pub(crate) const NO_STDIO: &str = "exec \"$@\" < /dev/null > /dev/null";

/// Starts a container with stdio that is from nowhere.
#[track_caller]
pub(crate) fn run(container: &Container<'_>) {
    let invocation = container.verb("run").through_shell("exec \"$@\" < /dev/null > /dev/null 2> /dev/null");
    invocation.args(["--detach", container.id()]).run().ok();
}

/// Counts in a file of the root, from 1 on, in one process.
pub(crate) const COUNTER: &str =
    "n=0; while :; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; sleep 0.02; done";

pub(crate) fn count(container: &Container<'_>) -> u64 {
    let text = fs::read_to_string(container.bundle().join("rootfs/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[track_caller]
pub(crate) fn wait_for_count(container: &Container<'_>, above: u64) {
    wait_until(&format!("it has counted past {above}"), || count(container) > above);
}

/// The cgroup that limits its processes.
pub(crate) fn pids_cgroup(container: &Container<'_>) -> PathBuf {
    container.cgroup(if host::cgroup_mode() == host::CgroupMode::V2 { "" } else { "pids" })
}

#[test]
fn a_counter_goes_on_where_it_was_saved() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    container.is("none");
    let before = count(&container);
    fs::remove_file(container.bundle().join("rootfs/count")).unwrap();
    saved.explain(saved.restore(&[]), "restore.log").ok();
    container.is("running");
    wait_for_count(&container, before);
    assert!(count(&container) < before + 1000, "it goes on, and does not count anew what was lost");
}

#[test]
fn a_restored_container_is_one_like_any_other() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(&format!("trap 'exit 7' TERM; {COUNTER}"))
        .set("/hostname", json!("saved"))
        .resource("pids", json!({"limit": 77}));
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let pid_file = runtime.dir().join("pid");
    saved.there_and_back(&[], &["--pid-file", pid_file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(pid_file).unwrap(), container.pid().to_string());
    assert_eq!(container.shell("hostname; echo $$ > /dev/null; cat /proc/1/comm"), "saved\nsh");
    let processes = container.call("ps", &["--format", "json"]).ok().json();
    assert!(processes.as_array().unwrap().contains(&json!(container.pid())), "{processes}");
    let limit = pids_cgroup(&container).join("pids.max");
    assert_eq!(fs::read_to_string(limit).unwrap().trim(), "77");
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.kill("TERM").ok();
    container.wait_for("stopped");
    container.delete().ok();
    container.is("none");
}

#[test]
fn a_container_that_runs_on_is_saved_all_the_same() {
    let (runtime, criu) = with_criu!();
    // What it writes is saved with it: the root goes on changing.
    let bundle = Bundle::script(&COUNTER.replace("/count", "/dev/shm/count"));
    let container = runtime.container(&bundle);
    run(&container);
    let counted = || container.exec(["cat", "/dev/shm/count"]).text().parse().unwrap_or(0);
    let wait_for = |above: u64| wait_until(&format!("it has counted past {above}"), || counted() > above);
    wait_for(3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&["--leave-running"]), "dump.log").ok();
    container.is("running");
    let then = counted();
    wait_for(then + 50);
    container.delete_force().ok();
    saved.explain(saved.restore(&[]), "restore.log").ok();
    let back = counted();
    assert!((3..then + 50).contains(&back), "{back}: what it has counted since {then} is forgotten");
    wait_for(back);
}

#[test]
fn it_comes_back_under_another_name_in_a_cgroup_of_that_name() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let first = runtime.container(&bundle);
    run(&first);
    wait_for_count(&first, 3);
    Saved::new(&runtime, &first, criu).checkpoint(&[]).ok();
    let other = runtime.container(&bundle);
    let saved = Saved::new(&runtime, &other, criu);
    let before = count(&other);
    saved.explain(saved.restore(&[]), "restore.log").ok();
    wait_for_count(&other, before);
    let name = runtime.cgroup_name(other.id());
    assert!(pids_cgroup(&other).ends_with(&name), "{:?}", pids_cgroup(&other));
}

#[test]
fn a_paused_container_is_saved_and_runs_when_it_is_back() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    container.call("pause", &[]).ok();
    let before = count(&container);
    let saved = Saved::new(&runtime, &container, criu);
    saved.there_and_back(&[], &[]);
    container.is("running");
    wait_for_count(&container, before);
}

#[test]
fn what_does_not_run_is_not_saved() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script("exit 0");
    let container = runtime.container(&bundle);
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&["does not exist"]);
    container.create().ok();
    saved.checkpoint(&[]).fails(&["cannot be checkpointed in created state"]);
    container.is("created");
    container.start().ok();
    container.wait_for("stopped");
    saved.checkpoint(&[]).fails(&["cannot be checkpointed in stopped state"]);
}

#[test]
fn without_criu_it_is_said() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 of Debian is built without CRIU", Runc: "its text is that of exec");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let dir = TempDir::new("empty");
    let call = |verb: &str| {
        let images = runtime.dir().join("images");
        let invocation = container.verb(verb).env("PATH", dir.path()).arg("--image-path").arg(images);
        invocation.arg(container.id()).run()
    };
    call("checkpoint").fails(&["criu: not found in $path"]);
    container.is("running");
    container.delete_force().ok();
    bundle.write();
    call("restore").fails(&["criu: not found in $path"]);
    container.is("none");
}

#[test]
fn what_criu_refuses_is_quoted_and_the_container_runs_on() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(TALKERS);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_echo(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    let refused = saved.checkpoint(&[]);
    if runtime.is_tare() {
        let refused = refused.fails(&["connected tcp socket"]);
        assert_eq!(refused.stderr.trim().lines().count(), 1, "{refused}");
        assert!(refused.stderr.contains(saved.images.join("dump.log").to_str().unwrap()), "{refused}");
    } else {
        refused.fails(&["criu failed"]);
    }
    container.is("running");
    wait_for_echo(&container, echoed(&container));
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let image = fs::read_dir(&saved.images).unwrap().map(|entry| entry.unwrap().path());
    let core = image.filter(|path| path.to_str().unwrap().contains("/core-")).max().unwrap();
    fs::write(&core, "not an image").unwrap();
    saved.restore(&[]).fails(&["criu failed"]);
    // What else there could be the end of the test looks for.
    container.is("none");
    fs::remove_dir_all(&saved.images).unwrap();
    saved.restore(&[]).fails(&[]);
    container.is("none");
}

/// A server that sends back what it gets, a client, and what came back in a file.
const TALKERS: &str = "nc -ll -p 7000 -e cat & while ! netstat -tln | grep -q :7000; do sleep 0.02; done; \
     (n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done) | nc 127.0.0.1 7000 > /echo; echo over > /over; sleep 1000";

fn echoed(container: &Container<'_>) -> u64 {
    let text = fs::read_to_string(container.bundle().join("rootfs/echo")).unwrap_or_default();
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[track_caller]
fn wait_for_echo(container: &Container<'_>, above: u64) {
    wait_until(&format!("{above} has come back"), || echoed(container) > above);
}

/// Saves and restores two processes that talk over the loopback of their network namespace.
fn talk_over(checkpoint: &[&str], restore: &[&str]) {
    let (runtime, criu) = with_criu!();
    if checkpoint.contains(&"--network-lock") {
        known!(runtime, Runc: "has no --network-lock");
    }
    known!(runtime, Runc: "1.1.5 and 1.5.2: CRIU 4.2.1 finds the network unreachable; cause open");
    let bundle = Bundle::script(TALKERS);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_echo(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(checkpoint), "dump.log").ok();
    let before = echoed(&container);
    saved.explain(saved.restore(restore), "restore.log").ok();
    wait_for_echo(&container, before + 5);
    let text = fs::read_to_string(container.bundle().join("rootfs/echo")).unwrap();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    let all: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, all, "nothing is lost, nothing comes twice");
    assert!(!container.bundle().join("rootfs/over").exists());
}

#[test]
fn a_tcp_connection_is_kept() {
    talk_over(&["--tcp-established"], &["--tcp-established"]);
}

#[test]
fn connections_are_held_by_the_method_that_is_named() {
    for method in ["iptables", "nftables", "skip"] {
        let options = ["--tcp-established", "--network-lock", method];
        talk_over(&options, &options);
    }
}

#[test]
fn connections_come_back_closed_if_wanted() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "has no --tcp-close");
    let bundle = Bundle::script(TALKERS);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_echo(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.there_and_back(&["--tcp-established"], &["--tcp-close"]);
    wait_until("the client has seen the end", || container.bundle().join("rootfs/over").exists());
}

#[test]
fn a_terminal_goes_to_a_new_console_socket() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script("while read line; do echo \"got $line\"; done").terminal();
    let container = runtime.container(&bundle);
    let socket = ConsoleSocket::new();
    container.call("run", &["--detach", "--console-socket", socket.path()]).ok();
    let mut terminal = socket.receive();
    terminal.write("one\n");
    terminal.expect("got one");
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    if runtime.is_tare() {
        saved.restore(&[]).fails(&["console socket"]);
    }
    let socket = ConsoleSocket::new();
    saved.explain(saved.restore(&["--console-socket", socket.path()]), "restore.log").ok();
    let mut terminal = socket.receive();
    terminal.write("two\n");
    terminal.expect("got two");
    assert_eq!(container.shell("stat -c %t:%T /dev/console"), container.shell("stat -c %t:%T /dev/pts/0"));
}

#[test]
fn a_restore_in_the_foreground_is_like_a_run() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(&format!("trap 'exit 7' TERM; {COUNTER}"));
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let before = count(&container);
    let restore = saved.restoring(&["--no-subreaper", "--no-pivot"]).spawn();
    wait_for_count(&container, before);
    container.is("running");
    restore.signal(Signal::TERM);
    restore.wait().exits(7);
    container.is("none");
}

#[test]
fn a_terminal_in_the_foreground_comes_back_in_the_foreground() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script("while read line; do echo \"got $line\"; done").terminal();
    let container = runtime.container(&bundle);
    let (running, mut terminal) = Pty::new(24, 80).spawn(container.verb("run").arg(container.id()));
    terminal.write("one\n");
    terminal.expect("got one");
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    running.wait().exits(137);
    let invocation = container.verb("restore").env("PATH", criu.path()).args(["--image-path", saved.images()]);
    let invocation = invocation.args(["--bundle", container.bundle().to_str().unwrap(), container.id()]);
    let (running, mut terminal) = Pty::new(24, 80).spawn(invocation);
    container.wait_for("running");
    terminal.write("two\n");
    terminal.expect("got two");
    container.kill("KILL").ok();
    running.wait().exits(137);
}

#[test]
fn pipes_of_the_caller_take_the_place_of_those_that_were() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script("n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done");
    let container = runtime.container(&bundle);
    let dir = TempDir::new("pipes");
    let copied = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let piped = |invocation: Invocation, name: &str| {
        // The writer of the file is a cat that ends with the container.
        let script = format!("\"$@\" < /dev/null 2>&1 | cat > {} & wait", dir.join(name).display());
        invocation.through_shell(&script).spawn()
    };
    let first = piped(container.verb("run").arg(container.id()), "first");
    wait_until("it writes", || copied("first").lines().count() > 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    first.wait();
    let invocation = container.verb("restore").env("PATH", criu.path()).args(["--image-path", saved.images()]);
    let invocation = invocation.args(["--bundle", container.bundle().to_str().unwrap(), container.id()]);
    let second = piped(invocation, "second");
    wait_until("it writes on", || copied("second").lines().count() > 3);
    container.kill("KILL").ok();
    second.wait();
    let numbers = copied("first") + &copied("second");
    let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn hooks_of_the_host_see_the_restored_namespaces() {
    let (runtime, criu) = with_criu!();
    let dir = TempDir::new("hooks");
    let mut bundle = Bundle::script(COUNTER);
    for stage in ["prestart", "createRuntime", "poststart", "poststop"] {
        let script = format!("cat > {0}/{stage}.json; echo {stage} >> {0}/order", dir.path().display());
        bundle = bundle.hook_script(stage, &script);
    }
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let order = || fs::read_to_string(dir.join("order")).unwrap_or_default();
    assert!(order().ends_with("poststop\n"), "{}", order());
    fs::remove_file(dir.join("order")).unwrap();
    saved.explain(saved.restore(&[]), "restore.log").ok();
    assert_eq!(order(), "prestart\ncreateRuntime\n");
    let state: Value = serde_json::from_slice(&fs::read(dir.join("createRuntime.json")).unwrap()).unwrap();
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["id"], container.id());
}

/// CRIU would wait for the freezer without end.
#[test]
fn a_process_that_a_signal_has_stopped_is_named_where_cgroup_v1_cannot_freeze_it() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "waits without end");
    if host::cgroup_mode() == host::CgroupMode::V2 {
        skip!("cgroup v2 freezes it");
    }
    let bundle = Bundle::script("sleep 1000 & kill -STOP $!; wait");
    let container = runtime.container(&bundle);
    run(&container);
    let stopped = || {
        let pids = container.call("ps", &["--format", "json"]).ok().json();
        let pids = pids.as_array().unwrap().iter().filter_map(Value::as_i64);
        pids.into_iter().find(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") T ")
        })
    };
    wait_until("it is stopped", || stopped().is_some());
    let pid = stopped().unwrap();
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&[&format!("process {pid} is stopped by a signal")]);
    container.is("running");
    container.shell("kill -CONT -1");
    saved.there_and_back(&[], &[]);
}
