//! One container: the verbs with its id filled in.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Bundle, Invocation, Output, Running, Runtime, host, wait_until};

/// A container. `delete --force` when dropped.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
    id: String,
}

impl<'a> Container<'a> {
    /// A container with this id; nothing is created yet.
    pub fn new(runtime: &'a Runtime, bundle: &'a Bundle, id: String) -> Self {
        Self { runtime, bundle, id }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `VERB`, for more arguments; end with [`Self::id`]. config.json is written first by `create` and `run`.
    pub fn verb(&self, verb: &str) -> Invocation {
        self.verb_with(&[], verb)
    }

    /// As [`Self::verb`], with flags before the verb.
    pub fn verb_with(&self, flags: &[&str], verb: &str) -> Invocation {
        let invocation = self.runtime.raw().args(flags).arg(verb);
        if matches!(verb, "create" | "run") {
            self.bundle.write_with(self.runtime.default_cgroups_path(&self.id).as_deref());
            return invocation.arg("--bundle").arg(self.bundle.path());
        }
        invocation
    }

    /// `VERB ARGS... ID`
    pub fn call(&self, verb: &str, args: &[&str]) -> Output {
        self.verb(verb).args(args).arg(&self.id).run()
    }

    /// `create`
    pub fn create(&self) -> Output {
        self.call("create", &[])
    }

    /// `start`
    pub fn start(&self) -> Output {
        self.call("start", &[])
    }

    /// `run`, in the foreground.
    pub fn run(&self) -> Output {
        self.call("run", &[])
    }

    /// `run`, in the foreground, at work.
    pub fn spawn(&self) -> Running {
        self.verb("run").stdin_open().arg(&self.id).spawn()
    }

    /// `run --detach`
    pub fn run_detached(&self) -> Output {
        self.call("run", &["--detach"])
    }

    /// `create` and `start`, both expected to succeed.
    #[track_caller]
    pub fn up(&self) -> &Self {
        self.create().ok();
        self.start().ok();
        self
    }

    /// `kill ID SIGNAL`
    pub fn kill(&self, signal: &str) -> Output {
        self.verb("kill").args([&self.id, signal]).run()
    }

    /// `delete`
    pub fn delete(&self) -> Output {
        self.call("delete", &[])
    }

    /// `delete --force`
    pub fn delete_force(&self) -> Output {
        self.call("delete", &["--force"])
    }

    /// `exec ID ARGS...`
    pub fn exec<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.exec_with(&[], args)
    }

    /// `exec OPTIONS... ID ARGS...`
    pub fn exec_with<S: AsRef<OsStr>>(&self, options: &[&str], args: impl IntoIterator<Item = S>) -> Output {
        self.verb("exec").args(options).arg(&self.id).args(args).run()
    }

    /// `exec ID sh -c SCRIPT`, expected to succeed; its output.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.exec(["sh", "-c", script]).ok().text().to_owned()
    }

    /// `state`, expected to succeed.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call("state", &[]).ok().json()
    }

    /// The status, `none` if there is no such container.
    pub fn status(&self) -> String {
        let output = self.call("state", &[]);
        if !output.success() {
            return "none".to_owned();
        }
        output.json()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Expects a status.
    #[track_caller]
    pub fn is(&self, status: &str) {
        assert_eq!(self.status(), status, "status of {}", self.id);
    }

    /// Waits for a status.
    pub fn wait_for(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// init's pid on the host.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().unwrap_or_default();
        assert!(pid > 0, "{} has a process", self.id);
        i32::try_from(pid).unwrap()
    }

    /// A file in init's /proc directory on the host.
    #[track_caller]
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Where init's link in /proc/PID leads (`ns/net`, `root`).
    #[track_caller]
    pub fn link(&self, file: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/{file}", self.pid())).unwrap()
    }

    /// init's cgroup directory in the hierarchy of a v1 controller, or in cgroup2 for "".
    #[track_caller]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        host::cgroup_dir(&self.proc("cgroup"), controller).expect("a hierarchy of this controller")
    }

    /// The bundle.
    pub fn bundle(&self) -> &Path {
        self.bundle.path()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let delete = || self.runtime.raw().args(["delete", "--force", &self.id]).run();
        if std::thread::panicking() {
            // A delete that hangs panics, and a second panic would end the whole test program.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(delete));
        } else {
            delete();
        }
    }
}
