//! The sockets on which callers want descriptors.

use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, TempDir, known, record_known};

use super::{Caller, PODMAN, SHIM, pid_in, process, write};
use crate::runtime;

#[test]
fn containerds_shim_asks_for_pidfds() {
    let runtime = runtime();
    known!(runtime, Crun: "has no --pidfd-socket");
    if crate::is_old_runc(&runtime) && record_known(runtime.kind(), "1.1.5 has no --pidfd-socket") {
        return;
    }
    let shim = Caller::new(&runtime, SHIM);
    let bundle = Bundle::sleeper();
    bundle.write();
    let (id, dir) = (runtime.id("c"), TempDir::new("shim"));
    let pid_file = dir.join("init.pid");
    let (path, pid_path) = (bundle.path().to_str().unwrap(), pid_file.to_str().unwrap());
    let socket = ConsoleSocket::new();
    shim.quietly(["create", "--bundle", path, "--pid-file", pid_path, "--pidfd-socket", socket.path(), &id]);
    assert_eq!(socket.receive_fd().0, "standard");
    shim.quietly(["start", &id]);
    let exec = write(&dir.join("process.json"), &process(&["sleep", "1234"]));
    let (socket, pid_file) = (ConsoleSocket::new(), dir.join("exec.pid"));
    let head = ["exec", "--process", &exec, "--pidfd-socket", socket.path(), "--detach", "--pid-file"];
    shim.quietly(head.iter().chain(&[pid_file.to_str().unwrap(), id.as_str()]));
    assert_eq!(socket.receive_fd().0, "setns");
    shim.quietly(["delete", "--force", &id]);
}

/// With nothing in the environment but what conmon leaves there.
#[test]
fn conmon_asks_for_terminals() {
    let runtime = runtime();
    let conmon = Caller::new(&runtime, PODMAN);
    let bundle = Bundle::script("tty; sleep 1000").terminal();
    bundle.write();
    let (id, dir) = (runtime.id("c"), TempDir::new("conmon"));
    let pid_file = dir.join("pidfile");
    let pid_path = pid_file.to_str().unwrap();
    let socket = ConsoleSocket::new();
    let head = ["create", "--bundle", bundle.path().to_str().unwrap(), "--pid-file", pid_path];
    let create = conmon.verb(head).args(["--console-socket", socket.path(), &id]);
    conmon.succeeds(create.through_shell("exec env -i PATH=\"$PATH\" XDG_RUNTIME_DIR=/run/user/0 \"$@\""));
    let mut terminal = socket.receive();
    conmon.quietly(["start", &id]);
    terminal.expect("/dev/pts/");
    let mut document = process(&["sh", "-c", "tty; sleep 1000"]);
    document["terminal"] = json!(true);
    let exec = write(&dir.join("exec.json"), &document);
    fs::write(&pid_file, "").unwrap();
    let socket = ConsoleSocket::new();
    let head = ["exec", "--pid-file", pid_path, "--process", &exec, "--detach", "--console-socket"];
    conmon.quietly(head.iter().chain(&[socket.path(), id.as_str()]));
    socket.receive().expect("/dev/pts/");
    assert!(pid_in(&pid_file) > 0);
    conmon.quietly(["delete", "--force", &id]);
}
