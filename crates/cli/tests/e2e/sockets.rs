//! Descriptors that are handed to a caller or must not reach a container: --pidfd-socket, closed stdio, keyrings.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Signal, pidfd_send_signal};
use tare_testkit::{Bundle, ConsoleSocket, TempDir, known, record_known, wait_until};

use crate::{is_old_runc, runtime};

/// The process that a pidfd is of.
fn pid_of(pidfd: &OwnedFd) -> i32 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd").trim().parse().unwrap()
}

#[test]
fn create_and_run_send_a_pidfd_of_init_before_they_return() {
    let runtime = runtime();
    known!(runtime, Crun: "has no --pidfd-socket");
    if is_old_runc(&runtime) && record_known(runtime.kind(), "1.1.5 has no --pidfd-socket") {
        return;
    }
    let bundle = Bundle::sleeper();
    for verb in [["create"].as_slice(), &["run", "--detach"]] {
        let socket = ConsoleSocket::new();
        let container = runtime.container(&bundle);
        let invocation = container.verb(verb[0]).args(&verb[1..]).args(["--pidfd-socket", socket.path()]);
        invocation.arg(container.id()).run().ok();
        let (name, pidfd) = socket.receive_fd();
        assert_eq!((name.as_str(), pid_of(&pidfd)), ("standard", container.pid()), "{verb:?}");
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        container.wait_for("stopped");
    }
}

#[test]
fn exec_sends_a_pidfd_of_its_process() {
    let runtime = runtime();
    known!(runtime, Crun: "has no --pidfd-socket");
    if is_old_runc(&runtime) && record_known(runtime.kind(), "1.1.5 has no --pidfd-socket") {
        return;
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let socket = ConsoleSocket::new();
    let dir = TempDir::new("pid");
    let file = dir.join("pid");
    let options = ["-d", "--pidfd-socket", socket.path(), "--pid-file", file.to_str().unwrap()];
    container.exec_with(&options, ["sleep", "999"]).ok();
    let (name, pidfd) = socket.receive_fd();
    assert_eq!((name.as_str(), pid_of(&pidfd).to_string()), ("setns", fs::read_to_string(&file).unwrap()));
    pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
    // Whether it is reaped too is the business of the host's process 1.
    wait_until("it is gone", || !container.shell("ps").contains("sleep 999"));
}

#[test]
fn a_pidfd_socket_that_is_not_there_is_an_error_and_nothing_is_left() {
    let runtime = runtime();
    known!(runtime, Crun: "has no --pidfd-socket", Runc: "1.5.2 leaves a container behind");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.call("create", &["--pidfd-socket", "/no/such/socket"]).fails(&["no such file or directory"]);
    assert_eq!(container.status(), "none");
    container.up();
    let exec = container.exec_with(&["--pidfd-socket", "/no/such/socket"], ["true"]);
    exec.fails(&["no such file or directory"]).exits(255);
}

/// A descriptor that is opened by the runtime must not become the program's standard input or output.
#[test]
fn stdio_that_was_closed_is_null_and_nothing_else() {
    let runtime = runtime();
    known!(
        runtime,
        Runc: "puts pipes between, and so no closed descriptor through",
        Crun: "1.8.1: fchown std stream 0: Bad file descriptor"
    );
    let bundle =
        Bundle::script("for n in 0 1 2; do readlink /proc/$$/fd/$n; done > /links; ls /proc/$$/fd > /open; true");
    // A refusal would not be seen below.
    runtime.run(&bundle).ok();
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"] {
        let container = runtime.container(&bundle);
        let script = format!("exec \"$@\" </dev/null >/dev/null 2>/dev/null {closed}");
        container.verb("run").arg(container.id()).through_shell(&script).run().ok();
        let read = |name: &str| fs::read_to_string(bundle.rootfs().join(name)).unwrap();
        assert_eq!(
            read("links").lines().filter(|link| *link != "/links").collect::<Vec<_>>(),
            ["/dev/null"; 2],
            "{closed}"
        );
        // The shell keeps copies of its own from 10 on.
        let open = read("open");
        assert_eq!(open.lines().filter(|number| number.len() == 1).collect::<Vec<_>>(), ["0", "1", "2"], "{closed}");
    }
}

