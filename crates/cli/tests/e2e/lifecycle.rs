//! create, start, kill, delete, run.

use std::fs;
use std::process::Command;

use tare_testkit::{Bundle, Container, TempDir, host, known, wait_until};

use crate::{runtime, words};

#[test]
fn create_leaves_a_created_container_that_has_not_run_its_program() {
    let runtime = runtime();
    let bundle = Bundle::script("touch /ran");
    let container = runtime.container(&bundle);
    container.create().ok();
    container.is("created");
    assert!(host::is_alive(container.pid()));
    assert!(!bundle.rootfs().join("ran").exists(), "the program runs before start");
    container.start().ok();
    container.wait_for("stopped");
    assert!(bundle.rootfs().join("ran").exists());
    container.delete().ok();
    container.is("none");
}

#[test]
fn start_makes_it_running() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up().is("running");
    assert!(host::is_alive(container.pid()));
}

#[test]
fn start_of_a_running_container_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let pid = container.pid();
    container.start().fails(&words(&runtime, "cannot start an already running container", "exec.fifo"));
    container.is("running");
    assert_eq!(container.pid(), pid);
}

#[test]
fn start_of_a_stopped_container_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    container.start().fails(&words(&runtime, "cannot start a container that has stopped", "is not"));
    container.is("stopped");
}

#[test]
fn kill_of_a_stopped_container_says_not_running() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    container.kill("TERM").fails(&words(&runtime, "container not running", "no such process"));
    container.kill("KILL").fails(&words(&runtime, "container not running", "no such process"));
}

#[test]
fn kill_all_of_a_stopped_container_is_no_error() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    container.verb("kill").args(["--all", container.id(), "KILL"]).run().ok();
    container.is("stopped");
}

#[test]
fn kill_takes_a_name_with_and_without_sig_and_a_number() {
    for signal in ["TERM", "SIGTERM", "15"] {
        let runtime = runtime();
        let bundle = Bundle::sleeper();
        let container = runtime.container(&bundle);
        container.up();
        container.shell("true");
        container.kill(signal).ok();
        container.wait_for("stopped");
    }
}

#[test]
fn kill_without_a_signal_sends_term() {
    let runtime = runtime();
    let bundle = Bundle::script("trap 'touch /termed; exit' TERM; touch /ready; sleep 1000 & wait");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the trap is set", || bundle.rootfs().join("ready").exists());
    container.call("kill", &[]).ok();
    container.wait_for("stopped");
    assert!(bundle.rootfs().join("termed").exists());
}

#[test]
fn kill_of_a_created_container_ends_it() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn kill_with_an_unknown_signal_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "crun 1.8.1 exits with 0 (security.md 3)");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for signal in ["BOGUS", "SIGBOGUS", "9x"] {
        container.kill(signal).fails(&[]);
    }
    container.is("running");
}

#[test]
fn signal_zero_changes_nothing() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.kill("0").ok();
    container.is("running");
}

#[test]
fn delete_of_a_running_container_is_refused_and_changes_nothing() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let before = container.state();
    container.delete().fails(&words(
        &runtime,
        "that is not stopped: running",
        "is not in `created` or `stopped` state",
    ));
    assert_eq!(container.state(), before);
    assert!(host::is_alive(container.pid()));
    container.shell("true");
}

#[test]
fn delete_force_ends_a_running_container() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let pid = container.pid();
    container.delete_force().ok();
    container.is("none");
    wait_until("init is gone", || !host::is_alive(pid));
}

#[test]
fn delete_ends_a_created_container() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    for force in [&[][..], &["--force"]] {
        let container = runtime.container(&bundle);
        container.create().ok();
        let pid = container.pid();
        container.call("delete", force).ok();
        container.is("none");
        wait_until("init is gone", || !host::is_alive(pid));
    }
}

#[test]
fn delete_force_of_an_unknown_container_succeeds() {
    let runtime = runtime();
    let bundle = Bundle::new();
    runtime.container(&bundle).delete_force().ok();
}

#[test]
fn delete_force_ends_a_paused_container() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    let pid = container.pid();
    container.delete_force().ok();
    container.is("none");
    wait_until("init is gone", || !host::is_alive(pid));
}

#[test]
fn kill_all_reaches_every_process() {
    let runtime = runtime();
    let bundle = Bundle::script(
        "trap '' USR1; (trap 'touch /got; exit' USR1; touch /ready; while :; do sleep 0.01; done) & wait",
    );
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the child is ready", || bundle.rootfs().join("ready").exists());
    container.verb("kill").args(["--all", container.id(), "USR1"]).run().ok();
    wait_until("the child got it", || bundle.rootfs().join("got").exists());
}

