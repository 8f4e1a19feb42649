//! `--timeout`: one budget for all that a command waits for. When it is spent, one line says what for and for whom, and nothing
//! is left; what the container does is nobody's to cut short.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use tare_testkit::{Bundle, Container, Output, TempDir, deadline, known, wait_until};

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
        let words = [stage, "hook #0", "timed out after 700 ms: pid ", "\"sleep\" (state S, wchan "];
        times_out(&container, "700ms", "create", &[container.id()], &words);
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
