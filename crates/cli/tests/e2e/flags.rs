//! Flags as callers write them: Go's habits, crun's additions, probes.

use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, Kind, TempDir, known, wait_until};

use crate::runtime;

#[test]
fn a_config_by_another_name_is_read_from_the_callers_directory() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such flag");
    let bundle = Bundle::script("echo other");
    bundle.write();
    let dir = TempDir::new("config");
    fs::rename(bundle.path().join("config.json"), dir.join("other.json")).unwrap();
    let run = |flag: &str, file: &str| {
        let run = runtime.raw().args(["run", flag, file, "--bundle"]).arg(bundle.path()).arg(runtime.id("c"));
        run.cwd(dir.path()).run()
    };
    assert_eq!(run("--config", "other.json").ok().text(), "other");
    assert_eq!(run("-f", dir.join("other.json").to_str().unwrap()).ok().text(), "other");
    run("-f", "config.json").fails(&["no such file", "cannot read"]);
}

#[test]
fn exec_and_delete_work_without_a_config_json_in_the_bundle() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such flag");
    let bundle = Bundle::sleeper().env("FROM=config");
    bundle.write();
    let dir = TempDir::new("config");
    let file = dir.join("other.json");
    fs::rename(bundle.path().join("config.json"), &file).unwrap();
    let container = runtime.container(&bundle);
    let create = runtime.raw().args(["create", "--config"]).arg(&file).arg("--bundle").arg(bundle.path());
    create.arg(container.id()).run().ok();
    container.start().ok();
    assert_eq!(container.shell("echo $FROM"), "config");
    container.delete_force().ok();
}

#[test]
fn a_regular_expression_names_every_container_it_matches() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such flag");
    let bundle = Bundle::sleeper();
    let [one, two, other] = ["one", "two", "none"]
        .map(|name| tare_testkit::Container::new(&runtime, &bundle, format!("{}-{name}", runtime.tag())));
    for container in [&one, &two, &other] {
        container.up();
    }
    let pattern = format!("^{}-(one|t[w]o)$", runtime.tag());
    runtime.verb(["kill", "--regex", &pattern, "KILL"]).ok();
    one.wait_for("stopped");
    two.wait_for("stopped");
    other.is("running");
    runtime.verb(["delete", "-r", &pattern]).ok();
    assert_eq!((one.status().as_str(), two.status().as_str()), ("none", "none"));
    other.is("running");
    runtime.verb(["delete", "--force", "--regex", "none$"]).ok();
    assert_eq!(other.status(), "none");
    if runtime.kind() != Kind::Crun {
        runtime.verb(["kill", "--regex", "("]).fails(&[]);
    }
}

#[test]
fn a_regular_expression_that_fails_for_one_names_it_and_does_the_rest() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such flag", Crun: "the exit code is 0");
    let bundle = Bundle::sleeper();
    let [dead, live] = ["dead", "live"]
        .map(|name| tare_testkit::Container::new(&runtime, &bundle, format!("{}-{name}", runtime.tag())));
    dead.up();
    live.up();
    dead.kill("KILL").ok();
    dead.wait_for("stopped");
    let output = runtime.verb(["kill", "-r", &format!("^{}", runtime.tag()), "KILL"]).fails(&["not running"]);
    assert!(output.stderr.contains(dead.id()) && !output.stderr.contains(live.id()), "{output}");
    live.wait_for("stopped");
    runtime.verb(["kill", "--regex", "matches-nothing"]).ok();
}

/// podman looks for these before it offers checkpoints.
#[test]
fn the_probes_for_checkpoint_are_answered() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 of Debian is built without CRIU");
    let help = runtime.bare().args(["checkpoint", "--help"]).run().ok();
    for flag in ["--image-path", "--work-path", "--leave-running", "--pre-dump", "--lazy-pages", "--status-fd"] {
        assert!(help.stdout.contains(flag), "{flag}: {help}");
    }
    let output = runtime.bare().args(["restore", "--lsm-mount-context"]).run();
    assert!(!output.success());
    let said = output.stdout.clone() + &output.stderr;
    assert!(said.contains("flag needs an argument") || said.contains("requires an argument"), "{output}");
}

#[test]
fn flags_are_taken_as_go_takes_them() {
    let runtime = runtime();
    known!(runtime, Crun: "argp: two hyphens, flags before the name");
    let bundle = Bundle::script("exit 7");
    bundle.write();
    let path = bundle.path().to_str().unwrap();
    let id = runtime.id("c");
    let root = runtime.root();
    let root = root.to_str().unwrap();
    let equals = format!("--root={root}");
    for line in [
        vec![equals.as_str(), "--debug=false", "--rootless=true", "run", "-bundle", path, "-no-subreaper", &id],
        vec!["-root", root, "--systemd-cgroup=false", "run", &id, "--bundle", path, "--detach=false"],
        vec!["--root", root, "--rootless", "auto", "run", "-b", path, "--keep=0", "--no-subreaper=true", &id],
    ] {
        runtime.bare().args(&line).run().exits(7);
    }
}

