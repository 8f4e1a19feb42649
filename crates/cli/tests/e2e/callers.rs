//! The programs that drive a runtime, replayed: the command lines that containerd's shim (through go-runc), conmon with
//! podman, CRI-O and Docker run, in their order, and what each makes of the answers.
//!
//! What is expected is written down, not compared at run time: `TARE_UNDER_TEST=runc` proves that runc does the same.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tare_testkit::{
    Bundle, ConsoleSocket, Invocation, Kind, Output, Runtime, TempDir, known, record_known, skip, wait_until,
};

use crate::runtime;

mod library;
mod socket;
mod systemd;
mod verdict;

use verdict::{containerd, crio, last_error, podman};

/// What a caller runs before the verb, with a log of its own for each command.
struct Caller<'a> {
    runtime: &'a Runtime,
    globals: Vec<String>,
    dir: TempDir,
}

impl<'a> Caller<'a> {
    fn new(runtime: &'a Runtime, globals: &[&str]) -> Self {
        let dir = TempDir::new("caller");
        let root = runtime.root();
        let fill = |word: &&str| {
            word.replace("ROOT", root.to_str().unwrap()).replace("LOG", dir.join("log.json").to_str().unwrap())
        };
        Self { runtime, globals: globals.iter().map(fill).collect(), dir }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log.json")
    }

    fn verb<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Invocation {
        let _earlier = fs::remove_file(self.log());
        self.runtime.bare().args(&self.globals).args(args)
    }

    /// Runs a command that is to succeed: nothing on stderr, nothing in the log.
    #[track_caller]
    fn does<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.succeeds(self.verb(args))
    }

    #[track_caller]
    fn succeeds(&self, invocation: Invocation) -> Output {
        let output = invocation.run().ok();
        assert_eq!(output.stderr, "", "{output}");
        assert_eq!(fs::read_to_string(self.log()).unwrap_or_default(), "", "the log of {output}");
        output
    }

    /// As [`Self::does`], and nothing on stdout.
    #[track_caller]
    fn quietly<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) {
        let output = self.does(args);
        assert_eq!(output.stdout, "", "{output}");
    }

    /// Runs a command that is to fail, with the log that it leaves.
    #[track_caller]
    fn fails<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let output = self.verb(args).run().fails(&[]);
        assert_eq!(output.stdout, "", "{output}");
        output
    }
}

const SHIM: &[&str] = &["--root", "ROOT", "--log", "LOG", "--log-format", "json"];

fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin:/usr/bin"], "terminal": false})
}