#[test]
fn a_container_has_a_session_keyring_of_its_own_unless_told_not_to() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /proc/self/status >/dev/null; cat /proc/keys; true")
        .set("/linux/maskedPaths", serde_json::json!([]));
    let own = runtime.container(&bundle);
    let output = own.run().ok();
    if output.text().is_empty() {
        tare_testkit::skip!("this kernel shows no keys");
    }
    assert!(output.stdout.contains(own.id()), "{output}");
    let callers = runtime.container(&bundle);
    let output = callers.call("run", &["--no-new-keyring"]).ok();
    assert!(!output.stdout.contains(callers.id()), "{output}");

    let bundle = Bundle::script("cat /proc/keys > /keys").set("/linux/maskedPaths", serde_json::json!([]));
    for (flags, is_own) in [([].as_slice(), true), (&["--no-new-keyring"], false)] {
        let container = runtime.container(&bundle);
        container.call("create", flags).ok();
        container.start().ok();
        container.wait_for("stopped");
        let keys = fs::read_to_string(bundle.rootfs().join("keys")).unwrap();
        assert_eq!(keys.contains(container.id()), is_own, "{flags:?}: {keys}");
    }
}

/// Its owner, or in a user namespace anyone, may search it (`KEY_USR_SEARCH`, `KEY_OTH_SEARCH`): so an exec finds the one that
/// init has, and does not make another.
#[test]
fn an_exec_has_the_session_keyring_of_its_container() {
    let runtime = runtime();
    known!(runtime, Crun: "an exec has one of its own");
    let bundle = || {
        Bundle::script("cat /proc/keys > /run/some && mv /run/some /run/keys; exec sleep 1000")
            .mount(serde_json::json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"}))
            .set("/linux/maskedPaths", serde_json::json!([]))
    };
    for bundle in [bundle(), bundle().user_namespace(100_000, 65_536)] {
        let container = runtime.container(&bundle);
        container.up();
        let script = "while [ ! -e /run/keys ]; do sleep 0.01; done; cat /run/keys; echo; cat /proc/keys";
        let output = container.exec(["sh", "-c", script]).ok();
        let (of_init, of_exec) = output.stdout.split_once("\n\n").unwrap();
        // The serial number, and the permissions: `1a2b3c4d I--Q---     3 perm 3f1b0000 ...`.
        let ring = |keys: &str| {
            let mut fields = keys.lines().find(|line| line.contains(container.id()))?.split_whitespace();
            let serial = fields.next()?.to_owned();
            Some((serial, u32::from_str_radix(fields.skip_while(|field| *field != "perm").nth(1)?, 16).ok()?))
        };
        let Some((serial, permissions)) = ring(of_init) else { tare_testkit::skip!("this kernel shows no keys") };
        assert!(permissions & 0x0008_0008 != 0, "{permissions:08x}");
        assert_eq!(ring(of_exec), Some((serial, permissions)));
        known!(runtime, Runc: "in a user namespace an exec has one of its own");
    }
}

/// CVE-2024-21626 began with a descriptor that nobody meant to pass on.
#[test]
fn hooks_and_programs_have_no_descriptor_of_the_caller() {
    let runtime = runtime();
    known!(runtime, Runc: "delete hands them to poststop hooks");
    let dir = TempDir::new("hook");
    let script = |name: &str| format!("ls /proc/$$/fd >> {}", dir.join(name).to_str().unwrap());
    let bundle = Bundle::script("ls /proc/$$/fd; true")
        .hook_script("createRuntime", &script("create"))
        .hook_script("poststart", &script("poststart"))
        .hook_script("poststop", &script("poststop"));
    let container = runtime.container(&bundle);
    let leaky = |invocation: tare_testkit::Invocation| invocation.through_shell("exec \"$@\" 8</etc/hostname 9</");
    let output = leaky(container.verb("run").arg(container.id())).run().ok();
    assert_eq!(output.lines(), ["0", "1", "2"]);
    leaky(container.verb("create").arg(container.id())).run().ok();
    leaky(container.verb("start").arg(container.id())).run().ok();
    container.wait_for("stopped");
    leaky(container.verb("delete").arg(container.id())).run().ok();
    for name in ["create", "poststart", "poststop"] {
        let open = fs::read_to_string(dir.join(name)).unwrap();
        let theirs: Vec<&str> = open.lines().filter(|number| ["8", "9"].contains(number)).collect();
        assert!(theirs.is_empty(), "{name}: {open}");
    }
}