#[test]
fn flags_end_at_the_name_for_exec_kill_and_ps() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let output = container.verb("exec").args([container.id(), "sh", "-c", "echo $0 $1", "-t", "--env"]).run().ok();
    assert_eq!(output.text(), "-t --env");
    if runtime.kind() != Kind::Crun {
        let table = container.verb("ps").args([container.id(), "-o", "pid,comm", "-e"]).run().ok();
        assert_eq!(table.lines()[0].split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
        assert!(table.lines().len() > 1, "{table}");
    }
    container.verb("kill").args([container.id(), "KILL"]).run().ok();
    wait_until("it is gone", || container.status() == "stopped");
}

/// The parent of a process on the host.
fn parent(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_foreground_run_adopts_orphans_unless_told_not_to() {
    let runtime = runtime();
    known!(runtime, Crun: "adopts them whatever it is told");
    // Of two generations, the one between of which ends; in the host's pid namespace, where somebody has to adopt.
    let bundle =
        Bundle::script("sh -c 'sleep 1000 & echo $! > /new; mv /new /orphan'; trap 'exit 0' TERM; sleep 1000 & wait")
            .without_namespace("pid");
    let orphan = bundle.rootfs().join("orphan");
    for (flags, adopted) in [([].as_slice(), true), (&["--no-subreaper"], false)] {
        let container = runtime.container(&bundle);
        let run = container.verb("run").args(flags).arg(container.id()).stdin_open().spawn();
        wait_until("it has an orphan", || orphan.exists());
        let pid: i32 = fs::read_to_string(&orphan).unwrap().trim().parse().unwrap();
        wait_until("it is adopted", || parent(pid) != u32::try_from(container.pid()).unwrap());
        assert_eq!(parent(pid) == run.pid(), adopted, "{flags:?}");
        container.delete_force().ok();
        run.wait();
        fs::remove_file(&orphan).unwrap();
    }
}

#[test]
fn who_makes_cgroups_can_be_named() {
    let runtime = runtime();
    known!(runtime, Runc: "has no --cgroup-manager");
    let bundle = Bundle::script("cat /proc/self/cgroup");
    bundle.write();
    let run = |flags: &[&str], id: &str| {
        let run = runtime.raw().args(flags).args(["run", "--bundle", bundle.path().to_str().unwrap(), id]);
        run.run()
    };
    let id = runtime.id("c");
    assert!(run(&["--cgroup-manager", "cgroupfs"], &id).ok().stdout.contains(&id));
    if runtime.is_tare() {
        let id = runtime.id("c");
        let output = run(&["--cgroup-manager=disabled"], &id).ok();
        assert!(!output.stdout.contains(&id), "{output}");
    }
    run(&["--cgroup-manager", "runit"], &runtime.id("c")).fails(&[]);
}

/// Nothing is limited, not even late: 0 and 1 are written once init is there.
#[test]
fn without_a_cgroup_any_limit_of_processes_is_none() {
    let runtime = runtime();
    known!(runtime, Runc: "has no --cgroup-manager");
    for limit in [0, 1, 2] {
        let bundle = Bundle::script("for i in 1 2 3; do sleep 0.1 & done; wait; cat /proc/self/cgroup")
            .resource("pids", json!({"limit": limit}));
        bundle.write();
        let id = runtime.id("c");
        let run = runtime.raw().args(["--cgroup-manager", "disabled", "run", "--bundle"]);
        let output = run.arg(bundle.path()).arg(&id).run().ok();
        assert!(!output.stdout.is_empty() && !output.stdout.contains(&id), "{output}");
    }
}

#[test]
fn rootless_is_true_false_or_auto_and_where_criu_is_does_not_matter() {
    let runtime = runtime();
    known!(runtime, Crun: "takes any word");
    let bundle = Bundle::script("exit 4");
    bundle.write();
    let path = bundle.path().to_str().unwrap();
    for flags in [["--rootless", "true"], ["--rootless=false", "--debug=0"], ["--rootless", "auto"]] {
        runtime.raw().args(flags).args(["run", "--bundle", path, &runtime.id("c")]).run().exits(4);
    }
    runtime.raw().args(["--rootless", "perhaps", "run", "--bundle", path, &runtime.id("c")]).run().fails(&["perhaps"]);
    if runtime.is_tare() {
        runtime.raw().args(["--criu", "/no/criu", "run", "--bundle", path, &runtime.id("c")]).run().exits(4);
    }
}

#[test]
fn create_takes_no_subreaper_as_crun_does() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such flag at create");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.call("create", &["--no-subreaper"]).ok();
    container.is("created");
}
