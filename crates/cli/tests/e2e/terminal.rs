//! Terminals: over a console socket, and in the foreground.

use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, Pty, known, wait_until};

use crate::runtime;

#[test]
fn the_console_socket_receives_the_pty() {
    let runtime = runtime();
    let bundle = Bundle::script("read line; echo \"got $line\"").terminal();
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("create", &["--console-socket", socket.path()]).ok();
    let mut terminal = socket.receive();
    container.start().ok();
    terminal.write("typed\n");
    terminal.expect("got typed");
    container.wait_for("stopped");
}

#[test]
fn the_terminal_is_dev_pts_0_and_dev_console() {
    let runtime = runtime();
    let script = "tty; stat -c '%t:%T' /dev/console /dev/pts/0; for n in 0 1 2; do readlink /proc/$$/fd/$n; done; \
         cut -d' ' -f7 /proc/1/stat; echo x > /dev/tty && echo controls; echo done";
    let bundle = Bundle::script(script).terminal();
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("run", &["--detach", "--console-socket", socket.path()]).ok();
    let output = socket.receive().expect("done\r\n");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "/dev/pts/0");
    assert_eq!(lines[1], lines[2], "/dev/console is this terminal");
    assert_eq!(lines[3..6], ["/dev/pts/0"; 3]);
    assert_ne!(lines[6], "0", "the controlling terminal");
    assert_eq!(lines[8], "controls");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let runtime = runtime();
    let bundle = Bundle::script(
        "stat -c '%u %a' /dev/pts/0; echo written > /dev/pts/0; \
             echo done",
    )
    .terminal()
    .user(1000, 1000);
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("run", &["--detach", "--console-socket", socket.path()]).ok();
    let output = socket.receive().expect("done\r\n");
    assert!(output.starts_with("1000 620\r\nwritten\r\n"), "{output}");
}

#[test]
fn the_terminal_has_the_configs_size() {
    let runtime = runtime();
    let bundle = Bundle::script("stty size; echo done")
        .terminal()
        .set("/process/consoleSize", json!({"height": 41, "width": 123}));
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("create", &["--console-socket", socket.path()]).ok();
    let mut terminal = socket.receive();
    assert_eq!(terminal.size(), (41, 123));
    container.start().ok();
    assert_eq!(terminal.expect("done\r\n"), "41 123\r\ndone\r\n");
}

#[test]
fn a_resize_by_the_sockets_owner_reaches_the_process() {
    let runtime = runtime();
    let bundle = Bundle::script("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done").terminal();
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("run", &["--detach", "--console-socket", socket.path()]).ok();
    let mut terminal = socket.receive();
    terminal.expect("ready");
    terminal.resize(22, 99);
    terminal.expect("22 99");
}

#[test]
fn a_detached_terminal_without_a_socket_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().terminal();
    let container = runtime.container(&bundle);
    container.create().fails(&["console socket", "console-socket"]);
    container.is("none");
    container.run_detached().fails(&["console socket", "console-socket"]);
    container.is("none");
}

#[test]
fn a_socket_without_a_terminal_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 does not look");
    let bundle = Bundle::sleeper();
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    container.call("create", &["--console-socket", socket.path()]).fails(&["console socket", "console-socket"]);
    container.is("none");
}

#[test]
fn a_console_socket_that_is_not_there_is_refused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().terminal();
    let container = runtime.container(&bundle);
    container.call("create", &["--console-socket", "/nonexistent/socket"]).fails(&[]);
    container.is("none");
}

#[test]
fn without_a_terminal_there_is_none() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("tty; ls /dev/console; cut -d' ' -f7 /proc/1/stat; true")).ok();
    assert_eq!(output.lines(), ["not a tty", "0"]);
}

#[test]
fn a_foreground_run_passes_the_terminal_through() {
    let runtime = runtime();
    let bundle = Bundle::script("tty; stty size; echo ready; read line; echo \"got $line\"; exit 7").terminal();
    let container = runtime.container(&bundle);
    let (running, mut terminal) = Pty::new(33, 77).spawn(container.verb("run").arg(container.id()));
    let before = terminal.expect("ready");
    assert!(before.contains("/dev/pts/0\r\n"), "{before:?}");
    terminal.write("typed\n");
    let after = terminal.expect("got typed");
    assert_eq!(after.matches("typed").count(), 2, "the inner terminal echoes, the outer one does not: {after:?}");
    running.wait().exits(7);
}

#[test]
fn a_foreground_run_takes_the_size_of_its_terminal() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 sets no size before the first SIGWINCH");
    let bundle = Bundle::script("trap 'stty size' WINCH; while :; do stty size; sleep 0.05; done").terminal();
    let container = runtime.container(&bundle);
    let (_running, mut terminal) = Pty::new(33, 77).spawn(container.verb("run").arg(container.id()));
    terminal.expect("33 77");
    terminal.resize(44, 88);
    terminal.expect("44 88");
    container.delete_force().ok();
}

#[test]
fn a_foreground_run_makes_its_terminal_raw_and_restores_it() {
    let runtime = runtime();
    let bundle = Bundle::script("echo ready; read line").terminal();
    let container = runtime.container(&bundle);
    let pty = Pty::new(24, 80);
    let other_side = pty.slave().try_clone().unwrap();
    let before = pty.terminal.modes();
    assert_eq!(before, (true, true));
    let (running, mut terminal) = pty.spawn(container.verb("run").arg(container.id()));
    terminal.expect("ready");
    assert_eq!(terminal.modes(), (false, false), "echo and canonical mode");
    terminal.write("\n");
    running.wait().ok();
    assert_eq!(terminal.modes(), before);
    drop(other_side);
}

#[test]
fn control_c_reaches_the_process_inside() {
    let runtime = runtime();
    let bundle =
        Bundle::script("trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done").terminal();
    let container = runtime.container(&bundle);
    let (running, mut terminal) = Pty::new(24, 80).spawn(container.verb("run").arg(container.id()));
    terminal.expect("ready");
    terminal.write("\x03");
    terminal.expect("interrupted");
    running.wait().exits(9);
}

#[test]
fn all_output_arrives_before_a_foreground_run_ends() {
    let runtime = runtime();
    let bundle =
        Bundle::script("i=0; while [ $i -lt 2000 ]; do echo \"line $i\"; i=$((i+1)); done; echo the-end").terminal();
    let container = runtime.container(&bundle);
    let (running, mut terminal) = Pty::new(24, 80).spawn(container.verb("run").arg(container.id()));
    let output = terminal.expect("the-end");
    assert_eq!(output.matches("line ").count(), 2000);
    running.wait().ok();
}

#[test]
fn exec_with_a_tty_and_a_console_socket() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let socket = ConsoleSocket::new();
    let exec = container
        .verb("exec")
        .args(["--tty", "--detach", "--console-socket", socket.path(), container.id()])
        .args(["sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo \"got $x\""]);
    exec.run().ok();
    let mut terminal = socket.receive();
    terminal.expect("/dev/pts/");
    terminal.expect("all");
    terminal.write("typed\n");
    terminal.expect("got typed");
}

#[test]
fn a_foreground_exec_with_a_tty() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let command = container.verb("exec").args(["-t", container.id(), "sh", "-c", "tty; echo ready; read x; exit 6"]);
    let (running, mut terminal) = Pty::new(30, 70).spawn(command);
    terminal.expect("/dev/pts/");
    terminal.expect("ready");
    terminal.write("\n");
    running.wait().exits(6);
    wait_until("the exec is gone", || !container.shell("ps").contains("read x"));
}
