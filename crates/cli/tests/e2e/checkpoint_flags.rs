//! The flags of `checkpoint` and `restore` that are CRIU's, each by what it changes.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use tare_testkit::{Bundle, Criu, Pty, TempDir, known, skip, wait_until};

use crate::checkpoint::{COUNTER, Saved, count, pids_cgroup, run, wait_for_count, with_criu};
use crate::runtime;

/// The host's programs in a container.
fn with_usr(bundle: Bundle) -> Bundle {
    // The places themselves: CRIU does not follow a link that runc gives it as a source.
    let place = |path: &str| fs::canonicalize(path).unwrap();
    ["/usr", "/lib", "/lib64"].into_iter().fold(bundle, |bundle, path| bundle.bind(place(path), path, &["rbind", "ro"]))
}

/// Of Linux, as open(2) takes it.
const O_NONBLOCK: i32 = 0o4000;

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A CRIU that serves something. Killed when dropped.
struct Server(Child);

impl Server {
    fn start(criu: &Criu, args: &[&str]) -> Self {
        let mut command = Command::new(criu.program());
        Self(command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_is_in_the_work_path() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let work = runtime.dir().join("work");
    let options = ["--work-path", work.to_str().unwrap()];
    saved.there_and_back(&options, &options);
    for log in ["dump.log", "restore.log"] {
        assert!(work.join(log).exists() && !saved.images.join(log).exists(), "{log}");
    }
}

#[test]
fn images_are_in_checkpoint_below_the_working_directory_by_default() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let dir = TempDir::new("cwd");
    let path = criu.path();
    let at = |verb: &str| {
        container.verb(verb).env("PATH", &path).cwd(dir.path()).through_shell("exec \"$@\" < /dev/null > /dev/null")
    };
    at("checkpoint").arg(container.id()).run().ok();
    assert!(dir.join("checkpoint/inventory.img").exists());
    let bundle = container.bundle().to_str().unwrap();
    at("restore").args(["--detach", "--bundle", bundle, container.id()]).run().ok();
    container.is("running");
}

#[test]
fn file_locks_are_saved_if_wanted() {
    let (runtime, criu) = with_criu!();
    let bundle = with_usr(Bundle::script("exec 9> /lock; /usr/bin/flock 9 && echo > /held; sleep 1000"));
    let container = runtime.container(&bundle);
    run(&container);
    wait_until("it is locked", || container.bundle().join("rootfs/held").exists());
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&["file locks", "criu failed"]);
    saved.there_and_back(&["--file-locks"], &["--file-locks"]);
    assert_eq!(container.exec(["/usr/bin/flock", "--nonblock", "/lock", "true"]).code(), Some(1));
}

#[test]
fn a_file_that_was_renamed_away_is_linked_if_wanted() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 has no --link-remap, and does it always");
    let bundle =
        Bundle::script("echo kept > /a; exec 5< /a; ln /a /b; rm /a; echo > /ready; while :; do sleep 0.1; done");
    let container = runtime.container(&bundle);
    run(&container);
    wait_until("it is ready", || container.bundle().join("rootfs/ready").exists());
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&["link-remap"]);
    saved.there_and_back(&["--link-remap"], &[]);
    assert_eq!(container.shell("cat /proc/1/fd/5"), "kept");
}

#[test]
fn a_connection_that_nobody_has_accepted_is_left_out_if_wanted() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 has no --tcp-skip-in-flight");
    let script = "use Socket; my $to = sockaddr_in(7000, INADDR_LOOPBACK); \
         socket(S, PF_INET, SOCK_STREAM, 0) && bind(S, $to) && listen(S, 5) or die; \
         socket(C, PF_INET, SOCK_STREAM, 0) && connect(C, $to) or die; \
         open(F, q(>), q(/ready)); close(F); while (1) { sleep 1000 }";
    let bundle = with_usr(Bundle::new().args(["/usr/bin/perl", "-e", script]));
    let container = runtime.container(&bundle);
    run(&container);
    wait_until("it is ready", || container.bundle().join("rootfs/ready").exists());
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&["--tcp-established"]).fails(&["in-flight"]);
    saved.there_and_back(&["--tcp-established", "--tcp-skip-in-flight"], &["--tcp-established"]);
    container.is("running");
}