#[test]
fn run_exits_with_the_code_of_the_process() {
    let runtime = runtime();
    for code in [0, 1, 2, 77, 125, 126, 127, 128, 254, 255] {
        runtime.run(&Bundle::script(&format!("exit {code}"))).exits(code);
    }
}

#[test]
fn run_exits_with_128_and_the_signal() {
    let runtime = runtime();
    // Not as pid 1 of a namespace: that is immune to its own signals.
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("ABRT", 6), ("USR1", 10)] {
        let bundle = Bundle::script(&format!("kill -{signal} $$")).without_namespace("pid");
        runtime.run(&bundle).exits(128 + number);
    }
}

#[test]
fn run_killed_from_outside_exits_with_137() {
    let runtime = runtime();
    let bundle = Bundle::script("echo up; exec sleep 1000");
    let container = runtime.container(&bundle);
    let running = container.spawn();
    wait_until("it runs", || running.stdout_so_far() == "up\n");
    container.kill("KILL").ok();
    running.wait().exits(137);
    container.is("none");
}

#[test]
fn run_removes_the_container_when_it_ends() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.run().ok();
    container.is("none");
    container.run().ok();
}

#[test]
fn run_keep_leaves_a_stopped_container() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no --keep");
    let bundle = Bundle::script("exit 3");
    let container = runtime.container(&bundle);
    container.call("run", &["--keep"]).exits(3);
    container.is("stopped");
    container.delete().ok();
}

#[test]
fn run_detach_returns_while_it_runs() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.run_detached().ok();
    container.is("running");
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn an_id_in_use_is_refused_and_its_container_untouched() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 now and then leaves the cgroups of the first behind");
    let bundle = Bundle::sleeper();
    let other = Bundle::script("touch /ran");
    let first = runtime.container(&bundle);
    first.up();
    let before = first.state();
    for verb in ["create", "run"] {
        other.write();
        let output = runtime.raw().arg(verb).arg("--bundle").arg(other.path()).arg(first.id()).run();
        output.fails(&words(&runtime, "already exists", "exists"));
    }
    assert_eq!(first.state(), before);
    assert!(!other.rootfs().join("ran").exists());
}

#[test]
fn an_unknown_id_does_not_exist() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 says that it cannot open the status file");
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    for verb in ["state", "start", "delete", "kill", "pause", "resume", "ps"] {
        container.call(verb, &[]).fails(&["does not exist"]);
    }
    container.exec(["true"]).fails(&["does not exist"]);
    container.verb("update").args(["--pids-limit", "5", container.id()]).run().fails(&["does not exist"]);
}

#[test]
fn twenty_creates_of_one_id_have_one_winner() {
    let runtime = runtime();
    known!(
        runtime,
        Runc: "1.1.5: now and then a loser is in the winner's way",
        Crun: "1.8.1: now and then a loser is told that the state directory cannot be made"
    );
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    bundle.write();
    let attempts: Vec<_> = (0..20)
        .map(|_| runtime.raw().arg("create").arg("--bundle").arg(bundle.path()).arg(container.id()).spawn())
        .collect();
    let outputs: Vec<_> = attempts.into_iter().map(tare_testkit::Running::wait).collect();
    let winners = outputs.iter().filter(|output| output.success()).count();
    assert_eq!(winners, 1, "{outputs:#?}");
    for loser in outputs.into_iter().filter(|output| !output.success()) {
        loser.fails(&["exists"]);
    }
    container.is("created");
    container.start().ok();
    container.is("running");
}

#[test]
fn the_pid_file_has_the_pid_and_no_newline() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let dir = TempDir::new("pid");
    let file = dir.join("pid");
    for verb in [["create"].as_slice(), &["run", "--detach"]] {
        fs::write(&file, "something longer than a pid was here before").unwrap();
        let container = runtime.container(&bundle);
        let invocation = container.verb(verb[0]).args(&verb[1..]).args(["--pid-file", file.to_str().unwrap()]);
        invocation.arg(container.id()).run().ok();
        assert_eq!(fs::read_to_string(&file).unwrap(), container.pid().to_string(), "{verb:?}");
    }
}

#[test]
fn a_relative_pid_file_is_the_callers() {
    let runtime = runtime();
    known!(runtime, Crun: "opens it after chdir(bundle) (contracts.md 2.5)");
    let bundle = Bundle::sleeper();
    let dir = TempDir::new("pid");
    let container = runtime.container(&bundle);
    container.verb("create").cwd(dir.path()).args(["--pid-file", "the-pid", container.id()]).run().ok();
    assert_eq!(fs::read_to_string(dir.join("the-pid")).unwrap(), container.pid().to_string());
    assert!(!bundle.path().join("the-pid").exists());
}

