//! `checkpoint` and `restore`: a container is saved, and goes on elsewhere.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tare_testkit::{Bundle, Container, Criu, Invocation, Output, Runtime, known, skip, wait_until};

use crate::runtime;

/// The runtime under test with CRIU in its PATH; leaves the test where there is none.
macro_rules! with_criu {
    () => {{
        let runtime = runtime();
        known!(runtime, Crun: "1.8.1 of Debian is built without CRIU");
        match Criu::find() {
            Ok(criu) => (runtime, criu),
            Err(reason) => skip!("{reason}"),
        }
    }};
}
pub(crate) use with_criu;

/// What is done with one container and one directory of images.
pub(crate) struct Saved<'a> {
    pub(crate) container: &'a Container<'a>,
    pub(crate) criu: &'static Criu,
    pub(crate) images: PathBuf,
}

impl<'a> Saved<'a> {
    pub(crate) fn new(runtime: &Runtime, container: &'a Container<'a>, criu: &'static Criu) -> Self {
        Self { container, criu, images: runtime.dir().join("images") }
    }

    pub(crate) fn images(&self) -> &str {
        self.images.to_str().unwrap()
    }

    /// A verb with the images; stdio that is from nowhere.
    pub(crate) fn verb(&self, verb: &str) -> Invocation {
        let invocation = self.container.verb(verb).env("PATH", self.criu.path());
        invocation.through_shell(NO_STDIO).args(["--image-path", self.images()])
    }

    pub(crate) fn checkpoint(&self, options: &[&str]) -> Output {
        self.verb("checkpoint").args(options).arg(self.container.id()).run()
    }

    pub(crate) fn restore(&self, options: &[&str]) -> Output {
        let bundle = ["--bundle", self.container.bundle().to_str().unwrap()];
        self.verb("restore").args(bundle).args(["--detach"]).args(options).arg(self.container.id()).run()
    }

    /// `checkpoint` and `restore`, which have to succeed.
    #[track_caller]
    pub(crate) fn there_and_back(&self, checkpoint: &[&str], restore: &[&str]) {
        self.explain(self.checkpoint(checkpoint), "dump.log").ok();
        self.explain(self.restore(restore), "restore.log").ok();
    }

    /// Shows CRIU's log if the command failed.
    pub(crate) fn explain(&self, mut output: Output, log: &str) -> Output {
        if !output.success() {
            let log = fs::read_to_string(self.images.join(log)).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            output.stderr += &tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        }
        output
    }
}

/// A container has no descriptor of the host's as its stdio: runc cannot save files, only pipes. Messages are kept.
pub(crate) const NO_STDIO: &str = "exec \"$@\" < /dev/null > /dev/null";

/// Starts a container with stdio that is from nowhere.
#[track_caller]
pub(crate) fn run(container: &Container<'_>) {
    let invocation = container.verb("run").through_shell("exec \"$@\" < /dev/null > /dev/null 2> /dev/null");
    invocation.args(["--detach", container.id()]).run().ok();
}

/// Counts in a file of the root, from 1 on, in one process.
pub(crate) const COUNTER: &str =
    "n=0; while :; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; sleep 0.02; done";

pub(crate) fn count(container: &Container<'_>) -> u64 {
    let text = fs::read_to_string(container.bundle().join("rootfs/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[track_caller]
pub(crate) fn wait_for_count(container: &Container<'_>, above: u64) {
    wait_until(&format!("it has counted past {above}"), || count(container) > above);
}

#[test]
fn a_counter_goes_on_where_it_was_saved() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(COUNTER);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 3);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    container.is("none");
    let before = count(&container);
    fs::remove_file(container.bundle().join("rootfs/count")).unwrap();
    saved.explain(saved.restore(&[]), "restore.log").ok();
    container.is("running");
    wait_for_count(&container, before);
    assert!(count(&container) < before + 1000, "it goes on, and does not count anew what was lost");
}

#[test]
fn a_restored_container_is_one_like_any_other() {
    let (runtime, criu) = with_criu!();
    let bundle = Bundle::script(&format!("trap 'exit 7' TERM; {COUNTER}"))
        .set("/hostname", json!("saved"))
        .resource("pids", json!({"limit": 77}));
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    let pid_file = runtime.dir().join("pid");
    saved.there_and_back(&[], &["--pid-file", pid_file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(pid_file).unwrap(), container.pid().to_string());
    assert_eq!(container.shell("hostname; echo $$ > /dev/null; cat /proc/1/comm"), "saved\nsh");
    let processes = container.call("ps", &["--format", "json"]).ok().json();
    assert!(processes.as_array().unwrap().contains(&json!(container.pid())), "{processes}");
    let limit = container.cgroup("pids").join("pids.max");
    assert_eq!(fs::read_to_string(limit).unwrap().trim(), "77");
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.kill("TERM").ok();
    container.wait_for("stopped");
    container.delete().ok();
    container.is("none");
}
