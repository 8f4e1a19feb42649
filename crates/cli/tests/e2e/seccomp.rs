//! `linux.seccomp`: what programs in a container see of it.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tare_testkit::{Bundle, TempDir, known};

use crate::runtime;

/// A profile that allows all but what the rules say.
fn profile(bundle: Bundle, rules: Value) -> Bundle {
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

fn docker(bundle: Bundle) -> Bundle {
    let text = include_str!("../../../sandbox/src/seccomp/testdata/docker.json");
    bundle.set("/linux/seccomp", serde_json::from_str(text).unwrap())
}

/// Both moments at which a filter is loaded.
fn with_and_without_new_privileges(bundle: impl Fn() -> Bundle) -> [Bundle; 2] {
    [true, false].map(|none| bundle().set("/process/noNewPrivileges", json!(none)))
}

#[test]
fn a_refused_call_fails_with_the_errno_of_its_rule() {
    let runtime = runtime();
    let rules = json!([
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 39},
    ]);
    for bundle in
        with_and_without_new_privileges(|| profile(Bundle::script("mkdir /x; rmdir /proc; true"), rules.clone()))
    {
        let output = runtime.run(&bundle).ok();
        assert!(output.stderr.contains("Operation not permitted"), "{}", output.stderr);
        assert!(output.stderr.contains("Directory not empty"), "{}", output.stderr);
    }
}

#[test]
fn the_filter_is_in_force_for_init_and_for_exec() {
    let runtime = runtime();
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    for bundle in with_and_without_new_privileges(|| profile(Bundle::sleeper(), rules.clone())) {
        let container = runtime.container(&bundle);
        container.up();
        let own = container.proc("status");
        assert!(own.lines().any(|line| line == "Seccomp:\t2"), "{own}");
        assert_eq!(container.shell("grep Seccomp: /proc/self/status"), "Seccomp:\t2");
        let output = container.exec(["mkdir", "/x"]);
        assert!(!output.success() && output.stderr.contains("Operation not permitted"), "{output:?}");
        let user = container.exec_with(&["--user", "1000:1000"], ["mkdir", "/tmp/x"]);
        assert!(!user.success() && user.stderr.contains("Operation not permitted"), "{user:?}");
    }
}

#[test]
fn a_user_other_than_root_is_filtered_too() {
    let runtime = runtime();
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    let script = "grep -E '^(Seccomp|CapEff):' /proc/self/status | cut -f2";
    for bundle in with_and_without_new_privileges(|| profile(Bundle::script(script).user(1000, 1000), rules.clone())) {
        assert_eq!(runtime.run(&bundle).ok().lines(), ["0000000000000000", "2"]);
    }
}

#[test]
fn a_profile_may_refuse_what_the_runtime_itself_does_before() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 changes user and checks the directory under the filter",
        Crun: "1.8.1 does some of it under the filter");
    let names = json!(["getcwd", "chdir", "setgroups", "setresuid", "setresgid", "umask", "fchown", "prlimit64"]);
    let rules = json!([{"names": names, "action": "SCMP_ACT_ERRNO"}]);
    for bundle in with_and_without_new_privileges(|| profile(Bundle::script("echo ran"), rules.clone())) {
        assert_eq!(runtime.run(&bundle).ok().text(), "ran");
        let container = runtime.container(&bundle);
        container.up();
        container.wait_for("stopped");
    }
}

#[test]
fn kill_and_trap_end_the_program_by_sigsys() {
    let runtime = runtime();
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let rules = json!([{"names": ["mkdir"], "action": action}]);
        let output = runtime.run(&profile(Bundle::script("mkdir /x; echo $?"), rules));
        // 128 + SIGSYS, as the shell tells of it.
        assert_eq!(output.ok().text(), "159", "{action}");
    }
}

