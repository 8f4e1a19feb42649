//! Nothing is left, whatever happens. (Every other test ends with the same look around.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tare_testkit::{Bundle, Container, Criu, Residue, Runtime, TempDir, host, known, skip, wait_until};

use crate::checkpoint::{self, COUNTER, Saved, with_criu};
use crate::{runtime, words};

#[test]
fn many_runs_leave_nothing() {
    let runtime = runtime();
    let bundle = Bundle::new();
    bundle.write();
    let residue = Residue::before(&runtime);
    for _ in 0..30 {
        runtime.run(&bundle).ok();
    }
    residue.assert_none();
}

#[test]
fn many_runs_at_once_leave_nothing() {
    let runtime = runtime();
    let bundle = Bundle::script("exit 3");
    bundle.write();
    for _ in 0..3 {
        let spawn = |_| runtime.raw().arg("run").arg("--bundle").arg(bundle.path()).arg(runtime.id("c")).spawn();
        let running: Vec<_> = (0..8).map(spawn).collect();
        for run in running {
            run.wait().exits(3);
        }
    }
    Residue::of(&runtime).assert_none();
}

#[test]
fn failures_at_every_step_leave_nothing() {
    let runtime = runtime();
    let bundles = [
        Bundle::new().set("/root/path", json!("nonexistent")),
        Bundle::new().bind("/nonexistent", "/v", &["bind"]),
        Bundle::new().mount(json!({"destination": "/v", "type": "nosuchfs", "source": "x"})),
        Bundle::new().args(["nonexistent"]),
        Bundle::new().set("/process/cwd", json!("/etc/passwd")),
        Bundle::new().set("/linux/sysctl", json!({"net.ipv4.nonexistent": "1"})),
        Bundle::new().join_namespace("network", "/nonexistent"),
        Bundle::new().hook_script("createRuntime", "exit 1"),
        Bundle::new().hook_script("createContainer", "exit 1"),
        Bundle::new().resource("pids", json!({"limit": 10})).args(["nonexistent"]),
    ];
    for bundle in bundles {
        for verb in ["create", "run"] {
            let container = runtime.container(&bundle);
            container.call(verb, &[]).fails(&[]);
            Residue::of(&runtime).assert_none();
        }
    }
}

/// Whatever moment the runtime is killed at, `delete --force` cleans up.
#[test]
fn a_create_killed_at_any_moment_can_be_deleted() {
    let mut runtime = runtime();
    runtime.leaves_residue();
    known!(runtime, Runc: "1.1.5 leaks cgroups (security.md 3)", Crun: "1.8.1 leaks cgroups");
    let bundle = Bundle::sleeper();
    for round in 0..30 {
        let container = runtime.container(&bundle);
        let running = container.verb("create").arg(container.id()).spawn();
        // Not a wait for something: the moments are spread over the time a create takes.
        std::thread::sleep(Duration::from_micros(1500 * round));
        running.signal(Signal::KILL);
        let _ = running.wait();
        container.delete_force().ok();
        container.is("none");
        if runtime.uses_systemd() {
            // What the killed one had asked of it systemd may begin after that: it finds no process, and forgets the unit.
            wait_until("systemd has forgotten the unit", || host::cgroups_with(runtime.tag()).is_empty());
        }
        Residue::of(&runtime).assert_none();
    }
}

#[test]
fn list_survives_what_is_no_container() {
    let mut runtime = runtime();
    runtime.leaves_residue();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    fs::create_dir(runtime.root().join("half-made")).unwrap();
    let output = runtime.list(&["-q"]);
    assert!(output.lines().contains(&container.id()), "{output}");
    runtime.verb(["delete", "--force", "half-made"]).ok();
}

#[test]
fn a_broken_state_file_hides_no_other_container() {
    let mut runtime = runtime();
    runtime.leaves_residue();
    known!(runtime, Runc: "delete --force says where in the file, and not in which", Crun: "delete --force \
         forgets init (security.md 3)");
    let bundle = Bundle::sleeper();
    let (healthy, broken) = (runtime.container(&bundle), runtime.container(&bundle));
    healthy.up();
    broken.create().ok();
    let pid = broken.pid();
    let state = fs::read_dir(runtime.root().join(broken.id())).unwrap().flatten().map(|entry| entry.path());
    let state = state.filter(|path| path.is_file()).find(|path| path.to_string_lossy().contains("state")).unwrap();
    let good = fs::read(&state).unwrap();
    fs::write(&state, "{ not json").unwrap();
    assert!(runtime.list(&["-q"]).lines().contains(&healthy.id()));
    broken.call("state", &[]).fails(&[]);
    let output = broken.delete_force();
    healthy.is("running");
    healthy.delete_force().ok();
    // Either it does all, or it says why not and does nothing.
    if !output.success() {
        output.fails(&["state"]);
        assert!(host::is_alive(pid) && state.exists());
        fs::write(&state, good).unwrap();
        broken.delete_force().ok();
    }
    Residue::of(&runtime).assert_none();
}