fn write(path: &Path, value: &Value) -> String {
    fs::write(path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// strconv.Atoi, atoi(3): a number and nothing else.
fn pid_in(file: &Path) -> i32 {
    fs::read_to_string(file).unwrap().parse().unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

#[test]
fn containerds_shim_has_a_container_live_and_die() {
    let runtime = runtime();
    known!(runtime, Crun: "ps has no options, pause and delete differ");
    live_by_shim(&Caller::new(&runtime, SHIM), &Bundle::sleeper(), &runtime.id("c"));
}

fn live_by_shim(shim: &Caller<'_>, bundle: &Bundle, id: &str) {
    bundle.write();
    let (path, dir) = (bundle.path().to_str().unwrap(), TempDir::new("shim"));
    let pid_file = dir.join("init.pid");
    shim.quietly(["create", "--bundle", path, "--pid-file", pid_file.to_str().unwrap(), id]);
    let init = pid_in(&pid_file);
    shim.quietly(["start", id]);

    let exec = write(&dir.join("process.json"), &process(&["sleep", "1234"]));
    let exec_pid = dir.join("exec.pid");
    let line = ["exec", "--process", &exec, "--detach", "--pid-file", exec_pid.to_str().unwrap(), id];
    shim.quietly(line);
    let list = shim.does(["ps", "--format", "json", id]).json();
    for pid in [init, pid_in(&exec_pid)] {
        assert!(list.as_array().unwrap().contains(&json!(pid)), "{pid} in {list}");
    }
    let table = shim.does(["ps", "--format", "table", id, "-o", "pid,cmd"]);
    assert_eq!(table.lines()[0].split_whitespace().collect::<Vec<_>>(), ["PID", "CMD"]);
    assert_eq!(table.lines().len() - 1, list.as_array().unwrap().len(), "{table}");

    shim.quietly(["pause", id]);
    assert_eq!(shim.does(["state", id]).json()["status"], "paused");
    shim.quietly(["resume", id]);
    let resources = json!({"pids": {"limit": 77}}).to_string();
    let update = shim.succeeds(shim.verb(["update", "--resources=-", id]).stdin(resources));
    assert_eq!(update.stdout, "");
    let state = shim.does(["state", id]).json();
    assert_eq!((&state["id"], &state["pid"], &state["status"]), (&json!(id), &json!(init), &json!("running")));
    assert_eq!(state["bundle"], path);
    let listed = shim.does(["list", "--format=json"]).json();
    assert_eq!((&listed[0]["id"], &listed[0]["pid"]), (&json!(id), &json!(init)));

    shim.quietly(["kill", id, "9"]);
    wait_until("it is dead", || shim.verb(["state", id]).run().ok().json()["status"] == "stopped");
    assert_eq!(containerd(&shim.fails(["kill", id, "15"])), "process already finished");
    shim.quietly(["kill", "--all", id, "9"]);
    shim.quietly(["delete", id]);
    assert_eq!(containerd(&shim.fails(["delete", id])), "no such container");
    shim.quietly(["delete", "--force", id]);
    assert_eq!(containerd(&shim.fails(["kill", id, "9"])), "no such container");
}

#[test]
fn containerds_shim_creates_with_all_its_flags() {
    let runtime = runtime();
    known!(runtime, Crun: "another log");
    for extra in [
        ["--no-pivot"].as_slice(),
        &["--no-new-keyring"],
        &["--preserve-fds", "0"],
        &["--no-pivot", "--no-new-keyring", "--preserve-fds", "0"],
    ] {
        let shim = Caller::new(&runtime, &[SHIM, &["--rootless=false"]].concat());
        let bundle = Bundle::new();
        bundle.write();
        let id = runtime.id("c");
        let head = ["create", "--bundle", bundle.path().to_str().unwrap()];
        shim.quietly(head.iter().chain(extra).chain(&[id.as_str()]));
        shim.quietly(["start", &id]);
        wait_until("it is done", || shim.verb(["state", &id]).run().ok().json()["status"] == "stopped");
        shim.quietly(["delete", &id]);
    }
}

#[test]
fn containerds_shim_has_terminals() {
    let runtime = runtime();
    known!(runtime, Crun: "another log");
    let shim = Caller::new(&runtime, SHIM);
    let bundle = Bundle::script("tty; read x; echo \"got $x\"; sleep 1000").terminal();
    bundle.write();
    let (id, socket) = (runtime.id("c"), ConsoleSocket::new());
    shim.quietly(["create", "--bundle", bundle.path().to_str().unwrap(), "--console-socket", socket.path(), &id]);
    let mut terminal = socket.receive();
    shim.quietly(["start", &id]);
    terminal.expect("/dev/pts/");
    terminal.write("word\n");
    terminal.expect("got word");
    let (dir, socket) = (TempDir::new("shim"), ConsoleSocket::new());
    let mut document = process(&["sh", "-c", "tty; sleep 1000"]);
    document["terminal"] = json!(true);
    let file = write(&dir.join("process.json"), &document);
    shim.quietly(["exec", "--process", &file, "--console-socket", socket.path(), "--detach", &id]);
    socket.receive().expect("/dev/pts/");
    shim.quietly(["delete", "--force", &id]);
}

#[test]
fn containerd_asks_what_the_runtime_can_do() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no features");
    if crate::is_old_runc(&runtime) && record_known(runtime.kind(), "1.1.5 has less") {
        return;
    }
    let features = runtime.bare().arg("features").run().ok().json();
    for pointer in
        ["/ociVersionMin", "/ociVersionMax", "/hooks", "/mountOptions", "/linux/namespaces", "/linux/cgroup/v2"]
    {
        assert!(features.pointer(pointer).is_some(), "{pointer}: {features}");
    }
}

/// go-runc and Docker: lines of `--version`.
#[test]
fn the_version_is_read_by_its_lines() {
    let runtime = runtime();
    let output = runtime.bare().arg("--version").run().ok();
    let first = output.lines()[0].split_whitespace().collect::<Vec<_>>();
    assert_eq!((first.len(), first[1]), (3, "version"), "{output}");
    // runc without a commit has no such line.
    if runtime.kind() != Kind::Runc {
        assert!(output.lines().iter().any(|line| line.starts_with("commit: ")), "{output}");
    }
    let spec = output.lines().into_iter().find_map(|line| line.strip_prefix("spec: ").map(str::to_owned)).unwrap();
    assert_eq!(spec.split('.').count(), 3, "{output}");
}

#[test]
fn conmon_and_podman_have_a_container_live_and_die() {
    let runtime = runtime();
    let podman = Caller::new(&runtime, PODMAN);
    live_by_podman(&podman, &podman, &Bundle::sleeper(), &runtime.id("c"));
}

/// conmon has no globals but what podman gives it as runtime arguments, and for create its own `--systemd-cgroup`.
const PODMAN: &[&str] = &["--root=ROOT", "--log-format=json", "--log", "LOG"];

fn live_by_podman(conmon: &Caller<'_>, podman: &Caller<'_>, bundle: &Bundle, id: &str) {
    bundle.write();
    let (path, dir) = (bundle.path().to_str().unwrap(), TempDir::new("podman"));
    let pid_file = dir.join("pidfile");
    fs::write(&pid_file, "").unwrap();
    conmon.quietly(["create", "--bundle", path, "--pid-file", pid_file.to_str().unwrap(), id]);
    assert!(pid_in(&pid_file) > 0);
    podman.quietly(["start", id]);
    let exec = write(&dir.join("exec.json"), &process(&["sleep", "1234"]));
    let exec_pid = dir.join("exec.pid");
    podman.quietly(["exec", "--pid-file", exec_pid.to_str().unwrap(), "--process", &exec, "--detach", id]);
    assert!(pid_in(&exec_pid) > 0);
    podman.quietly(["pause", id]);
    podman.quietly(["resume", id]);
    let resources = write(&dir.join("resources.json"), &json!({"pids": {"limit": 50}}));
    podman.quietly(["update", &format!("--resources={resources}"), id]);
    podman.quietly(["kill", id, "9"]);
    wait_until("it is dead", || podman.verb(["state", id]).run().ok().json()["status"] == "stopped");
    podman.quietly(["kill", "--all", id, "9"]);
    podman.quietly(["delete", "--force", id]);
    podman.quietly(["delete", "--force", id]);
}

#[test]
fn conmon_restarts_over_an_old_pid_file_and_passes_descriptors() {
    let runtime = runtime();
    let bundle = Bundle::script("cat <&3 > /got");
    bundle.write();
    let conmon = Caller::new(&runtime, &["--root", "ROOT"]);
    let dir = TempDir::new("conmon");
    fs::write(dir.join("data"), "through\n").unwrap();
    let pid_file = dir.join("pidfile");
    fs::write(&pid_file, "a leftover that is longer than any pid").unwrap();
    let id = runtime.id("c");
    let line = ["create", "--bundle", bundle.path().to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
    let create = conmon.verb(line).args(["--no-pivot", "--no-new-keyring", "--preserve-fds", "1", &id]);
    create.through_shell("exec \"$@\" 3<data").cwd(dir.path()).run().ok();
    assert!(pid_in(&pid_file) > 0);
    conmon.verb(["start", &id]).run().ok();
    wait_until("it is done", || conmon.verb(["state", &id]).run().ok().json()["status"] == "stopped");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("got")).unwrap(), "through\n");
    conmon.verb(["delete", "--force", &id]).run().ok();
}

#[test]
fn crio_has_a_container_live_and_die() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1: another text of kill");
    live_by_crio(&Caller::new(&runtime, &["--root", "ROOT"]), &Bundle::sleeper(), &runtime.id("c"));
}

