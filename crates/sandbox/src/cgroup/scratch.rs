//! What the tests that touch the kernel share: cgroups of their own names, processes to put in them.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::LinuxResources;

use super::{Cgroup, Driver, locate, open};
use crate::deadline::Deadline;

/// A name that no other test, run or user has.
pub(super) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tare-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

pub(super) fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A located cgroup that is removed whatever the test does.
pub(super) struct Scratch(pub(super) Box<dyn Cgroup>);

impl Scratch {
    pub(super) fn new() -> Self {
        Self(open(&locate(Driver::Cgroupfs, None, &unique()).unwrap()))
    }

    pub(super) fn created() -> Self {
        let scratch = Self::new();
        scratch.0.create(soon()).unwrap();
        scratch
    }

    /// The directory in the hierarchy of `controller`; empty: in cgroup2.
    pub(super) fn dir(&self, controller: &str) -> PathBuf {
        let of = |hierarchy: &str| hierarchy.split(',').any(|name| name == controller);
        let directories = &self.0.location().directories;
        directories.iter().find(|directory| of(&directory.hierarchy)).unwrap().path.clone()
    }

    pub(super) fn read(&self, controller: &str, file: &str) -> String {
        std::fs::read_to_string(self.dir(controller).join(file)).unwrap().trim().to_owned()
    }

    /// A process that sleeps in every directory of the cgroup.
    pub(super) fn sleeper(&self) -> Process {
        let process = Process::sleeping();
        for directory in &self.0.location().directories {
            std::fs::write(directory.path.join("cgroup.procs"), process.0.id().to_string()).unwrap();
        }
        process
    }

    /// A process in the cgroup of `controller` that holds so many MiB of its own memory.
    pub(super) fn holder(&self, controller: &str, mib: usize) -> Process {
        let procs = self.dir(controller).join("cgroup.procs");
        // What dd reads in one go it holds until it has written it: to a pipe that nobody empties.
        let script = format!("echo 0 > {} && exec dd if=/dev/zero bs={mib}M count=1", procs.display());
        let process =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let resident = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0").to_owned();
            line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0)
        };
        let deadline = soon();
        while resident() < mib * 1024 {
            assert!(!deadline.passed(), "dd holds {} KiB", resident());
            // Another process is at work: nothing tells when it has come so far.
            std::thread::sleep(Duration::from_millis(5));
        }
        Process(process)
    }

    /// Runs `sh -c script` from inside the cgroup of `controller`: whether each script succeeded.
    pub(super) fn run_inside(&self, controller: &str, scripts: &[&str]) -> Vec<bool> {
        let procs = self.dir(controller).join("cgroup.procs");
        let run = |script: &&str| {
            let script = format!("echo 0 > {} && exec {script}", procs.display());
            Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
        };
        scripts.iter().map(run).collect()
    }

    /// What `script` prints, run again and again from inside the cgroups of `controllers` as long as `change` takes.
    pub(super) fn repeat_inside(&self, controllers: &[&str], script: &str, change: impl FnOnce()) -> String {
        let enter = |name: &&str| format!("echo 0 > {}; ", self.dir(name).join("cgroup.procs").display());
        let enter: String = controllers.iter().map(enter).collect();
        let stop = std::env::temp_dir().join(unique());
        let script = format!("{enter} echo in; while [ ! -e {} ]; do {script}; done", stop.display());
        let shell = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut shell = Process(shell.unwrap());
        let mut output = BufReader::new(shell.0.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
        change();
        std::fs::write(&stop, "").unwrap();
        let mut printed = String::new();
        output.read_to_string(&mut printed).unwrap();
        shell.0.wait().unwrap();
        std::fs::remove_file(&stop).unwrap();
        printed
    }

    pub(super) fn gone(&self) -> bool {
        self.0.location().directories.iter().all(|directory| !directory.path.exists())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = self.0.remove(soon());
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

/// A child of the test, killed and waited for in the end.
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn sleeping() -> Self {
        Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// The signal that ended it.
    pub(super) fn signal(&mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.0.wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the calling thread, and the processes it starts, a mount namespace where cgroup2 alone is mounted on
/// /sys/fs/cgroup. Nobody else sees it.
pub(super) fn enter_pure_cgroup2() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    match mount(Some("cgroup2"), super::host::ROOT, Some("cgroup2"), MsFlags::empty(), none) {
        // It is there already: a host of v2.
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(errno) => panic!("mount(cgroup2): {errno}"),
    }
}

/// Whether the host has v1 hierarchies.
pub(super) fn host_has_v1() -> bool {
    locate(Driver::Cgroupfs, None, "probe").unwrap().directories.len() > 1
}

/// Leaves a test of v1 on a host that has none.
macro_rules! needs_v1 {
    () => {
        if !$crate::cgroup::scratch::host_has_v1() {
            tare_testkit::skip!("no hierarchies of cgroup v1 here");
        }
    };
}
pub(super) use needs_v1;