/// Room for the container's directory and one file.
#[test]
fn a_root_that_is_full_is_refused_cleanly_and_nothing_is_left_in_it() {
    let runtime = runtime();
    let dir = TempDir::new("full");
    let bundle = Bundle::new();
    bundle.write();
    let mount = format!("mount -t tmpfs -o nr_inodes=4 none {}", dir.path().display());
    let script = format!("{mount} && {{ \"$@\"; code=$?; ls -A {}; exit $code; }}", dir.join("root").display());
    let create = runtime.bare().arg("--root").arg(dir.join("root")).args(["create", "--bundle"]);
    let create = create.arg(bundle.path()).arg(runtime.id("c")).through_shell(&script);
    let output = create.through_shell("exec unshare --mount --propagation private \"$@\"").run();
    let output = output.fails(&["no space", "failed to write", "unable to store"]);
    assert!(!runtime.is_tare() || (output.stdout.is_empty() && output.stderr.lines().count() == 1), "{output}");
}

/// A state that cannot be decoded, and a process that init has left behind in the host's process table.
#[test]
fn what_a_container_with_a_broken_state_has_left_running_is_killed() {
    let runtime = runtime();
    known!(runtime, Runc: "refuses and keeps it", Crun: "forgets it (security.md 3)");
    let bundle = Bundle::script("sleep 1001 & exit").without_namespace("pid");
    let container = runtime.container(&bundle);
    container.up();
    container.wait_for("stopped");
    assert!(!host::cgroups_with(container.id()).is_empty());
    fs::write(runtime.root().join(container.id()).join("state.json"), "{ not json").unwrap();
    container.delete_force().ok();
    Residue::of(&runtime).assert_none();
}

/// What a create leaves that is killed before there is an init, in the cgroup of `other`.
fn half_created<'a>(runtime: &'a Runtime, bundle: &'a Bundle, other: &Container) -> Container<'a> {
    let half = runtime.container(bundle);
    let directory = |id: &str| runtime.root().join(id);
    fs::create_dir(directory(half.id())).unwrap();
    fs::copy(directory(other.id()).join("state.json"), directory(half.id()).join("state.json")).unwrap();
    half
}

/// A create that is killed before it has looked whether its cgroup is in use leaves a state that names the cgroup of another.
#[test]
fn what_never_came_to_be_has_no_processes_to_kill() {
    let runtime = runtime();
    known!(runtime, Runc: "the state has another name", Crun: "the same");
    let bundle = Bundle::sleeper();
    let other = runtime.container(&bundle);
    other.up();
    let half = half_created(&runtime, &bundle, &other);
    for signal in ["KILL", "USR1"] {
        half.kill(signal).fails(&["not running"]);
        half.call("kill", &["--all"]).ok();
        half.verb("kill").args(["--all", half.id(), signal]).run().ok();
        other.is("running");
    }
    let delete = runtime.raw().args(["--timeout", "1s", "delete", "--force", half.id()]).run().ok();
    assert!(delete.stderr.contains("left the cgroup of an unfinished create alone"), "{delete}");
    half.is("none");
    other.is("running");
    other.delete_force().ok();
}

/// What a killed create has left in its cgroup ends by itself. On a busy machine that takes a while, here three seconds.
#[test]
fn what_a_killed_create_has_left_is_waited_for() {
    let runtime = runtime();
    known!(runtime, Runc: "the state has another name", Crun: "the same");
    let bundle = Bundle::script("exec sleep 3");
    let stages = runtime.container(&bundle);
    stages.up();
    let half = half_created(&runtime, &bundle, &stages);
    let delete = half.delete_force().ok();
    assert_eq!(delete.stderr, "");
    half.is("none");
    assert!(host::cgroups_with(stages.id()).is_empty());
}

/// What cannot be read is not broken: the next delete may read it.
#[test]
fn a_state_that_cannot_be_read_is_kept() {
    let runtime = runtime();
    known!(runtime, Runc: "the state has another name", Crun: "the same");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let state = runtime.root().join(container.id()).join("state.json");
    fs::rename(&state, state.with_extension("aside")).unwrap();
    std::os::unix::fs::symlink("state.aside", &state).unwrap();
    container.delete_force().fails(&["(ELOOP)"]);
    fs::rename(state.with_extension("aside"), &state).unwrap();
    container.is("running");
    container.delete_force().ok();
}

#[test]
fn a_root_that_cannot_be_written_is_refused_cleanly() {
    let runtime = runtime();
    let dir = TempDir::new("readonly");
    let bundle = Bundle::new();
    bundle.write();
    let script = format!("mount -t tmpfs -o ro none {} && exec \"$@\"", dir.path().display());
    let create = runtime.bare().arg("--root").arg(dir.join("root")).args(["create", "--bundle"]);
    let create = create.arg(bundle.path()).arg(runtime.id("c")).through_shell(&script);
    let output = create.through_shell("exec unshare --mount --propagation private \"$@\"").run();
    output.fails(&words(&runtime, "read-only", "create directory"));
}

#[test]
fn the_root_is_made_private() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(runtime.root()) & 0o022, 0);
    assert_eq!(mode(runtime.root().join(container.id())) & 0o022, 0);
}

