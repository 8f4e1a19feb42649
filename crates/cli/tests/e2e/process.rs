//! The process: arguments, environment, identity, limits, files.

use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, Output, TempDir, known};

use crate::runtime;

#[test]
fn args_are_passed_as_they_are() {
    let runtime = runtime();
    let script = "for a in \"$@\"; do echo \"<$a>\"; done";
    let bundle = Bundle::new().args(["sh", "-c", script, "sh", "", "two words", "$HOME", "ü", "-x"]);
    assert_eq!(runtime.run(&bundle).ok().lines(), ["<>", "<two words>", "<$HOME>", "<ü>", "<-x>"]);
}

#[test]
fn the_program_is_found_in_the_containers_path() {
    let runtime = runtime();
    let bundle = Bundle::new()
        .args(["prog"])
        .file("opt/bin/prog", "#!/bin/sh\necho found\n")
        .set("/process/env", json!(["PATH=/nowhere:/opt/bin:/bin"]));
    make_executable(&bundle, "opt/bin/prog");
    assert_eq!(runtime.run(&bundle).ok().text(), "found");
}

#[test]
fn a_program_relative_to_cwd_is_found() {
    let runtime = runtime();
    let bundle =
        Bundle::new().args(["./prog"]).file("opt/prog", "#!/bin/sh\necho found\n").set("/process/cwd", json!("/opt"));
    make_executable(&bundle, "opt/prog");
    assert_eq!(runtime.run(&bundle).ok().text(), "found");
}

#[test]
fn env_is_the_configs_and_home() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["env"]).env("EMPTY=").env("A=b=c").env("LINES=1\n2");
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).env("HOST_ONLY", "1").run().ok();
    let mut lines = output.lines();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["2", "A=b=c", "EMPTY=", "HOME=/root", "LINES=1", path, "TERM=xterm"]);
}

#[test]
fn the_last_of_two_variables_wins() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::new().args(["env"]).env("X=1").env("Y=0").env("X=2")).ok();
    let lines: Vec<_> = output.lines().into_iter().filter(|line| line.starts_with("X=")).collect();
    assert_eq!(lines, ["X=2"]);
}

#[test]
fn home_is_from_the_containers_passwd() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 sets none for a user without an entry");
    for (uid, home) in [(0, "/root"), (1000, "/home"), (4711, "/")] {
        let output = runtime.run(&Bundle::script("echo $HOME").user(uid, 0)).ok();
        assert_eq!(output.text(), home, "uid {uid}");
    }
    let given = Bundle::script("echo $HOME").env("HOME=/given");
    assert_eq!(runtime.run(&given).ok().text(), "/given");
}

#[test]
fn an_empty_home_is_filled() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 leaves it empty");
    assert_eq!(runtime.run(&Bundle::script("echo $HOME").env("HOME=")).ok().text(), "/root");
}

#[test]
fn cwd_is_the_configs() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["pwd"]).set("/process/cwd", json!("/usr"));
    assert_eq!(runtime.run(&bundle).ok().text(), "/usr");
}

#[test]
fn a_missing_cwd_is_made() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["pwd"]).set("/process/cwd", json!("/made/by/the/runtime"));
    assert_eq!(runtime.run(&bundle).ok().text(), "/made/by/the/runtime");
    assert!(bundle.rootfs().join("made/by/the/runtime").is_dir());
}

#[test]
fn a_cwd_that_is_a_file_or_relative_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes a relative cwd");
    let file = Bundle::script("echo ran").set("/process/cwd", json!("/etc/passwd"));
    assert_eq!(runtime.run(&file).fails(&["not a directory", "/etc/passwd"]).stdout, "");
    let relative = Bundle::script("echo ran").set("/process/cwd", json!("usr"));
    assert_eq!(runtime.run(&relative).fails(&["cwd", "absolute"]).stdout, "");
}

#[test]
fn a_cwd_the_user_alone_can_enter_works() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["pwd"]).user(1000, 1000).dir("private").set("/process/cwd", json!("/private"));
    std::os::unix::fs::chown(bundle.rootfs().join("private"), Some(1000), Some(1000)).unwrap();
    set_mode(&bundle, "private", 0o700);
    assert_eq!(runtime.run(&bundle).ok().text(), "/private");
}

