//! Hooks: when, where, with what, and what their failure does.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Kind, TempDir, deadline, host, known, wait_until};

use crate::runtime;

const STAGES: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle whose hooks write what they see to `dir`, which the container has on /hooks.
fn observed(dir: &TempDir, program: &str) -> Bundle {
    let mut bundle = Bundle::script(program).bind(dir.path(), "/hooks", &["rbind"]);
    for stage in STAGES {
        let place = if stage == "startContainer" { "/hooks".into() } else { dir.path().display().to_string() };
        let script = format!(
            "cd {place}; cat > {stage}.json; echo {stage} >> order; \
             readlink /proc/self/ns/mnt > {stage}.mnt; ls -d /marker > {stage}.root 2>&1; true"
        );
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
        bundle = bundle.hook(stage, hook);
    }
    bundle.file("marker", "")
}

fn order(dir: &TempDir) -> Vec<String> {
    fs::read_to_string(dir.join("order")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn hooks_run_in_their_order_at_their_verbs() {
    let runtime = runtime();
    let dir = TempDir::new("hooks");
    let bundle = observed(&dir, "echo program >> /hooks/order; exec sleep 1000");
    let container = runtime.container(&bundle);
    container.create().ok();
    // runc 1.1.5 runs poststart at create already.
    let early = usize::from(runtime.kind() == Kind::Runc);
    assert_eq!(order(&dir)[..3], STAGES[..3]);
    assert_eq!(order(&dir).len(), 3 + early);
    container.start().ok();
    wait_until("the program and poststart", || order(&dir).len() == 6);
    let after_start = order(&dir)[3 + early..].to_vec();
    let at = |name: &str| after_start.iter().position(|line| line == name);
    assert!(at("startContainer") < at("program"), "{after_start:?}");
    // crun's start does not wait for the hooks inside.
    if runtime.is_tare() {
        assert!(at("startContainer") < at("poststart"), "{after_start:?}");
    }
    container.kill("KILL").ok();
    container.wait_for("stopped");
    assert_eq!(order(&dir).len(), 6, "poststop runs at delete");
    container.delete().ok();
    assert_eq!(order(&dir).last().unwrap(), "poststop");
}

#[test]
fn hooks_run_in_their_namespaces_and_roots() {
    let runtime = runtime();
    let dir = TempDir::new("hooks");
    let bundle = observed(&dir, "readlink /proc/self/ns/mnt > /hooks/program.mnt");
    let container = runtime.container(&bundle);
    container.run().ok();
    let mount_namespace = |stage: &str| fs::read_to_string(dir.join(format!("{stage}.mnt"))).unwrap();
    let inside = mount_namespace("program");
    for (stage, in_container) in STAGES.iter().zip([false, false, true, true, false, false]) {
        assert_eq!(mount_namespace(stage) == inside, in_container, "{stage}");
        let sees_the_rootfs = fs::read_to_string(dir.join(format!("{stage}.root"))).unwrap().trim() == "/marker";
        assert_eq!(sees_the_rootfs, *stage == "startContainer", "{stage}");
    }
}

#[test]
fn hooks_get_the_state_on_stdin() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 writes pid 0 for createContainer");
    let dir = TempDir::new("hooks");
    let bundle = observed(&dir, "exec sleep 1000").set("/annotations", json!({"org.example": "x"}));
    let container = runtime.container(&bundle);
    container.up();
    let pid = container.pid();
    wait_until("poststart", || dir.join("poststart.mnt").exists());
    container.delete_force().ok();
    for stage in STAGES {
        let text = fs::read_to_string(dir.join(format!("{stage}.json"))).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stage}: {error}: {text}"));
        assert_eq!(state["id"], container.id(), "{stage}");
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap(), "{stage}");
        assert_eq!(state["annotations"], json!({"org.example": "x"}), "{stage}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{stage}");
        match stage {
            "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{stage}"),
            "poststop" => assert_eq!(state["pid"].as_i64().unwrap_or(0), 0),
            // These run in the container: its own pid namespace's number, or the host's.
            _ => assert!([i64::from(pid), 1].contains(&state["pid"].as_i64().unwrap()), "{stage}: {state}"),
        }
    }
}