#[test]
fn a_thousand_mounts_work() {
    let runtime = runtime();
    let mut bundle = Bundle::script("wc -l < /proc/self/mountinfo");
    for index in 0..1000 {
        bundle = bundle.mount(
            json!({"destination": format!("/m/{index}"), "type": "tmpfs", "source": "t", "options": ["size=4k"]}),
        );
    }
    let output = runtime.run(&bundle).ok();
    assert!(output.text().parse::<u32>().unwrap() > 1000, "{output}");
    let hosts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!hosts.contains(bundle.path().to_str().unwrap()), "{hosts}");
}

/// A limit that the kernel refuses, and a cgroup that does not go: the state stays, or nobody would find the cgroup again.
#[test]
fn a_create_that_cannot_remove_its_cgroup_keeps_its_state_for_delete() {
    if host::program("strace").is_none() {
        skip!("there is no strace");
    }
    let runtime = runtime();
    if !runtime.is_tare() || std::env::var_os("TARE_CGROUP_DRIVER").is_some_and(|driver| driver == "systemd") {
        skip!("about what tare itself removes");
    }
    let name = format!("tare-keeps-{}", std::process::id());
    let bundle = Bundle::new().cgroups_path(&format!("/{name}")).set("/linux/resources/cpu", json!({ "cpus": "4095" }));
    let container = runtime.container(&bundle);
    // One of its directories, where it is on cgroup v1 and on v2.
    let script = format!(
        "exec strace -P /sys/fs/cgroup/pids/{name} -P /sys/fs/cgroup/{name} -e trace=unlinkat \
         -e inject=unlinkat:error=EBUSY -o /dev/null \"$@\""
    );
    container.verb("create").arg(container.id()).through_shell(&script).run().fails(&["cpus"]);
    assert_eq!(runtime.raw().args(["list", "--quiet"]).run().ok().text(), container.id());
    container.delete_force().ok();
    assert!(runtime.raw().args(["list", "--quiet"]).run().ok().text().is_empty());
}

#[test]
fn many_binds_work_with_few_fds() {
    let runtime = runtime();
    let source = TempDir::new("source");
    let mut bundle = Bundle::script("echo ran").set("/process/rlimits", json!([]));
    for index in 0..300 {
        bundle = bundle.bind(source.path(), &format!("/m/{index}"), &["rbind"]);
    }
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).through_shell("ulimit -n 128; exec \"$@\"").run().ok();
    assert_eq!(output.text(), "ran");
}

#[test]
fn a_fork_bomb_is_held_and_deleted() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 fails when the run at work removes the state first");
    let bundle =
        Bundle::script("(while :; do sleep 1000 & done); exec sleep 1000").resource("pids", json!({"limit": 40}));
    let container = runtime.container(&bundle);
    let running = container.spawn();
    wait_until("it is at its limit", || {
        let listed = container.call("ps", &["--format", "json"]);
        listed.success() && listed.json().as_array().is_some_and(|pids| pids.len() >= 35)
    });
    container.delete_force().ok();
    let _ = running.wait();
    container.is("none");
}

/// CRIU is not killed with the runtime: half way through it would leave its code in the container's processes. Nobody answers it
/// any more, so it takes back what it has done, and ends.
#[test]
fn a_checkpoint_that_is_killed_leaves_no_criu_and_a_container_that_can_be_deleted() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "not what is tried here");
    let bundle = Bundle::script(COUNTER);
    for moment in ["inventory.img", "core-1.img", "pstree.img", "dump.log"] {
        let container = runtime.container(&bundle);
        checkpoint::run(&container);
        let saved = Saved::new(&runtime, &container, criu);
        let checkpoint = saved.verb("checkpoint").arg(container.id()).spawn();
        let pid = checkpoint.pid();
        let children = move || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let mut ours = String::new();
        wait_until(moment, || {
            ours = children();
            saved.images.join(moment).exists() || ours.is_empty() && saved.images.join("dump.log").exists()
        });
        checkpoint.signal(Signal::KILL);
        drop(checkpoint);
        let ours: Vec<i32> = ours.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        wait_until("CRIU has ended", || ours.iter().all(|&pid| !host::is_alive(pid)));
        match container.status().as_str() {
            "running" => checkpoint::wait_for_count(&container, checkpoint::count(&container)),
            // All was saved; and if the signal came too late, tare had removed the container.
            status => assert!(matches!(status, "stopped" | "none"), "{moment}: {status}"),
        }
        container.delete_force().ok();
        fs::remove_dir_all(&saved.images).unwrap();
        Residue::of(&runtime).assert_none();
    }
}

/// The text of a failure tells who is in a cgroup that was left.
#[test]
fn what_is_left_is_explained() {
    if !host::is_root() || host::cgroup_mode() == host::CgroupMode::None {
        skip!("needs root and cgroups");
    }
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let residue = Residue::of(&runtime);
    let explained = residue.explain();
    assert!(explained.contains("State:\tS (sleeping)") && explained.contains("ResourceBusy"), "{explained}");
    container.delete_force().ok();
    let explained = residue.explain();
    assert!(!explained.contains("rmdir"), "{explained}");
}