#[test]
fn uid_and_gid_are_the_users() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("grep -E '^(Uid|Gid|Groups):' /proc/self/status").user(1000, 1001)).ok();
    assert_eq!(output.lines(), ["Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001", output.lines()[2]]);
    assert_eq!(output.lines()[2].trim_end(), "Groups:", "no groups of the caller");
}

#[test]
fn additional_gids_are_set() {
    let runtime = runtime();
    let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 6000, 10]});
    let output = runtime.run(&Bundle::script("grep Groups: /proc/self/status").set("/process/user", user)).ok();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["Groups:", "5", "10", "6000"]);
}

#[test]
fn umask_is_0022_unless_given() {
    let runtime = runtime();
    let container_umask = |bundle: Bundle| {
        let container = runtime.container(&bundle);
        container.verb("run").arg(container.id()).through_shell("umask 0077; exec \"$@\"").run().ok().text().to_owned()
    };
    assert_eq!(container_umask(Bundle::script("umask")), "0022");
    for (given, shown) in [(0o027, "0027"), (0, "0000"), (0o777, "0777")] {
        let bundle = Bundle::script("umask").set("/process/user/umask", json!(given));
        assert_eq!(container_umask(bundle), shown);
    }
}

const CAPABILITIES: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | cut -f2";

#[test]
fn the_default_capabilities_are_all_there_is() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script(CAPABILITIES)).ok();
    // AUDIT_WRITE 29, NET_BIND_SERVICE 10, KILL 5.
    let set = "0000000020000420";
    assert_eq!(output.lines(), ["0000000000000000", set, set, set, "0000000000000000"]);
}

#[test]
fn each_of_the_five_sets_is_as_given() {
    let runtime = runtime();
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_AUDIT_WRITE"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_KILL"],
    });
    let bundle = Bundle::script(CAPABILITIES).user(1000, 1000).set("/process/capabilities", sets);
    let output = runtime.run(&bundle).ok();
    let expected = ["0000000000000021", "0000000000000020", "0000000000000020", "0000000020000021", "0000000000000020"];
    assert_eq!(output.lines(), expected);
}

#[test]
fn without_capabilities_there_are_none() {
    let runtime = runtime();
    let none = "0000000000000000";
    let empty = Bundle::script(CAPABILITIES).capabilities(&[]);
    assert_eq!(runtime.run(&empty).ok().lines(), [none; 5]);
}

/// As `runc spec` asks for: the kernel refuses to raise what is not inheritable, and that is no one's fault.
#[test]
fn ambient_capabilities_that_are_not_inheritable_are_left_out_without_a_word() {
    let runtime = runtime();
    let bundle = Bundle::script("grep CapAmb: /proc/self/status | cut -f2")
        .set("/process/capabilities/ambient", json!(["CAP_KILL", "CAP_AUDIT_WRITE"]));
    let output = runtime.run(&bundle).ok();
    assert_eq!((output.text(), output.stderr.as_str()), ("0000000000000000", ""));
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let runtime = runtime();
    let bundle = Bundle::script("grep -E '^Cap(Prm|Bnd):' /proc/self/status | cut -f2");
    let output = runtime.run(&bundle.capabilities(&["CAP_KILL", "CAP_TO_COME"])).ok();
    assert_eq!(output.lines(), ["0000000000000020"; 2]);
    known!(runtime, Crun: "says nothing");
    assert!(output.stderr.contains("CAP_TO_COME"), "{output}");
}

#[test]
fn rlimits_are_set() {
    let runtime = runtime();
    let rlimits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 4194304, "hard": 4194304},
    ]);
    let script = "grep -E '^Max (open files|core file size|stack size)' /proc/self/limits";
    let output = runtime.run(&Bundle::script(script).set("/process/rlimits", rlimits)).ok();
    let lines: Vec<Vec<_>> = output.lines().iter().map(|line| line.split_whitespace().collect()).collect();
    let find = |name| lines.iter().find(|words: &&Vec<_>| words[1] == name).unwrap();
    assert_eq!(find("open")[3..5], ["100", "200"]);
    assert_eq!(find("core")[4..6], ["0", "0"]);
    assert_eq!(find("stack")[3..5], ["4194304", "4194304"]);
}

