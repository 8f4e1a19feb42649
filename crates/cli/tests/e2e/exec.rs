//! exec: one more process in a running container.

use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, Container, Runtime, TempDir, host, known, skip, wait_until};

use crate::{is_old_runc, runtime, words};

/// Runs a check in a running container of this bundle.
fn within(bundle: &Bundle, check: impl FnOnce(&Runtime, &Container<'_>)) {
    let runtime = runtime();
    let container = runtime.container(bundle);
    container.up();
    check(&runtime, &container);
}

#[test]
fn exec_passes_args_and_the_exit_code() {
    within(&Bundle::sleeper(), |_, container| {
        let script = "for a in \"$@\"; do echo \"<$a>\"; done; exit 42";
        let output = container.exec(["sh", "-c", script, "sh", "", "two words", "-x", "--y"]).exits(42);
        assert_eq!(output.lines(), ["<>", "<two words>", "<-x>", "<--y>"]);
        for code in [0, 1, 126, 127, 255] {
            container.exec(["sh", "-c", &format!("exit {code}")]).exits(code);
        }
        container.exec(["sh", "-c", "kill -TERM $$"]).exits(128 + 15);
    });
}

#[test]
fn exec_has_the_configs_environment_and_its_own() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec with options, or of another program, has not what config.json gives");
    within(&Bundle::sleeper().env("FROM_CONFIG=1").env("BOTH=config"), |_, container| {
        let output = container.exec_with(&["-e", "OWN=2", "-e", "BOTH=own"], ["env"]).ok();
        let lines = output.lines();
        for expected in ["FROM_CONFIG=1", "OWN=2", "HOME=/root"] {
            assert!(lines.contains(&expected), "{expected}: {output}");
        }
        assert_eq!(lines.iter().rfind(|line| line.starts_with("BOTH=")), Some(&"BOTH=own"));
    });
}

#[test]
fn exec_has_the_configs_cwd_or_its_own() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec with options, or of another program, has not what config.json gives");
    within(&Bundle::sleeper().set("/process/cwd", json!("/usr")), |_, container| {
        assert_eq!(container.exec(["pwd"]).ok().text(), "/usr");
        assert_eq!(container.exec_with(&["--cwd", "/bin"], ["pwd"]).ok().text(), "/bin");
    });
}

#[test]
fn exec_has_the_configs_user_or_its_own() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec with options, or of another program, has not what config.json gives");
    within(&Bundle::sleeper().user(7, 8), |_, container| {
        let ids = ["sh", "-c", "id -u; id -g"];
        assert_eq!(container.exec(ids).ok().lines(), ["7", "8"]);
        assert_eq!(container.exec_with(&["--user", "1000:1001"], ids).ok().lines(), ["1000", "1001"]);
        let alone = container.exec_with(&["-u", "1000"], ids).ok();
        assert_eq!(alone.lines()[0], "1000");
    });
}

#[test]
fn exec_takes_additional_gids() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no --additional-gids");
    within(&Bundle::sleeper(), |_, container| {
        let options = ["--additional-gids", "100", "--additional-gids", "200", "-u", "5:6"];
        let output = container.exec_with(&options, ["grep", "Groups:", "/proc/self/status"]).ok();
        assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["Groups:", "100", "200"]);
    });
}

#[test]
fn exec_fails_with_255_when_it_cannot_run() {
    let runtime = runtime();
    known!(runtime, Crun: "1 (contracts.md 2.2)");
    within(&Bundle::sleeper(), |_, container| {
        container.exec(["no-such-program"]).exits(255).fails(&["executable file not found in $PATH"]);
        container.exec(["/no/such/program"]).exits(255).fails(&["no such file or directory"]);
        container.exec(["/etc/passwd"]).exits(255).fails(&["permission denied"]);
        container.exec_with(&["--pid-file", "/no/such/dir/pid"], ["true"]).exits(255);
        container.exec_with(&["--process", "/no/such/file"], [""; 0]).exits(255);
    });
}