#[test]
fn the_bundle_is_the_working_directory_by_default() {
    let runtime = runtime();
    let bundle = Bundle::script("echo here");
    bundle.write();
    let output = runtime.raw().arg("run").arg(runtime.id("c")).cwd(bundle.path()).run().ok();
    assert_eq!(output.text(), "here");
}

#[test]
fn a_relative_bundle_is_the_callers() {
    let runtime = runtime();
    let bundle = Bundle::script("echo here");
    bundle.write();
    let name = bundle.path().file_name().unwrap();
    let parent = bundle.path().parent().unwrap();
    let output = runtime.raw().args(["run", "--bundle"]).arg(name).arg(runtime.id("c")).cwd(parent).run().ok();
    assert_eq!(output.text(), "here");
    let container = runtime.container(&bundle);
    runtime.raw().args(["create", "--bundle"]).arg(name).arg(container.id()).cwd(parent).run().ok();
    assert_eq!(container.state()["bundle"], bundle.path().to_str().unwrap());
}

#[test]
fn a_config_changed_after_create_has_no_effect() {
    let runtime = runtime();
    let bundle = Bundle::script("touch /first; sleep 1000");
    let container = runtime.container(&bundle);
    container.create().ok();
    let changed = bundle.config().to_string().replace("/first", "/second");
    fs::write(bundle.path().join("config.json"), changed).unwrap();
    container.start().ok();
    wait_until("the first program ran", || bundle.rootfs().join("first").exists());
    assert!(!bundle.rootfs().join("second").exists());
}

#[test]
fn the_bundle_can_go_once_created() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    container.start().ok();
    container.is("running");
    container.delete_force().ok();
    container.is("none");
}

#[test]
fn an_init_killed_with_kill_9_is_stopped() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let pid = rustix::process::Pid::from_raw(container.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn containers_with_different_ids_do_not_meet() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let first = runtime.container(&bundle);
    let second = Container::new(&runtime, &bundle, format!("{}-x", first.id()));
    first.up();
    second.up();
    first.delete_force().ok();
    second.is("running");
    assert!(host::is_alive(second.pid()));
}

#[test]
fn ids_with_all_allowed_characters_work() {
    let runtime = runtime();
    // A unit of systemd has no plus in its name: it is for the runtime to name it.
    let bundle = if runtime.uses_systemd() { Bundle::new().cgroups_path("") } else { Bundle::new() };
    let container = Container::new(&runtime, &bundle, format!("{}-A.b_c+d-9", runtime.tag()));
    container.up().wait_for("stopped");
    container.delete().ok();
}

fn run_forwards(signal: &str) {
    let runtime = runtime();
    let bundle = Bundle::script(&format!("trap 'exit 42' {signal}; echo ready; sleep 1000 & wait"));
    let container = runtime.container(&bundle);
    let running = container.spawn();
    wait_until("the trap is set", || running.stdout_so_far() == "ready\n");
    let kill = Command::new("kill").args(["-s", signal, &running.pid().to_string()]).status().unwrap();
    assert!(kill.success());
    running.wait().exits(42);
    container.is("none");
}

#[test]
fn foreground_run_forwards_signals() {
    for signal in ["TERM", "HUP", "USR1", "64"] {
        run_forwards(signal);
    }
}

/// The first that glibc leaves to programs; musl takes it for itself, and the runtime may be built with either.
#[test]
fn foreground_run_forwards_signal_34() {
    known!(runtime(), Runc: "1.1.5 dies of it, and leaves the container");
    run_forwards("34");
}

/// A tracer holds init on its way out: the kernel drops every further signal, SIGKILL too.
#[test]
fn delete_force_of_what_cannot_be_killed_says_so_and_can_be_repeated() {
    use nix::sys::ptrace;
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 forgets it and exits with 0; its process and cgroup stay");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let init = nix::unistd::Pid::from_raw(container.pid());
    ptrace::seize(init, ptrace::Options::PTRACE_O_TRACEEXIT).unwrap();
    let patience: &[&str] = if runtime.is_tare() { &["--timeout", "3s"] } else { &[] };
    let refused = container.verb_with(patience, "delete").args(["--force", container.id()]).run();
    let listed = runtime.list(&["-q"]);
    let _ends = ptrace::detach(init, None);
    let named = format!("pid {init} \"sh\" (state ");
    // The others fail too, in words of their own.
    let words: &[&str] = if runtime.is_tare() { &[&named] } else { &[] };
    let refused = refused.fails(words);
    assert!(!runtime.is_tare() || refused.stderr.contains("timed out after 3 s: cgroup "), "{refused}");
    assert!(listed.lines().contains(&container.id()), "{listed}");
    wait_until("init is gone", || !tare_testkit::host::is_alive(init.as_raw()));
    container.delete_force().ok();
    container.is("none");
}