#[test]
fn bad_rlimits_are_refused() {
    let runtime = runtime();
    for rlimits in [
        json!([{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]),
        json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}]),
        json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 2, "hard": 2}]),
    ] {
        runtime.run(&Bundle::new().set("/process/rlimits", rlimits)).fails(&[]);
    }
}

#[test]
fn no_new_privileges_is_as_given() {
    let runtime = runtime();
    for (given, shown) in [(true, "NoNewPrivs:\t1"), (false, "NoNewPrivs:\t0")] {
        let bundle = Bundle::script("grep NoNewPrivs /proc/self/status").set("/process/noNewPrivileges", json!(given));
        assert_eq!(runtime.run(&bundle).ok().text(), shown);
    }
}

#[test]
fn oom_score_adj_is_set() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /proc/self/oom_score_adj").set("/process/oomScoreAdj", json!(345));
    assert_eq!(runtime.run(&bundle).ok().text(), "345");
}

#[test]
fn oom_score_adj_is_the_callers_if_not_given() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /proc/self/oom_score_adj");
    let container = runtime.container(&bundle);
    let script = "echo 123 > /proc/self/oom_score_adj; exec \"$@\"";
    let output = container.verb("run").arg(container.id()).through_shell(script).run().ok();
    assert_eq!(output.text(), "123");
}

#[test]
fn a_program_not_in_path_is_not_found_at_create() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["no-such-program"]);
    let container = runtime.container(&bundle);
    let output = container.create();
    container.is("none");
    output.fails(&["executable file not found in $PATH", "executable file `no-such-program` not found in $PATH"]);
}

#[test]
fn a_program_path_that_is_not_there_is_not_found_at_create() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["/no/such/program"]);
    let container = runtime.container(&bundle);
    let output = container.create();
    container.is("none");
    output.fails(&["no such file or directory"]);
}

#[test]
fn a_program_that_is_not_executable_is_denied() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["/etc/passwd"]);
    let container = runtime.container(&bundle);
    container.run().fails(&["permission denied"]);
    container.is("none");
    let container = runtime.container(&bundle);
    container.create().fails(&["permission denied"]);
    container.is("none");
}

#[test]
fn a_directory_as_the_program_is_denied() {
    let runtime = runtime();
    runtime.run(&Bundle::new().args(["/etc"])).fails(&[
        "permission denied",
        "is a directory",
        "operation not permitted",
    ]);
}

#[test]
fn empty_args_are_refused() {
    let runtime = runtime();
    runtime.run(&Bundle::new().set("/process/args", json!([]))).fails(&[]);
    runtime.run(&Bundle::new().remove("/process", "args")).fails(&[]);
}

#[test]
fn sysctls_are_set_in_their_namespaces() {
    let runtime = runtime();
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let bundle = Bundle::script("cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax fs/mqueue/msg_max")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9999", "fs.mqueue.msg_max": "77"}));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["1", "9999", "77"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let runtime = runtime();
    let refused = |bundle: Bundle, name: &str| {
        runtime.run(&bundle.set("/linux/sysctl", json!({name: "1"}))).fails(&[]);
    };
    refused(Bundle::new(), "vm.swappiness");
    refused(Bundle::new(), "kernel.core_pattern");
    refused(Bundle::new().without_namespace("network"), "net.ipv4.ip_forward");
    refused(Bundle::new().without_namespace("ipc"), "kernel.msgmax");
}

#[test]
fn nothing_but_stdio_is_open() {
    let runtime = runtime();
    let bundle = Bundle::script("ls /proc/$$/fd; true");
    let container = runtime.container(&bundle);
    let script = "exec \"$@\" 9</ 8</etc 7</dev/null 3</etc/hostname";
    let output = container.verb("run").arg(container.id()).through_shell(script).run().ok();
    assert_eq!(output.lines(), ["0", "1", "2"]);
}

#[test]
fn preserved_fds_are_these_and_no_others() {
    let runtime = runtime();
    let dir = TempDir::new("fds");
    for name in ["three", "four", "five"] {
        fs::write(dir.join(name), format!("{name}\n")).unwrap();
    }
    let bundle = Bundle::script("ls /proc/$$/fd; cat <&3; cat <&4");
    let container = runtime.container(&bundle);
    let script = format!("cd {}; exec \"$@\" 3<three 4<four 5<five", dir.path().display());
    let output = container.verb("run").args(["--preserve-fds", "2", container.id()]).through_shell(&script).run().ok();
    assert_eq!(output.lines(), ["0", "1", "2", "3", "4", "three", "four"]);
}