#[test]
fn exec_in_an_unknown_container_fails_with_255() {
    let runtime = runtime();
    known!(runtime, Crun: "1 (contracts.md 2.2)");
    let bundle = Bundle::new();
    runtime.container(&bundle).exec(["true"]).exits(255).fails(&["does not exist"]);
}

#[test]
fn exec_in_a_stopped_container_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    container.exec(["true"]).fails(&words(&runtime, "cannot exec in a stopped container", "is not running"));
}

#[test]
fn exec_in_a_created_container_works() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    assert_eq!(container.shell("hostname"), "tare-test");
    container.is("created");
}

#[test]
fn exec_without_args_is_refused() {
    within(&Bundle::sleeper(), |_, container| {
        container.exec([""; 0]).fails(&[]);
    });
}

#[test]
fn exec_takes_a_process_document() {
    let dir = TempDir::new("process");
    let process = json!({
        "args": ["sh", "-c", "id -u; id -g; pwd; env; grep NoNewPrivs /proc/self/status; ulimit -n"],
        "cwd": "/usr",
        "env": ["PATH=/bin", "ONLY=this"],
        "user": {"uid": 11, "gid": 12},
        "noNewPrivileges": true,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}],
    });
    fs::write(dir.join("process.json"), process.to_string()).unwrap();
    let bundle = Bundle::sleeper().env("FROM_CONFIG=1").set("/process/noNewPrivileges", json!(false));
    within(&bundle, |_, container| {
        for flag in ["-p", "--process"] {
            let file = dir.join("process.json");
            let output = container.verb("exec").arg(flag).arg(file).arg(container.id()).run().ok();
            let lines = output.lines();
            assert_eq!(lines[..3], ["11", "12", "/usr"], "{output}");
            for expected in ["ONLY=this", "NoNewPrivs:\t1", "64"] {
                assert!(lines.contains(&expected), "{expected}: {output}");
            }
            assert!(!output.stdout.contains("FROM_CONFIG"), "{output}");
        }
    });
}

/// Where the document is silent, as runc: capabilities, the OOM adjustment and the mask are the container's, limits are not.
#[test]
fn exec_with_a_process_document_has_the_rest_from_the_container() {
    let runtime = runtime();
    known!(runtime, Crun: "no capabilities at all");
    let dir = TempDir::new("process");
    let script =
        "grep CapEff /proc/self/status; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status; umask";
    let silent = json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let mut telling = silent.clone();
    telling["oomScoreAdj"] = json!(55);
    telling["capabilities"] = json!({});
    let bundle = Bundle::sleeper().set("/process/oomScoreAdj", json!(77)).set("/process/user/umask", json!(0o027));
    within(&bundle, |_, container| {
        let lines = |document: &serde_json::Value| {
            fs::write(dir.join("process.json"), document.to_string()).unwrap();
            let exec = container.verb("exec").arg("-p").arg(dir.join("process.json")).arg(container.id());
            exec.run().ok().lines().iter().map(|&line| line.to_owned()).collect::<Vec<_>>()
        };
        let found = lines(&silent);
        assert_eq!(found[..3], ["CapEff:\t0000000020000420", "77", "NoNewPrivs:\t0"]);
        if !is_old_runc(&runtime) {
            assert_eq!(found[3], "0027");
        }
        let found = lines(&telling);
        assert_eq!(found[0], "CapEff:\t0000000000000000");
        if runtime.is_tare() {
            assert_eq!(found[1], "55");
        }
    });
}

#[test]
fn exec_with_a_process_document_has_its_umask() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 sets 0022");
    let dir = TempDir::new("process");
    let user = json!({"uid": 0, "gid": 0, "umask": 0o077});
    let process = json!({"args": ["sh", "-c", "umask"], "cwd": "/", "env": ["PATH=/bin"], "user": user});
    fs::write(dir.join("process.json"), process.to_string()).unwrap();
    within(&Bundle::sleeper(), |_, container| {
        let exec = container.verb("exec").arg("-p").arg(dir.join("process.json")).arg(container.id());
        assert_eq!(exec.run().ok().text(), "0077");
    });
}

