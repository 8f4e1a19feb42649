//! What a service manager says in the environment: sockets to listen on, and where to say that one is ready.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tare_testkit::{Bundle, Container, Criu, Kind, TempDir, deadline, known, skip, wait_until};

use crate::checkpoint::{Saved, with_criu};
use crate::{is_old_runc, runtime};

/// A service manager's end of NOTIFY_SOCKET.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new("notify");
        let socket = UnixDatagram::bind(dir.join("manager")).unwrap();
        socket.set_read_timeout(Some(deadline())).unwrap();
        Self { dir, socket }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("manager")
    }

    /// The next message, and the descriptor that came with it.
    fn receive(&self) -> (String, Option<OwnedFd>) {
        let mut text = [0; 4096];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [std::io::IoSliceMut::new(&mut text)];
        let length = recvmsg(&self.socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let mut fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        (String::from_utf8(text[..length].to_vec()).unwrap(), fd)
    }

    fn is_silent(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let silent = self.socket.recv(&mut [0; 64]).is_err();
        self.socket.set_read_timeout(Some(deadline())).unwrap();
        silent
    }
}

/// The container's socket, as its init sees it.
fn inside(container: &Container<'_>) -> PathBuf {
    Path::new("/proc").join(container.pid().to_string()).join("root/run/notify/notify.sock")
}

/// Says it in the container's place, whose busybox has no client for such sockets.
fn say(container: &Container<'_>, message: &str) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(message.as_bytes(), inside(container)).unwrap();
}

#[test]
fn start_waits_until_the_container_is_ready_and_tells_its_main_process() {
    let runtime = runtime();
    known!(runtime, Crun: "another socket and other messages");
    let manager = Manager::new();
    let bundle =
        Bundle::script("echo $NOTIFY_SOCKET; test -S $NOTIFY_SOCKET && echo there; exec sleep 1000").user(1000, 1000);
    let container = runtime.container(&bundle);
    let create = container.verb("create").env("NOTIFY_SOCKET", manager.path()).arg(container.id()).spawn();
    wait_until("it is created", || container.status() == "created");
    let pid = container.pid();
    let starting = container.verb("start").env("NOTIFY_SOCKET", manager.path()).arg(container.id()).spawn();
    wait_until("the program looks", || create.stdout_so_far().ends_with("there\n"));
    assert_eq!(create.stdout_so_far(), "/run/notify/notify.sock\nthere\n");
    create.wait().ok();
    // Others are not kept waiting, and what is not READY is not passed on.
    container.wait_for("running");
    say(&container, "STATUS=busy");
    say(&container, "STOPPING=1\nMAINPID=1");
    assert!(manager.is_silent());
    say(&container, "READY=1");
    assert_eq!(manager.receive().0, "READY=1\n");
    assert_eq!(manager.receive().0, format!("MAINPID={pid}\n"));
    if !is_old_runc(&runtime) {
        let (barrier, closed) = manager.receive();
        assert_eq!(barrier, "BARRIER=1");
        assert!(fs::read_link(format!("/proc/{}/exe", starting.pid())).is_ok(), "it waits for the barrier");
        drop(closed.expect("a descriptor to close"));
    }
    starting.wait().ok();
    container.delete_force().ok();
}

#[test]
fn a_detached_run_waits_until_the_container_is_ready() {
    let runtime = runtime();
    known!(runtime, Crun: "another socket and other messages");
    let manager = Manager::new();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let run = container.verb("run").env("NOTIFY_SOCKET", manager.path()).args(["-d", container.id()]).spawn();
    wait_until("it runs", || container.status() == "running");
    say(&container, "READY=1\nSTATUS=up");
    assert_eq!(manager.receive().0, "READY=1\n");
    assert_eq!(manager.receive().0, format!("MAINPID={}\n", container.pid()));
    if !is_old_runc(&runtime) {
        drop(manager.receive());
    }
    run.wait().ok();
    container.is("running");
}