#[test]
fn hooks_are_told_the_status() {
    let runtime = runtime();
    known!(runtime, Crun: "created from the first on, and `starting` (contracts.md 2.5)");
    let dir = TempDir::new("hooks");
    runtime.run(&observed(&dir, "true")).ok();
    // runc 1.1.5 runs poststart at create.
    let poststart = if runtime.kind() == Kind::Runc { "created" } else { "running" };
    let expected = ["creating", "creating", "creating", "created", poststart, "stopped"];
    for (stage, status) in STAGES.iter().zip(expected) {
        let state: Value = serde_json::from_slice(&fs::read(dir.join(format!("{stage}.json"))).unwrap()).unwrap();
        assert_eq!(state["status"], status, "{stage}");
    }
}

#[test]
fn a_hooks_args_and_env_are_exact() {
    let runtime = runtime();
    known!(runtime, Crun: "now and then dies of SIGPIPE, as the hook does not read the state");
    let dir = TempDir::new("hooks");
    // cp(1) itself is the hook, and copies what it was given.
    let hook = |file: &str, copy: &str| {
        let args = json!(["zero", "--", format!("/proc/self/{file}"), dir.join(copy)]);
        json!({"path": "/bin/cp", "args": args, "env": ["A=1", "B=b=c"]})
    };
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let bundle = Bundle::new().hook(stage, hook("cmdline", "args")).hook(stage, hook("environ", "env"));
        runtime.run(&bundle).ok();
        let args = fs::read_to_string(dir.join("args")).unwrap();
        let expected = format!("zero\0--\0/proc/self/cmdline\0{}\0", dir.join("args").display());
        assert_eq!(args, expected, "{stage}");
        assert_eq!(fs::read_to_string(dir.join("env")).unwrap(), "A=1\0B=b=c\0", "{stage}");
        fs::remove_file(dir.join("args")).unwrap();
        fs::remove_file(dir.join("env")).unwrap();
    }
}

#[test]
fn a_hook_without_env_has_none() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 passes its own", Crun: "passes its own");
    let dir = TempDir::new("hooks");
    let hook = json!({"path": "/bin/cp", "args": ["cp", "/proc/self/environ", dir.join("env")]});
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        runtime.run(&Bundle::new().hook(stage, hook.clone())).ok();
        assert_eq!(fs::read_to_string(dir.join("env")).unwrap(), "", "{stage}");
        fs::remove_file(dir.join("env")).unwrap();
    }
}

/// The state is larger than a pipe holds.
#[test]
fn a_hook_need_not_read_the_state() {
    let runtime = runtime();
    known!(runtime, Crun: "now and then dies of SIGPIPE");
    for stage in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let bundle = Bundle::new()
            .set("/annotations", json!({"org.example.large": "x".repeat(300_000)}))
            .hook(stage, json!({"path": "/bin/true"}));
        runtime.run(&bundle).ok();
    }
}

#[test]
fn several_hooks_of_a_stage_run_one_after_another() {
    let runtime = runtime();
    let dir = TempDir::new("hooks");
    let line = |text: &str, nap: &str| format!("sleep {nap}; echo {text} >> {}", dir.join("order").display());
    let bundle = Bundle::new()
        .hook_script("createRuntime", &line("first", "0.2"))
        .hook_script("createRuntime", &line("second", "0.1"))
        .hook_script("createRuntime", &line("third", "0"));
    runtime.run(&bundle).ok();
    assert_eq!(order(&dir), ["first", "second", "third"]);
}

#[test]
fn a_hook_over_its_time_is_killed_and_create_fails() {
    let runtime = runtime();
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1});
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let bundle = Bundle::new().hook(stage, hook.clone());
        let container = runtime.container(&bundle);
        let begun = Instant::now();
        container.create().fails(&[]);
        assert!(begun.elapsed() < deadline(), "{stage}");
        container.is("none");
    }
}

