//! What a runtime left on the host.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::scale;
use crate::{Runtime, host};

/// Looks for what belongs to one runtime's containers: by the tag in their ids, and by the test's directory.
#[derive(Debug)]
pub struct Residue {
    tag: String,
    root: std::path::PathBuf,
    before: Vec<String>,
}

impl Residue {
    /// What there is from here on: what is there already does not count.
    pub fn before(runtime: &Runtime) -> Self {
        let mut residue = Self::of(runtime);
        residue.before = residue.find();
        residue
    }

    /// All there is.
    pub fn of(runtime: &Runtime) -> Self {
        Self { tag: runtime.tag().to_owned(), root: runtime.root(), before: Vec::new() }
    }

    /// What is left: entries of `--root`, cgroups, mounts, processes; a line each.
    pub fn find(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            // crun keeps a cache of compiled seccomp profiles here, and from 1.9 on something empty to mask with.
            if ![".cache", ".empty-directory"].iter().any(|name| entry.file_name() == *name) {
                found.push(format!("state: {}", entry.path().display()));
            }
        }
        found.extend(host::cgroups_with(&self.tag).iter().map(|dir| format!("cgroup: {}", dir.display())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&self.tag)).map(|line| format!("mount: {line}")));
        found.extend(processes(&self.tag).into_iter().map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process: {pid} {}", String::from_utf8_lossy(&line).replace('\0', " "))
        }));
        found.retain(|line| !self.before.contains(line));
        found
    }

    /// What can be found out about cgroups that were left, for the text of a failure: since when each is there, who is in it, what is
    /// below it, whether it is gone a second later, and else what rmdir(2) says, which removes it. And who it can have been: the
    /// runtimes that run.
    pub fn explain(&self) -> String {
        let dirs = host::cgroups_with(&self.tag);
        let mut text = String::new();
        for dir in &dirs {
            let age = fs::metadata(dir).and_then(|data| data.created().or_else(|_| data.modified()));
            let age = age.ok().and_then(|made| made.elapsed().ok());
            writeln!(text, "  {}: there for {age:?}", dir.display()).unwrap();
            for file in ["cgroup.procs", "tasks", "freezer.state", "cgroup.events"] {
                if let Ok(content) = fs::read_to_string(dir.join(file)) {
                    writeln!(text, "    {file}: {:?}", content.trim_end()).unwrap();
                    if matches!(file, "cgroup.procs" | "tasks") {
                        content.lines().for_each(|pid| writeln!(text, "      {}", described(pid)).unwrap());
                    }
                }
            }
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
            writeln!(text, "    below it: {:?}", below.collect::<Vec<_>>()).unwrap();
        }
        if !dirs.is_empty() {
            // Nothing tells when a cgroup goes on v1.
            std::thread::sleep(scale(Duration::from_secs(1)));
        }
        for dir in dirs.iter().rev() {
            let outcome =
                if dir.exists() { format!("rmdir: {:?}", fs::remove_dir(dir)) } else { "gone by itself".into() };
            writeln!(text, "  {}: a second later: {outcome}", dir.display()).unwrap();
        }
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if program.to_string_lossy().contains("tare") {
                writeln!(text, "  runs: {}", described(&entry.file_name().to_string_lossy())).unwrap();
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().filter(|line| line.contains(" - cgroup")).for_each(|line| writeln!(text, "  {line}").unwrap());
        text
    }

    /// Takes away what a failed test left: kills the processes, removes the cgroups.
    pub fn sweep(&self) {
        for pid in processes(&self.tag) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let end = Instant::now() + scale(Duration::from_secs(2));
        while !processes(&self.tag).is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut cgroups = host::cgroups_with(&self.tag);
        cgroups.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
        for dir in cgroups {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Like [`Self::find`], but gives the killed a moment: they leave the process table some time after the kill.
    pub fn find_settled(&self) -> Vec<String> {
        let end = Instant::now() + scale(Duration::from_secs(2));
        let mut found = self.find();
        while found.iter().any(|line| line.starts_with("process: ")) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            found = self.find();
        }
        found
    }

    /// Expects nothing.
    ///
    /// # Panics
    /// If there is something, with the list.
    #[track_caller]
    pub fn assert_none(&self) {
        let found = self.find_settled();
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}

/// Processes that carry the tag in their cgroup, command line, environment, or the paths they stand on. A zombie does
/// not count: it waits for its parent, which is not the runtime.
fn processes(tag: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if entry.file_name() != *own && carries(&entry.path(), tag) && host::is_alive(pid) {
            found.push(pid);
        }
    }
    found
}

fn carries(proc_dir: &Path, tag: &str) -> bool {
    let in_file = |file| contains(&fs::read(proc_dir.join(file)).unwrap_or_default(), tag.as_bytes());
    let in_link = |link| {
        let target = fs::read_link(proc_dir.join(link)).unwrap_or_default();
        contains(target.as_os_str().as_bytes(), tag.as_bytes())
    };
    in_file("cgroup") || in_file("cmdline") || in_file("environ") || in_link("root") || in_link("cwd")
}

/// A process for the text of a failure.
fn described(pid: &str) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let words = read("cmdline").replace('\0', " ");
    format!("{pid} {words:?} {} {} wchan {} {:?}", line("State:"), line("PPid:"), read("wchan"), read("cgroup"))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