#[test]
fn preserving_an_fd_that_is_not_open_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "takes an fd of its own for the one missing", Crun: "1.8.1 does not look");
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    let script = "exec \"$@\" 3</dev/null 4<&- 5</dev/null";
    container.verb("run").args(["--preserve-fds", "3", container.id()]).through_shell(script).run().fails(&[]);
}

#[test]
fn stdin_reaches_the_process_and_ends() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["cat"]);
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).stdin("one\ntwo\n").run().ok();
    assert_eq!(output.stdout, "one\ntwo\n");
}

#[test]
fn stdout_and_stderr_are_apart() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("echo out; echo err >&2")).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn large_outputs_pass_whole() {
    let runtime = runtime();
    let bundle = Bundle::script("dd if=/dev/zero bs=64k count=320 2>/dev/null");
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).through_shell("\"$@\" | wc -c").run().ok();
    assert_eq!(output.text(), (320 * 65536).to_string(), "{output}");
}

#[test]
fn a_large_stdin_passes_whole() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["wc", "-c"]);
    let container = runtime.container(&bundle);
    let output = container.verb("run").arg(container.id()).stdin(vec![b'x'; 3_000_000]).run().ok();
    assert_eq!(output.text(), "3000000");
}

#[test]
fn it_runs_with_stdio_closed() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1: fchown std stream 0: Bad file descriptor");
    let bundle = Bundle::script("touch /ran");
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let container = runtime.container(&bundle);
        let script = format!("exec \"$@\" {closed}");
        container.verb("run").arg(container.id()).through_shell(&script).run().ok();
        fs::remove_file(bundle.rootfs().join("ran")).expect(closed);
    }
}

#[test]
fn no_signal_is_blocked_and_none_that_shells_ignore_is_ignored() {
    let runtime = runtime();
    let script = "grep -E '^Sig(Blk|Ign):' /proc/self/status; true";
    let caller = "trap '' HUP INT QUIT PIPE; exec \"$@\"";
    // glibc's own two (32, 33) do not count: posix_spawn(3) ignores them.
    let masks = |output: &Output| -> Vec<u64> {
        let mask = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap() & 0x7fff_ffff;
        output.lines().into_iter().map(mask).collect()
    };
    let bundle = Bundle::script(script);
    let container = runtime.container(&bundle);
    let run = container.verb("run").arg(container.id()).through_shell(caller).run().ok();
    assert_eq!(masks(&run), [0, 0], "{run}");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let exec = container.verb("exec").args([container.id(), "sh", "-c", script]).through_shell(caller).run().ok();
    assert_eq!(masks(&exec), [0, 0], "{exec}");
}

#[test]
fn the_process_leads_a_session_of_its_own() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("cut -d' ' -f1,5,6 /proc/self/stat; cut -d' ' -f6 /proc/1/stat")).ok();
    assert_eq!(output.lines()[1], "1");
}

fn make_executable(bundle: &Bundle, path: &str) {
    set_mode(bundle, path, 0o755);
}

fn set_mode(bundle: &Bundle, path: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.rootfs().join(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn rlimits_may_be_above_the_callers_in_a_user_namespace_too() {
    let runtime = runtime();
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let may_raise = u64::from_str_radix(effective, 16).unwrap() & SYS_RESOURCE != 0;
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 700, "hard": 800}]);
    for bundle in [Bundle::new(), Bundle::new().user_namespace(100_000, 65_536)] {
        let bundle = bundle.args(["sh", "-c", "ulimit -n; ulimit -Hn"]).set("/process/rlimits", limits.clone());
        let container = runtime.container(&bundle);
        let run = container.verb("run").arg(container.id()).through_shell("ulimit -n 500; exec \"$@\"").run();
        if may_raise {
            assert_eq!(run.ok().lines(), ["700", "800"]);
        } else {
            assert!(!run.success() && run.stdout.is_empty(), "{run}");
            if runtime.is_tare() {
                run.fails(&["process.rlimits: prlimit(RLIMIT_NOFILE, soft 700, hard 800): operation not permitted"]);
            }
        }
    }
}