fn live_by_crio(crio_runs: &Caller<'_>, bundle: &Bundle, id: &str) {
    bundle.write();
    let (path, dir) = (bundle.path().to_str().unwrap(), TempDir::new("crio"));
    let pid_file = dir.join("pidfile");
    crio_runs.quietly(["create", "--bundle", path, "--pid-file", pid_file.to_str().unwrap(), id]);
    crio_runs.quietly(["start", id]);
    let state = crio_runs.does(["state", id]).json();
    for field in ["ociVersion", "id", "status", "bundle", "rootfs", "created", "owner"] {
        assert!(state[field].is_string(), "{field}: {state}");
    }
    let exec = write(&dir.join("exec.json"), &process(&["sh", "-c", "echo out; exit 9"]));
    let output = crio_runs.verb(["exec", "--process", &exec, id]).run().exits(9);
    assert_eq!(output.text(), "out");
    let resources = json!({"pids": {"limit": 60}}).to_string();
    crio_runs.succeeds(crio_runs.verb(["update", "--resources", "-", id]).stdin(resources));
    crio_runs.quietly(["pause", id]);
    crio_runs.quietly(["resume", id]);
    crio_runs.quietly(["kill", id, "KILL"]);
    wait_until("it is dead", || crio_runs.does(["state", id]).json()["status"] == "stopped");
    assert_eq!(crio(&crio_runs.fails(["kill", id, "TERM"])), "not found");
    crio_runs.quietly(["kill", "-a", id, "9"]);
    crio_runs.quietly(["delete", "--force", id]);
}

