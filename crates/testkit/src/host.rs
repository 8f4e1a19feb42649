//! What this host is like.

use std::fs;
use std::path::{Path, PathBuf};

/// How cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// v1 hierarchies alone.
    V1,
    /// v1 hierarchies, and cgroup2 beside them.
    Hybrid,
    /// cgroup2 on /sys/fs/cgroup.
    V2,
    /// None.
    None,
}

/// How cgroups are mounted on this host.
pub fn cgroup_mode() -> CgroupMode {
    let mounts = cgroup_mounts();
    let v1 = mounts.iter().any(|mount| mount.controllers.is_some());
    let v2 = mounts.iter().any(|mount| mount.controllers.is_none());
    match (v1, v2) {
        (true, true) => CgroupMode::Hybrid,
        (true, false) => CgroupMode::V1,
        (false, true) => CgroupMode::V2,
        (false, false) => CgroupMode::None,
    }
}

/// A mounted hierarchy; `controllers` is None for cgroup2.
#[derive(Debug, Clone)]
pub struct CgroupMount {
    /// Where.
    pub path: PathBuf,
    /// The super block's options of a v1 hierarchy: `cpu`, `name=systemd`.
    pub controllers: Option<Vec<String>>,
}

/// The mounted hierarchies.
pub fn cgroup_mounts() -> Vec<CgroupMount> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter_map(cgroup_mount).collect()
}

fn cgroup_mount(line: &str) -> Option<CgroupMount> {
    let (front, back) = line.split_once(" - ")?;
    let path = PathBuf::from(front.split(' ').nth(4)?);
    // CRIU mounts every hierarchy once more while it works, for all to see.
    if path.to_string_lossy().contains("/.criu.cgyard.") {
        return None;
    }
    let mut back = back.split(' ');
    let kind = back.next()?;
    let options = back.nth(1)?.split(',').map(str::to_owned).collect();
    match kind {
        "cgroup" => Some(CgroupMount { path, controllers: Some(options) }),
        "cgroup2" => Some(CgroupMount { path, controllers: None }),
        _ => None,
    }
}

/// The directory that a /proc/PID/cgroup file names for a v1 controller, or for cgroup2 (`""`).
pub fn cgroup_dir(proc_cgroup: &str, controller: &str) -> Option<PathBuf> {
    let path = proc_cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|name| name == controller).then(|| fields.next())?
    })?;
    let mount = cgroup_mounts().into_iter().find(|mount| match &mount.controllers {
        None => controller.is_empty(),
        Some(names) => names.iter().any(|name| name == controller),
    })?;
    Some(mount.path.join(path.trim_start_matches('/')))
}

/// All cgroup directories with this text in their path, in all hierarchies.
pub fn cgroups_with(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in cgroup_mounts() {
        find_dirs(&mount.path, &mut |dir| {
            if dir.to_string_lossy().contains(text) {
                found.push(dir.to_owned());
            }
        });
    }
    found
}

fn find_dirs(dir: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        visit(&entry.path());
        find_dirs(&entry.path(), visit);
    }
}

/// Whether we are root, outside any user namespace with a mapping of its own.
pub fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let full = map.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix::process::geteuid().is_root() && full
}

/// The file of a program, which is looked for in PATH where `name` is not absolute.
pub fn program(name: impl AsRef<Path>) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&name)).find(|path| path.is_file())
}

/// Whether the kernel has a namespace type (`user`, `time`).
pub fn has_namespace(kind: &str) -> bool {
    Path::new("/proc/self/ns").join(kind).exists()
}

/// The kernel's version, as (major, minor).
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether our processes have a capability, by its number.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() >> number & 1 == 1
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Where a namespace link of this process leads: `net:[4026531840]`.
pub fn namespace(kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
}