#[test]
fn exec_detached_returns_and_writes_the_pid() {
    within(&Bundle::sleeper(), |_, container| {
        let dir = TempDir::new("pid");
        let file = dir.join("pid");
        let options = ["--detach", "--pid-file", file.to_str().unwrap()];
        container.exec_with(&options, ["sleep", "1234"]).ok();
        let text = fs::read_to_string(&file).unwrap();
        let pid: i32 = text.parse().expect("a number and no newline");
        assert!(host::is_alive(pid));
        assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("1234"));
        wait_until("ps shows it", || {
            container.call("ps", &["--format", "json"]).json().as_array().unwrap().contains(&json!(pid))
        });
        container.delete_force().ok();
        wait_until("it ends with the container", || !host::is_alive(pid));
    });
}

#[test]
fn exec_joins_all_namespaces_the_root_and_the_cgroups() {
    let bundle = Bundle::sleeper().namespace("cgroup");
    within(&bundle, |_, container| {
        let script = "for n in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$n; done; hostname; \
             readlink /proc/1/ns/mnt; cat /proc/$$/status | grep NSpid";
        let output = container.exec(["sh", "-c", script]).ok();
        for (index, kind) in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"].into_iter().enumerate() {
            assert_eq!(output.lines()[index], container.link(&format!("ns/{kind}")).to_str().unwrap(), "{kind}");
        }
        assert_eq!(output.lines()[7], "tare-test");
        let init = container.proc("cgroup");
        let dir = TempDir::new("pid");
        let file = dir.join("pid");
        container.exec_with(&["-d", "--pid-file", file.to_str().unwrap()], ["sleep", "1234"]).ok();
        let pid = fs::read_to_string(file).unwrap();
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap(), init);
    });
}

#[test]
fn exec_joins_the_user_namespace() {
    within(&Bundle::sleeper().user_namespace(100_000, 65536), |_, container| {
        let output =
            container.exec(["sh", "-c", "id -u; readlink /proc/self/ns/user; head -n 1 /proc/self/uid_map"]).ok();
        assert_eq!(output.lines()[..2], ["0", container.link("ns/user").to_str().unwrap()]);
        assert_eq!(output.lines()[2].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    });
}

#[test]
fn exec_joins_all_eight_namespaces_at_once() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes offsets from an annotation");
    if is_old_runc(&runtime) && tare_testkit::record_known(runtime.kind(), "1.1.5 knows no time namespace") {
        return;
    }
    let offsets = json!({"monotonic": {"secs": 500_000}, "boottime": {"secs": 500_000}});
    let bundle = Bundle::sleeper().user_namespace(100_000, 65536).namespace("cgroup").namespace("time");
    within(&bundle.set("/linux/timeOffsets", offsets), |_, container| {
        let kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"];
        let output = container
            .shell(&format!("for n in {}; do readlink /proc/self/ns/$n; done; cat /proc/uptime", kinds.join(" ")));
        let lines: Vec<&str> = output.lines().collect();
        for (line, kind) in lines.iter().zip(kinds) {
            assert_eq!(*line, container.link(&format!("ns/{kind}")).to_str().unwrap(), "{kind}");
        }
        let uptime: f64 = lines[8].split(' ').next().unwrap().parse().unwrap();
        assert!(uptime >= 500_000.0, "{uptime}");
    });
}

/// Linux 5.8: one call instead of one, with an open file, for each namespace.
#[test]
fn exec_joins_them_by_one_call() {
    let runtime = runtime();
    known!(runtime, Runc: "a call for each namespace", Crun: "1.8.1: a call for each namespace");
    if tare_testkit::host::program("strace").is_none() {
        skip!("no strace");
    }
    let bundle = Bundle::sleeper().user_namespace(100_000, 65536).namespace("cgroup").namespace("time");
    within(&bundle, |_, container| {
        let dir = TempDir::new("strace");
        let exec = container.verb("exec").args([container.id(), "true"]);
        let script = "exec strace -f -e trace=setns -o trace \"$@\"";
        exec.through_shell(script).cwd(dir.path()).run().ok();
        let trace = fs::read_to_string(dir.join("trace")).unwrap();
        let calls: Vec<&str> = trace.lines().filter(|line| line.contains("setns(")).collect();
        assert_eq!(calls.len(), 1, "{trace}");
        for flag in ["NEWPID", "NEWNET", "NEWIPC", "NEWUTS", "NEWNS", "NEWCGROUP", "NEWUSER"] {
            assert!(calls[0].contains(&format!("CLONE_{flag}")), "{flag}: {}", calls[0]);
        }
        // CLONE_NEWTIME, by number where strace does not know it.
        assert!(calls[0].contains("CLONE_NEWTIME") || calls[0].contains("0x80"), "{}", calls[0]);
    });
}