/// A situation, and what each caller makes of it. podman's number is the exit code that its user sees.
struct Case {
    what: &'static str,
    line: Vec<String>,
    code: i32,
    /// What containerd's error, which is all output, says to it.
    containerd: &'static str,
    podman: i32,
    /// What is in the message of the log whatever else it says.
    says: &'static str,
}

#[test]
fn callers_recognise_every_failure_of_a_program() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 says some of it at start");
    let shim = Caller::new(&runtime, SHIM);
    let dir = TempDir::new("errors");
    let bundle = Bundle::sleeper().file("data", "text");
    let container = runtime.container(&bundle);
    container.up();
    for (args, podman_code, says) in [
        (["no-such-program"], 127, "executable file not found in $PATH"),
        (["/no/such/program"], 127, "no such file or directory"),
        (["/data"], 126, "permission denied"),
    ] {
        let broken = Bundle::new().file("data", "text").args(args);
        broken.write();
        shim.fails(["create", "--bundle", broken.path().to_str().unwrap(), &runtime.id("broken")]).exits(1);
        let error = last_error(&shim.log());
        assert!(error.contains(says), "{error}");
        assert_eq!(podman(&shim.log()), podman_code, "{error}");

        let file = write(&dir.join("process.json"), &process(&args));
        shim.fails(["exec", "--process", &file, container.id()]).exits(255);
        let error = last_error(&shim.log());
        assert!(error.contains(says), "{error}");
        assert_eq!(podman(&shim.log()), podman_code, "{error}");
    }
}