#[test]
fn a_unix_socket_may_lead_outside_if_wanted() {
    let (runtime, criu) = with_criu!();
    let dir = TempDir::new("socket");
    let socket = UnixDatagram::bind(dir.join("log")).unwrap();
    // Under the same path on both sides: that is all CRIU knows of the other end.
    let path = dir.path().to_str().unwrap();
    let script = format!(
        "ln -s {path}/log /dev/log; (echo one; sleep 0.5; echo > /ready; while :; do sleep 0.1; echo two; done) | logger"
    );
    let bundle = Bundle::script(&script).bind(dir.path(), path, &["bind"]).without_namespace("network");
    let container = runtime.container(&bundle);
    run(&container);
    let mut message = [0; 512];
    let length = socket.recv(&mut message).unwrap();
    assert!(message[..length].ends_with(b"one\n") || message[..length].ends_with(b"one"), "{message:?}");
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&["ext-unix-sk", "criu failed"]);
    saved.there_and_back(&["--ext-unix-sk"], &["--ext-unix-sk"]);
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut message).is_ok() {}
    wait_until("it writes on", || socket.recv(&mut message).is_ok());
}

#[test]
fn a_terminal_of_the_caller_is_left_to_the_caller() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 and 1.5.2 do not come back from a restore in the foreground");
    let bundle = Bundle::script("while read line; do echo \"got $line\"; done");
    let container = runtime.container(&bundle);
    let (running, mut terminal) = Pty::new(24, 80).spawn(container.verb("run").arg(container.id()));
    terminal.write("one\n");
    terminal.expect("got one");
    let saved = Saved::new(&runtime, &container, criu);
    saved.checkpoint(&[]).fails(&["criu failed"]);
    container.is("running");
    saved.explain(saved.checkpoint(&["--shell-job"]), "dump.log").ok();
    running.wait().exits(137);
    let restore = container.verb("restore").env("PATH", criu.path()).args(["--image-path", saved.images()]);
    let restore = restore.args(["--shell-job", "--bundle", container.bundle().to_str().unwrap(), container.id()]);
    let (running, mut terminal) = Pty::new(24, 80).spawn(restore);
    container.wait_for("running");
    terminal.write("two\n");
    terminal.expect("got two");
    container.kill("KILL").ok();
    running.wait().exits(137);
}

#[test]
fn a_network_namespace_comes_back_empty_if_wanted() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let up = || container.shell("ip link show lo").contains("UP");
    assert!(up());
    let saved = Saved::new(&runtime, &container, criu);
    saved.there_and_back(&["--empty-ns", "network"], &["--empty-ns", "network"]);
    assert!(!up(), "the loopback device is as in a new namespace");
}

#[test]
fn cgroups_are_treated_as_the_mode_says() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let modes: &[&str] = if runtime.is_tare() { &["soft", "full", "ignore"] } else { &["soft", "full"] };
    for mode in modes {
        let options = ["--manage-cgroups-mode", mode];
        saved.there_and_back(&options, &options);
        assert!(pids_cgroup(&container).ends_with(runtime.cgroup_name(container.id())), "{mode}");
    }
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    if runtime.is_tare() {
        // The cgroup is there already: the runtime makes it before CRIU is asked.
        saved.restore(&["--manage-cgroups-mode", "strict"]).fails(&["existing cgroups"]);
        saved.restore(&["--manage-cgroups-mode", "none"]).fails(&["manage-cgroups-mode"]);
    }
    container.is("none");
}

#[test]
fn labels_of_a_module_that_the_host_does_not_have_are_refused() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 hands the label over as it is");
    if fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|modules| modules.contains("apparmor")) {
        skip!("this host has AppArmor");
    }
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    saved.restore(&["--lsm-profile", "apparmor:some"]).fails(&["apparmor"]);
    container.is("none");
    // No mount has a context that it could take the place of.
    saved.explain(saved.restore(&["--lsm-mount-context", "system_u:object_r:some_t:s0"]), "restore.log").ok();
    container.is("running");
}