#[test]
fn a_start_ends_when_the_container_does_without_being_ready() {
    let runtime = runtime();
    known!(runtime, Crun: "another socket and other messages");
    let manager = Manager::new();
    let bundle = Bundle::script("exit 3");
    let container = runtime.container(&bundle);
    container.verb("create").env("NOTIFY_SOCKET", manager.path()).arg(container.id()).run().ok();
    container.verb("start").env("NOTIFY_SOCKET", manager.path()).arg(container.id()).run().ok();
    assert!(manager.is_silent());
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn a_foreground_run_is_itself_the_main_process() {
    let runtime = runtime();
    known!(
        runtime,
        Runc: "forwards no signal and reaps nothing until the container is ready",
        Crun: "another socket and other messages"
    );
    let manager = Manager::new();
    let bundle = Bundle::script("trap 'exit 5' TERM; echo set; sleep 1000 & wait");
    let container = runtime.container(&bundle);
    let run = container.verb("run").env("NOTIFY_SOCKET", manager.path()).arg(container.id()).spawn();
    wait_until("the trap is set", || run.stdout_so_far() == "set\n");
    say(&container, "READY=1");
    assert_eq!(manager.receive().0, "READY=1\n");
    assert_eq!(manager.receive().0, format!("MAINPID={}\n", run.pid()));
    run.signal(rustix::process::Signal::TERM);
    run.wait().exits(5);
}

#[test]
fn a_service_manager_that_is_not_there_is_an_error_before_the_program_runs() {
    let runtime = runtime();
    known!(runtime, Runc: "looks when the program runs", Crun: "does not look");
    let bundle = Bundle::script("echo ran");
    let container = runtime.container(&bundle);
    let run = container.verb("run").env("NOTIFY_SOCKET", "/no/such/socket").arg(container.id()).run();
    assert_eq!(run.fails(&["NOTIFY_SOCKET"]).stdout, "");
    assert_eq!(container.status(), "none");
}

#[test]
fn the_socket_of_a_long_name_works() {
    let runtime = runtime();
    known!(runtime, Runc: "binds by a path of more than 107 bytes", Crun: "another socket");
    let manager = Manager::new();
    let bundle = Bundle::sleeper();
    let container = Container::new(&runtime, &bundle, format!("{}-{}", runtime.tag(), "x".repeat(120)));
    let run = container.verb("run").env("NOTIFY_SOCKET", manager.path()).args(["-d", container.id()]).spawn();
    wait_until("it runs", || container.status() == "running");
    say(&container, "READY=1");
    assert_eq!(manager.receive().0, "READY=1\n");
    manager.receive();
    drop(manager.receive());
    run.wait().ok();
}

#[test]
fn sockets_to_listen_on_are_passed_and_announced() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 sets LISTEN_PID alone");
    let bundle = Bundle::script("echo $LISTEN_PID $LISTEN_FDS; ls /proc/self/fd | wc -l; cat <&3; cat <&4; cat <&5")
        .env("LISTEN_FDS=9")
        .file("x", "");
    let dir = TempDir::new("fds");
    for name in ["a", "b", "c", "d"] {
        fs::write(dir.join(name), format!("{name}\n")).unwrap();
    }
    let script = "export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\" 3<a 4<b 5<c 6<d";
    let container = runtime.container(&bundle);
    let run = container.verb("run").args(["--preserve-fds", "1", container.id()]).through_shell(script);
    let output = run.cwd(dir.path()).run().ok();
    // 0, 1, 2, three of ours, and the directory that ls reads.
    assert_eq!(output.lines(), ["1 2", "7", "a", "b", "c"]);
}

#[test]
fn sockets_for_another_process_are_not_passed() {
    let runtime = runtime();
    known!(runtime, Crun: "does not look at LISTEN_PID");
    let bundle = Bundle::script("echo ${LISTEN_PID-unset} ${LISTEN_FDS-unset}; ls /proc/self/fd | wc -l");
    for script in [
        "export LISTEN_PID=1 LISTEN_FDS=1; exec \"$@\" 3</etc/hostname",
        "export LISTEN_FDS=1; exec \"$@\" 3</etc/hostname",
        "export LISTEN_PID=$$; exec \"$@\" 3</etc/hostname",
    ] {
        let container = runtime.container(&bundle);
        let output = container.verb("run").arg(container.id()).through_shell(script).run().ok();
        assert_eq!(output.lines(), ["unset unset", "4"], "{script}");
    }
}

#[test]
fn a_socket_to_listen_on_that_is_not_open_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "does not look", Runc: "1.1.5 passes what is not there");
    let bundle = Bundle::script("echo ran");
    let container = runtime.container(&bundle);
    let script = "export LISTEN_PID=$$ LISTEN_FDS=3; exec \"$@\" 3</etc/hostname";
    let output = container.verb("run").arg(container.id()).through_shell(script).run().fails(&["LISTEN_FDS"]);
    assert_eq!(output.stdout, "");
    assert_eq!(runtime.kind(), Kind::Tare);
}

/// runc 1.1.5 mounts the directory, without a socket in it.
#[test]
fn a_restored_container_has_its_socket_again() {
    let (runtime, criu) = with_criu!();
    let manager = Manager::new();
    let bundle = Bundle::script("trap 'exit 5' TERM; while :; do sleep 0.1; done");
    let container = runtime.container(&bundle);
    let create = container.verb("create").env("NOTIFY_SOCKET", manager.path());
    create.through_shell("exec \"$@\" < /dev/null > /dev/null 2> /dev/null").arg(container.id()).run().ok();
    container.start().ok();
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let restore = saved.restoring(&[]).env("NOTIFY_SOCKET", manager.path()).spawn();
    wait_until("it runs", || container.status() == "running");
    assert_eq!(container.shell("grep -c ' /run/notify ro' /proc/self/mountinfo"), "1");
    if runtime.is_tare() {
        say(&container, "READY=1");
        assert_eq!(manager.receive().0, "READY=1\n");
        assert_eq!(manager.receive().0, format!("MAINPID={}\n", restore.pid()));
    }
    restore.signal(rustix::process::Signal::TERM);
    restore.wait().exits(5);
    // The service that has saved it need not be the one that brings it back.
    container.is("none");
    if runtime.is_tare() {
        saved.explain(saved.restore(&[]), "restore.log").ok();
        assert_eq!(container.shell("ls /run/notify"), "");
    }
}