#[test]
fn callers_recognise_every_refusal() {
    let runtime = runtime();
    known!(runtime, Crun: "its own texts, which callers know too");
    let bundle = Bundle::sleeper();
    let names = ["running", "stopped", "paused", "created"];
    let [running, stopped, paused, created] = names.map(|_| runtime.container(&bundle));
    for container in [&running, &stopped, &paused] {
        container.up();
    }
    created.create().ok();
    stopped.kill("KILL").ok();
    stopped.wait_for("stopped");
    paused.call("pause", &[]).ok();
    let path = bundle.path().to_str().unwrap();
    let case = |what, line: &[&str], code, containerd, podman, says| Case {
        what,
        line: line.iter().map(|&word| word.to_owned()).collect(),
        code,
        containerd,
        podman,
        says,
    };
    let (no, gone) = ("no such container", "process already finished");
    let cases = [
        case("state unknown", &["state", "nobody"], 1, no, 125, "container does not exist"),
        case("start unknown", &["start", "nobody"], 1, no, 125, "container does not exist"),
        case("kill unknown", &["kill", "nobody", "9"], 1, no, 125, "container does not exist"),
        case("delete unknown", &["delete", "nobody"], 1, no, 125, "container does not exist"),
        case("ps unknown", &["ps", "--format", "json", "nobody"], 1, no, 125, "container does not exist"),
        case("pause unknown", &["pause", "nobody"], 1, no, 125, "container does not exist"),
        case("resume unknown", &["resume", "nobody"], 1, no, 125, "container does not exist"),
        case("exec unknown", &["exec", "nobody", "true"], 255, no, 125, "container does not exist"),
        case(
            "in use",
            &["create", "--bundle", path, running.id()],
            1,
            "",
            125,
            "container with given ID already exists",
        ),
        case("bad id", &["create", "--bundle", path, "a/b"], 1, "", 125, "invalid container ID format"),
        case("kill stopped", &["kill", stopped.id(), "TERM"], 1, gone, 125, "container not running"),
        case("exec stopped", &["exec", stopped.id(), "true"], 255, "", 125, "cannot exec in a stopped container"),
        case(
            "exec paused",
            &["exec", paused.id(), "true"],
            255,
            "",
            125,
            "cannot exec in a paused container (use --ignore-paused to override)",
        ),
        case("start running", &["start", running.id()], 1, "", 125, "cannot start an already running container"),
        case("start stopped", &["start", stopped.id()], 1, "", 125, "cannot start a container that has stopped"),
        case("resume running", &["resume", running.id()], 1, "", 125, "container not paused"),
    ];
    for case in cases {
        // runc 1.1.5 has no text of its own for these.
        let old = runtime.kind() == Kind::Runc && crate::is_old_runc(&runtime);
        if old && matches!(case.what, "exec paused" | "kill unknown") {
            continue;
        }
        let shim = Caller::new(&runtime, SHIM);
        let output = shim.fails(&case.line).exits(case.code);
        let error = last_error(&shim.log());
        assert!(error.contains(case.says), "{}: {error}", case.what);
        assert!(output.stderr.contains(case.says), "{}: {output}", case.what);
        assert_eq!(containerd(&output), case.containerd, "{}: {output}", case.what);
        assert_eq!(podman(&shim.log()), case.podman, "{}: {error}", case.what);
    }
    let output = Caller::new(&runtime, SHIM).fails(["delete", running.id()]);
    let says = format!("cannot delete container {} that is not stopped: running", running.id());
    assert!(output.stderr.contains(&says), "{output}");
    paused.call("resume", &[]).ok();
}

#[test]
fn a_failing_hook_and_a_taken_cgroup_are_named_as_callers_know_them() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no text for the cgroup", Crun: "its own texts");
    let shim = Caller::new(&runtime, SHIM);
    let hooked = Bundle::new().hook_script("createRuntime", "exit 3").hook_script("createRuntime", "exit 4");
    hooked.write();
    shim.fails(["create", "--bundle", hooked.path().to_str().unwrap(), &runtime.id("c")]);
    let error = last_error(&shim.log());
    assert!(error.contains("error running createRuntime hook #0: ") && error.contains("exit status 3"), "{error}");

    if runtime.uses_systemd() {
        skip!("a unit that is taken is another error: e2e/systemd has it");
    }
    let path = format!("/{}-shared", runtime.tag());
    let bundle = Bundle::sleeper().cgroups_path(&path);
    let first = runtime.container(&bundle);
    first.up();
    shim.fails(["create", "--bundle", bundle.path().to_str().unwrap(), &runtime.id("second")]);
    let error = last_error(&shim.log());
    let count =
        |text: &str| text.split("container's cgroup is not empty: ").nth(1)?.split(' ').next()?.parse::<u32>().ok();
    assert!(count(&error).is_some() && error.ends_with(" process(es) found"), "{error}");
    first.is("running");
}