const CAPABILITIES: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | cut -f2";

#[test]
fn exec_has_the_configs_capabilities_and_those_it_is_given() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec with options, or of another program, has not what config.json gives");
    within(&Bundle::sleeper(), |_, container| {
        let (none, set) = ("0000000000000000", "0000000020000420");
        assert_eq!(container.shell(CAPABILITIES).lines().collect::<Vec<_>>(), [none, set, set, set, none]);
        let output = container.exec_with(&["--cap", "CAP_CHOWN"], ["sh", "-c", CAPABILITIES]).ok();
        assert_eq!(output.lines()[1..4], ["0000000020000421"; 3]);
    });
}

/// Of an exec somebody wrote the name for this one command: nothing may run without what it asks for.
#[test]
fn exec_with_an_unknown_capability_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "warns and goes on", Crun: "the same");
    within(&Bundle::sleeper(), |_, container| {
        let output = container.exec_with(&["--cap", "CAP_TO_COME"], ["echo", "ran"]);
        assert_eq!(output.code(), Some(255), "{output}");
        assert!(output.stderr.contains("CAP_TO_COME") && output.stdout.is_empty(), "{output}");
    });
}

#[test]
fn exec_has_the_configs_limits_and_flags() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec with options, or of another program, has not what config.json gives");
    within(&Bundle::sleeper().set("/process/oomScoreAdj", json!(77)), |_, container| {
        let script = "ulimit -n; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; umask";
        assert_eq!(container.shell(script).lines().collect::<Vec<_>>(), ["1024", "NoNewPrivs:\t1", "77", "0022"]);
    });
}

#[test]
fn exec_no_new_privs_sets_it() {
    within(&Bundle::sleeper().set("/process/noNewPrivileges", json!(false)), |_, container| {
        let show = ["grep", "NoNewPrivs", "/proc/self/status"];
        assert_eq!(container.exec(show).ok().text(), "NoNewPrivs:\t0");
        assert_eq!(container.exec_with(&["--no-new-privs"], show).ok().text(), "NoNewPrivs:\t1");
    });
}

#[test]
fn exec_passes_stdin_stdout_and_stderr() {
    within(&Bundle::sleeper(), |_, container| {
        let exec = container.verb("exec").args([container.id(), "sh", "-c", "cat; echo err >&2"]);
        let output = exec.stdin("through\n").run().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("through\n", "err\n"));
    });
}

#[test]
fn exec_has_nothing_but_stdio_open_and_preserves_what_is_asked() {
    within(&Bundle::sleeper(), |_, container| {
        let show = ["sh", "-c", "ls /proc/$$/fd; true"];
        let script = "exec \"$@\" 9</ 8</etc 3</etc/hostname 4</etc/hostname";
        let plain = container.verb("exec").arg(container.id()).args(show).through_shell(script).run().ok();
        assert_eq!(plain.lines(), ["0", "1", "2"]);
        let preserving = container.verb("exec").args(["--preserve-fds", "1", container.id()]).args(show);
        assert_eq!(preserving.through_shell(script).run().ok().lines(), ["0", "1", "2", "3"]);
    });
}

#[test]
fn exec_forwards_signals() {
    within(&Bundle::sleeper(), |_, container| {
        let script = "trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done";
        let running = container.verb("exec").args([container.id(), "sh", "-c", script]).spawn();
        wait_until("the trap is set", || running.stdout_so_far() == "ready\n");
        running.signal(rustix::process::Signal::TERM);
        running.wait().exits(43);
    });
}