#[test]
fn memory_goes_to_a_page_server_if_wanted() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let (port, pages) = (free_port(), runtime.dir().join("pages"));
    fs::create_dir(&pages).unwrap();
    let (number, directory) = (port.to_string(), pages.to_str().unwrap());
    let log = ["--log-file", "server.log", "--address", "127.0.0.1", "--port", &number];
    let mut server = Server::start(criu, &[&["page-server", "--images-dir", directory], log.as_slice()].concat());
    wait_until("it listens", || is_listening(port));
    let address = format!("127.0.0.1:{port}");
    saved.explain(saved.checkpoint(&["--page-server", &address]), "dump.log").ok();
    assert!(server.0.wait().unwrap().success());
    let images = |directory: &std::path::Path| {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("pages-"))
            .collect::<Vec<_>>()
    };
    assert_eq!(images(&saved.images), [""; 0]);
    for entry in fs::read_dir(&pages).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), saved.images.join(entry.file_name())).unwrap();
    }
    let before = count(&container);
    saved.explain(saved.restore(&[]), "restore.log").ok();
    wait_for_count(&container, before);
    for wrong in ["nowhere", "host:port"] {
        saved.checkpoint(&["--page-server", wrong]).fails(&["page-server", "page server", "invalid port"]);
    }
}

fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}"))) && fields.nth(1) == Some(LISTEN)
    })
}

#[test]
fn memory_comes_page_by_page_if_wanted() {
    let (runtime, criu) = with_criu!();
    if let Err(reason) = criu.can("uffd-noncoop") {
        skip!("{reason}");
    }
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let work = runtime.dir().join("work");
    fs::create_dir(&work).unwrap();
    let work = work.to_str().unwrap();
    let _daemon = Server::start(
        criu,
        &["lazy-pages", "--images-dir", saved.images(), "--work-dir", work, "--log-file", "lazy.log"],
    );
    wait_until("the daemon listens", || fs::exists(format!("{work}/lazy-pages.socket")).unwrap());
    let before = count(&container);
    let restored = saved.restore(&["--lazy-pages", "--work-path", work]);
    let log = fs::read_to_string(format!("{work}/restore.log")).unwrap_or_default();
    assert!(restored.success(), "{restored}\n{log}");
    assert!(log.contains("uffd"), "it was asked to");
    wait_for_count(&container, before);
}

#[test]
fn the_status_descriptor_says_when_pages_are_served() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 and 1.5.2: nothing comes through the descriptor");
    if let Err(reason) = criu.can("uffd-noncoop") {
        skip!("{reason}");
    }
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let (port, status) = (free_port(), runtime.dir().join("status"));
    rustix::fs::mknodat(rustix::fs::CWD, &status, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let script = format!("exec 7<> {}; exec \"$@\"", status.display());
    let address = format!("127.0.0.1:{port}");
    let mut reader = fs::OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(&status).unwrap();
    let options = ["--lazy-pages", "--page-server", &address, "--status-fd", "7"];
    let checkpoint = saved.verb("checkpoint").through_shell(&script).args(options).arg(container.id()).spawn();
    let mut byte = [1];
    wait_until("it is ready to serve", || reader.read(&mut byte).is_ok());
    assert_eq!(byte, [0]);
    assert!(is_listening(port));
    // Its customer takes no page and leaves: that ends the session.
    drop(std::net::TcpStream::connect(&address).unwrap());
    checkpoint.wait().ok();
    container.is("none");
}

#[test]
fn memory_is_saved_in_passes_if_wanted() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let dir = runtime.dir();
    let first = dir.join("first");
    for (parent, words) in [("/absolute", "relative"), ("../nowhere", "nowhere")] {
        saved.checkpoint(&["--parent-path", parent]).fails(&[words, "parent path"]);
        container.is("running");
    }
    if let Err(reason) = has_dirty_tracking(criu) {
        let output = saved.checkpoint(&["--pre-dump"]);
        assert!(!output.success(), "{output}");
        container.is("running");
        skip!("{reason}");
    }
    let pre = container.verb("checkpoint").env("PATH", criu.path()).arg("--image-path").arg(&first);
    pre.args(["--pre-dump", container.id()]).run().ok();
    container.is("running");
    assert!(!first.join("tare.json").exists());
    saved.there_and_back(&["--parent-path", "../first", "--auto-dedup"], &["--auto-dedup"]);
    let before = count(&container);
    wait_for_count(&container, before);
}

/// `criu check` says it in a warning.
fn has_dirty_tracking(criu: &Criu) -> Result<(), String> {
    let check = Command::new(criu.program()).args(["check", "--feature", "mem_dirty_track"]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    if check.status.success() && !said.contains("OFF") { Ok(()) } else { Err(said.trim().to_owned()) }
}
