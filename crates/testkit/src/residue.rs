//! What a runtime left on the host.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

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
            // crun keeps a cache of compiled seccomp profiles here.
            if entry.file_name() != ".cache" {
                found.push(format!("state: {}", entry.path().display()));
            }
        }
        found.extend(host::cgroups_with(&self.tag).iter().map(|dir| format!("cgroup: {}", dir.display())));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&self.tag)).map(|line| format!("mount: {line}")));
        found.extend(processes(&self.tag));
        found.retain(|line| !self.before.contains(line));
        found
    }

    /// Expects nothing.
    ///
    /// # Panics
    /// If there is something, with the list.
    #[track_caller]
    pub fn assert_none(&self) {
        // A killed process leaves the process table some time after the kill: give that a moment.
        let end = Instant::now() + Duration::from_secs(2);
        let mut found = self.find();
        while found.iter().any(|line| line.starts_with("process: ")) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            found = self.find();
        }
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}

/// Processes that carry the tag in their cgroup, command line, environment, or the paths they stand on.
fn processes(tag: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let dir = entry.path();
        // A zombie waits for its parent, which is not the runtime.
        if pid != own && carries(&dir, tag) && pid.parse().is_ok_and(host::is_alive) {
            let line = fs::read(dir.join("cmdline")).unwrap_or_default();
            found.push(format!("process: {pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
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

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