#[test]
fn log_lets_pass_and_trace_without_a_tracer_is_enosys() {
    let runtime = runtime();
    let rules = json!([
        {"names": ["mkdir"], "action": "SCMP_ACT_LOG"},
        {"names": ["rmdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
    ]);
    let output = runtime.run(&profile(Bundle::script("mkdir /x && echo made; rmdir /x; true"), rules)).ok();
    assert_eq!(output.text(), "made");
    assert!(output.stderr.contains("Function not implemented"), "{}", output.stderr);
}

#[test]
fn a_rule_looks_at_arguments() {
    let runtime = runtime();
    // kill(pid, signal): only this signal is refused.
    let args = json!([{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]);
    let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": args}]);
    let script = "sleep 1000 & kill -USR1 $! || echo refused; kill -TERM $! && echo sent";
    assert_eq!(runtime.run(&profile(Bundle::script(script), rules)).ok().text(), "refused\nsent");
}

#[test]
fn each_operator_compares_as_it_is_named() {
    let runtime = runtime();
    let script = "trap '' 1 10 12 15; for signal in 1 10 12 15; do kill -$signal $$ 2>/dev/null || echo $signal; done";
    for (op, value, two, refused) in [
        ("SCMP_CMP_NE", 10, 0, "1 12 15"),
        ("SCMP_CMP_LT", 12, 0, "1 10"),
        ("SCMP_CMP_LE", 12, 0, "1 10 12"),
        ("SCMP_CMP_EQ", 12, 0, "12"),
        ("SCMP_CMP_GE", 12, 0, "12 15"),
        ("SCMP_CMP_GT", 12, 0, "15"),
        // The mask, and what is left under it: 10 and 15 have this bit.
        ("SCMP_CMP_MASKED_EQ", 2, 2, "10 15"),
    ] {
        let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": args}]);
        let output = runtime.run(&profile(Bundle::script(script), rules));
        assert_eq!(output.lines().join(" "), refused, "{op}: {output}");
    }
}

#[test]
fn the_default_errno_is_the_profiles() {
    let runtime = runtime();
    let bundle = docker(Bundle::script("mount -t tmpfs none /mnt || true"));
    let output = runtime.run(&bundle.set("/linux/seccomp/defaultErrnoRet", json!(39))).ok();
    assert!(output.stderr.contains("Directory not empty"), "{output}");
}

#[test]
fn dockers_profile_runs_a_shell_and_refuses_mount() {
    let runtime = runtime();
    let capabilities = &["CAP_SYS_ADMIN", "CAP_CHOWN"];
    for bundle in with_and_without_new_privileges(|| {
        docker(
            Bundle::script("echo ran; mount -t tmpfs x /tmp || unshare -u true || echo refused")
                .capabilities(capabilities),
        )
    }) {
        let output = runtime.run(&bundle).ok();
        assert_eq!(output.lines(), ["ran", "refused"], "{}", output.stderr);
    }
    let bundle = docker(Bundle::sleeper());
    let container = runtime.container(&bundle);
    container.up();
    assert_eq!(container.shell("grep Seccomp: /proc/self/status"), "Seccomp:\t2");
}

#[test]
fn a_filter_works_in_a_user_namespace() {
    let runtime = runtime();
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    for bundle in with_and_without_new_privileges(|| {
        profile(
            Bundle::script("mkdir /tmp/x; grep Seccomp: /proc/self/status").user_namespace(100_000, 65_536),
            rules.clone(),
        )
    }) {
        let output = runtime.run(&bundle).ok();
        assert_eq!(output.text(), "Seccomp:\t2");
        assert!(output.stderr.contains("Operation not permitted"), "{}", output.stderr);
    }
}

#[test]
fn a_program_that_may_not_be_executed_is_reported() {
    let runtime = runtime();
    let rules = json!([{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]);
    for bundle in with_and_without_new_privileges(|| profile(Bundle::script("echo ran"), rules.clone())) {
        assert_eq!(runtime.run(&bundle).fails(&["ermission denied"]).stdout, "");
    }
}

#[test]
fn a_profile_that_cannot_be_meant_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 looks for the listener first");
    let whole = |seccomp: Value| Bundle::script("echo ran").set("/linux/seccomp", seccomp);
    let notify = json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]);
    let write = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere.sock", "syscalls": notify});
    assert_eq!(runtime.run(&whole(write)).fails(&["write"]).stdout, "");
    let default = whole(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nowhere.sock"}));
    assert_eq!(runtime.run(&default).fails(&["default action"]).stdout, "");
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let absent = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere.sock", "syscalls": notify});
    assert_eq!(runtime.run(&whole(absent)).fails(&["/nowhere.sock"]).stdout, "");
}

/// What a listener was sent: the state, and the descriptor of the notifications.
fn receive(listener: &UnixListener) -> (Value, OwnedFd) {
    let (mut connection, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0; 65536];
    let received =
        recvmsg(&connection, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut text = buffer[..received.bytes].to_vec();
    connection.read_to_end(&mut text).unwrap();
    let mut fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let notifications = fds.next().expect("a descriptor");
    (serde_json::from_slice(&text).unwrap(), notifications)
}

/// Waits for a notification, and leaves it without an answer: the kernel then says ENOSYS to this call and all others.
fn give_up_on_the_first(notifications: OwnedFd) {
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut fds = [PollFd::new(&notifications, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "a notification");
    assert!(fds[0].revents().contains(PollFlags::IN), "{:?}", fds[0].revents());
}

fn notifying(bundle: Bundle, socket: &std::path::Path) -> Bundle {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": socket,
            "listenerMetadata": "of the test", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
    )
}

#[test]
fn a_listener_gets_the_state_and_the_notifications() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 takes no flags", Crun: "1.8.1 fails this");
    for (none, user_namespace) in [(true, false), (false, false), (true, true), (false, true)] {
        let dir = TempDir::new("listener");
        let listener = UnixListener::bind(dir.join("socket")).unwrap();
        let bundle = notifying(Bundle::script("mkdir /tmp/x; echo ran; sleep 1000 & wait"), &dir.join("socket"))
            .set("/process/noNewPrivileges", json!(none))
            .set("/annotations", json!({"of": "test"}));
        let bundle = if user_namespace { bundle.user_namespace(100_000, 65_536) } else { bundle };
        let container = runtime.container(&bundle);
        let agent = std::thread::spawn(move || {
            let (state, notifications) = receive(&listener);
            give_up_on_the_first(notifications);
            (state, listener)
        });
        container.up();
        let (state, listener) = agent.join().unwrap();
        assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
        assert_eq!(state["metadata"], "of the test");
        assert_eq!(state["pid"], container.pid());
        assert_eq!(state["state"]["pid"], container.pid());
        assert_eq!(state["state"]["id"], container.id());
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["bundle"], json!(bundle.path()));
        assert_eq!(state["state"]["annotations"]["of"], "test");
        assert_eq!(state["ociVersion"], "1.3.0");

        // Each process of exec has a filter, and so a descriptor, of its own.
        let agent = std::thread::spawn(move || {
            let (state, notifications) = receive(&listener);
            give_up_on_the_first(notifications);
            state
        });
        let output = container.exec(["mkdir", "/tmp/y"]);
        assert!(!output.success() && output.stderr.contains("Function not implemented"), "{output:?}");
        let state = agent.join().unwrap();
        assert_eq!(state["state"]["status"], "running");
        assert_eq!(state["state"]["pid"], container.pid());
        assert_ne!(state["pid"], container.pid());
    }
}

/// The lookup of the program comes before the filter, at either moment of loading it.
#[test]
fn a_profile_may_refuse_the_calls_that_find_the_program() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 looks at /dev/pts and the program after the filter is loaded");
    let calls = ["stat", "lstat", "newfstatat", "fstatat64", "statx", "access", "faccessat", "faccessat2"];
    let rules = json!([{"names": calls, "action": "SCMP_ACT_ERRNO"}]);
    for bundle in with_and_without_new_privileges(|| profile(Bundle::script("echo found"), rules.clone())) {
        assert_eq!(runtime.run(&bundle).ok().text(), "found");
    }
}