/// The grandchild keeps the hook's output open: no one waits for that.
#[test]
fn a_hook_that_leaves_a_child_behind_does_not_hold_the_runtime() {
    let runtime = runtime();
    known!(runtime, Runc: "waits for the child (security.md 3)", Crun: "waits for it, as its subreaper");
    let dir = TempDir::new("hooks");
    let pid_file = dir.join("pid");
    let bundle = Bundle::new().hook_script("createRuntime", &format!("sleep 1000 & echo $! > {}", pid_file.display()));
    let begun = Instant::now();
    runtime.run(&bundle).ok();
    assert!(begun.elapsed() < deadline());
    let child: i32 = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    if host::is_alive(child) {
        let child = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn a_failing_hook_of_create_fails_it_and_leaves_nothing() {
    let runtime = runtime();
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let bundle = Bundle::script("touch /ran").hook_script(stage, "exit 7");
        let container = runtime.container(&bundle);
        container.create().fails(&["hook"]);
        container.is("none");
        container.run().fails(&["hook"]);
        container.is("none");
        assert!(!bundle.rootfs().join("ran").exists());
    }
}

#[test]
fn a_failing_hook_is_named_with_its_stage_and_number() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 says the number alone", Crun: "other words");
    for stage in ["createRuntime", "createContainer"] {
        let text = format!("{stage} hook #1");
        let bundle = Bundle::new().hook_script(stage, "true").hook_script(stage, "echo why >&2; exit 7");
        runtime.run(&bundle).fails(&[&text]);
    }
}

#[test]
fn hooks_after_a_failing_one_do_not_run() {
    let runtime = runtime();
    let dir = TempDir::new("hooks");
    let touch = |name: &str| format!("touch {}", dir.join(name).display());
    let bundle = Bundle::new()
        .hook_script("createRuntime", "exit 1")
        .hook_script("createRuntime", &touch("second"))
        .hook_script("createContainer", &touch("later"))
        .hook_script("poststart", &touch("started"));
    runtime.run(&bundle).fails(&[]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn poststop_runs_after_a_hook_of_create_failed() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 does not");
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let dir = TempDir::new("hooks");
        let bundle = Bundle::new()
            .hook_script(stage, "exit 1")
            .hook_script("poststop", &format!("touch {}", dir.join("stopped").display()));
        let container = runtime.container(&bundle);
        let output = container.create().fails(&[]);
        assert!(dir.join("stopped").exists(), "{stage}: {output}");
    }
}

#[test]
fn a_hook_program_that_is_missing_fails_create() {
    let runtime = runtime();
    let bundle = Bundle::new().hook("createRuntime", json!({"path": "/no/such/hook"}));
    runtime.run(&bundle).fails(&[]);
}

#[test]
fn a_relative_hook_path_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 runs it from where it stands", Crun: "the same");
    runtime.run(&Bundle::new().hook("createRuntime", json!({"path": "bin/true"}))).fails(&["absolute"]);
}

#[test]
fn a_failing_start_container_hook_stops_the_program() {
    let runtime = runtime();
    let bundle = Bundle::script("touch /ran").hook_script("startContainer", "exit 3");
    let output = runtime.run(&bundle);
    assert!(!output.success(), "{output}");
    assert!(!bundle.rootfs().join("ran").exists());
}

#[test]
fn a_start_container_hook_sees_the_containers_hostname() {
    let runtime = runtime();
    runtime.run(&Bundle::script("cat /name").hook_script("startContainer", "hostname > /name")).ok();
    let bundle = Bundle::script("cat /name").hook_script("startContainer", "hostname > /name");
    assert_eq!(runtime.run(&bundle).ok().text(), "tare-test");
}

#[test]
fn a_create_runtime_hook_can_prepare_the_network_namespace() {
    let runtime = runtime();
    let script = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); \
         nsenter -t $pid -n ip link add veth0 type veth peer name veth1";
    let bundle = Bundle::script("ls /sys/class/net").hook_script("createRuntime", script);
    let output = runtime.run(&bundle).ok();
    assert!(output.stdout.contains("veth0") && output.stdout.contains("veth1"), "{output}");
}

#[test]
fn a_failing_poststart_hook_is_reported_and_ends_the_container() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 runs poststart at create", Crun: "1.8.1 goes on");
    let bundle = Bundle::sleeper().hook_script("poststart", "exit 5");
    let container = runtime.container(&bundle);
    container.create().ok();
    container.start().fails(&["poststart"]);
    wait_until("it is stopped", || ["stopped", "none"].contains(&container.status().as_str()));
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 leaves out the hooks after it");
    let dir = TempDir::new("hooks");
    let bundle = Bundle::sleeper()
        .hook_script("poststop", "exit 5")
        .hook_script("poststop", &format!("touch {}", dir.join("second").display()));
    let container = runtime.container(&bundle);
    container.up();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
    container.is("none");
    assert!(dir.join("second").exists(), "the others still run");
}
