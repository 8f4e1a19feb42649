//! What would be written to a container's cgroup, without a cgroup: the code that writes, on files that only take notes.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::device::{Lists, Policy, device_program, transition};
use super::files::{Files, Hierarchies, Occupancy, fresh};
use super::{Directory, Driver, Location, host, v1, v2};
use crate::Result;

/// The field of what is written about devices.
pub const DEVICES: &str = "linux.resources.devices";

/// A version of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One for all.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The field that asks for it: `linux.resources.cpu.shares`.
    pub field: String,
    /// The file.
    pub path: PathBuf,
    /// What is written.
    pub value: String,
    /// File and value that are tried first, and that most kernels do not have.
    pub rather: Option<(PathBuf, String)>,
}

/// The version that a container at `location` is limited by; None without cgroups.
pub fn version(location: &Location) -> Option<Version> {
    match location.directories.as_slice() {
        [] => None,
        [only] if only.hierarchy.is_empty() && !super::is_beside_v1(Path::new(host::ROOT), &only.path) => {
            Some(Version::V2)
        }
        _ => Some(Version::V1),
    }
}

/// Where the cgroup would be on a host with `wanted`, where such hosts usually mount it.
pub fn usual(wanted: Version, cgroups_path: Option<&Path>, id: &str) -> Location {
    let inner = cgroups_path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(id));
    let inner = crate::plan::mounts::clean(inner);
    let inner = inner.strip_prefix("/").unwrap_or(&inner);
    let root = Path::new(host::ROOT);
    let directories = match wanted {
        Version::V2 => vec![Directory { hierarchy: String::new(), path: root.join(inner) }],
        Version::V1 => [
            "cpu,cpuacct",
            "cpuset",
            "memory",
            "devices",
            "freezer",
            "blkio",
            "pids",
            "hugetlb",
            "net_cls,net_prio",
            "perf_event",
            "rdma",
            "name=systemd",
        ]
        .into_iter()
        .map(|hierarchy| {
            let mount = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
            Directory { hierarchy: hierarchy.to_owned(), path: root.join(mount).join(inner) }
        })
        .collect(),
    };
    Location::new(Driver::Cgroupfs, directories)
}

/// The fields that are ignored, with a warning: `version` has nothing for them.
pub fn ignored(version: Version, resources: &LinuxResources) -> Vec<&'static str> {
    super::field::ignored(version, resources)
}

/// Every write that limits a container, in order.
///
/// # Errors
/// What that version of cgroups, or the host, cannot do.
pub fn writes(location: &Location, resources: &LinuxResources) -> Result<Vec<Write>> {
    let written = Notes::default();
    let rules = resources.devices().as_deref().unwrap_or_default();
    match version(location) {
        None => {}
        Some(Version::V2) => {
            let path = location.directories.first().map(|directory| directory.path.clone()).unwrap_or_default();
            let dir = NotePad { path, notes: written.clone() };
            v2::limit::apply(&dir, resources, Occupancy::Empty)?;
            let program = device_program(rules, &location.own_devices)?;
            dir.note(DEVICES, "", &format!("device program of {} instructions", program.len()));
        }
        Some(Version::V1) => {
            let pads = location.directories.iter().filter(|directory| !directory.hierarchy.is_empty());
            let pads = pads.map(|directory| {
                (directory.hierarchy.clone(), NotePad { path: directory.path.clone(), notes: written.clone() })
            });
            let pads = NotePads(pads.collect());
            v1::limit::apply(&pads, resources)?;
            let dir = pads.require("devices", DEVICES)?;
            for (file, rule) in transition(None, &Lists::of(&Policy::of(rules, &location.own_devices)?)?) {
                dir.note(DEVICES, file, &rule);
            }
        }
    }
    Ok(written.take())
}

type Notes = Rc<RefCell<Vec<Write>>>;

/// Files that take a note of each write.
struct NotePad {
    path: PathBuf,
    notes: Notes,
}

impl NotePad {
    fn note(&self, field: &str, file: &str, value: &str) {
        let path = if file.is_empty() { self.path.clone() } else { self.path.join(file) };
        let mut notes = self.notes.borrow_mut();
        // What was tried before, in vain, for the same field.
        let rather =
            notes.pop_if(|last| last.field == field && is_rare(&last.path)).map(|last| (last.path, last.value));
        notes.push(Write { field: field.to_owned(), path, value: value.to_owned(), rather });
    }
}

/// Files of the BFQ scheduler on v2, and of CFQ, gone in Linux 5.0, on v1.
fn is_rare(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "io.bfq.weight" || name.starts_with("blkio.weight") || name.starts_with("blkio.leaf_weight")
}

impl Files for NotePad {
    fn attempt(&self, field: &str, file: &str, value: &str) -> nix::Result<()> {
        self.note(field, file, value);
        if is_rare(Path::new(file)) { Err(Errno::ENOENT) } else { Ok(()) }
    }

    fn attempt_by(
        &self,
        field: &str,
        file: &str,
        value: &str,
        _: impl FnOnce(PathBuf) -> cgroups_rs::fs::error::Result<()>,
    ) -> cgroups_rs::fs::error::Result<()> {
        self.note(field, file, value);
        Ok(())
    }

    fn peek(&self, file: &str) -> nix::Result<String> {
        fresh(file)
    }

    fn write_text(&self, file: &str, value: &str) -> String {
        format!("write({:?}, {value:?})", self.path.join(file))
    }
}

/// A pad for each hierarchy.
struct NotePads(Vec<(String, NotePad)>);

impl Hierarchies for NotePads {
    type Files = NotePad;

    fn of(&self, controller: &str) -> Option<&NotePad> {
        self.0.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == controller)).map(|(_, pad)| pad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(version: Version, resources: &str) -> Vec<String> {
        let location = usual(version, Some(Path::new("/web")), "x");
        let writes = writes(&location, &serde_json::from_str(resources).unwrap()).unwrap();
        let writes = writes.into_iter().filter(|write| !write.field.ends_with(".devices"));
        writes
            .map(|write| {
                let rather = write.rather.map(|(path, value)| format!(" rather {}={value}", path.display()));
                format!("{}={}{}", write.path.display(), write.value, rather.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn the_writes_are_those_of_apply_for_either_version() {
        let resources = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 100000, "idle": 1, "cpus": "0-1"},
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
            "pids": {"limit": 0}, "blockIO": {"weight": 500},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#;
        let at = |files: &[&str]| files.iter().map(|file| format!("/sys/fs/cgroup/{file}")).collect::<Vec<_>>();
        assert_eq!(
            lines(Version::V2, resources),
            at(&[
                "web/cpu.weight=59",
                "web/cpu.idle=1",
                "web/cpu.max=50000 100000",
                "web/cpuset.cpus=0-1",
                "web/memory.swap.max=2000",
                "web/memory.max=1000",
                "web/memory.low=500",
                "web/pids.max=1",
                "web/io.weight=4950 rather /sys/fs/cgroup/web/io.bfq.weight=500",
                "web/hugetlb.2MB.max=0",
                "web/hugetlb.2MB.rsvd.max=0",
            ])
        );
        assert_eq!(
            lines(Version::V1, resources),
            at(&[
                "cpu,cpuacct/web/cpu.shares=512",
                "cpu,cpuacct/web/cpu.idle=1",
                "cpu,cpuacct/web/cpu.cfs_period_us=100000",
                "cpu,cpuacct/web/cpu.cfs_quota_us=50000",
                "cpuset/web/cpuset.cpus=0-1",
                "memory/web/memory.limit_in_bytes=1000",
                "memory/web/memory.memsw.limit_in_bytes=3000",
                "memory/web/memory.soft_limit_in_bytes=500",
                "pids/web/pids.max=1",
                "blkio/web/blkio.bfq.weight=500 rather /sys/fs/cgroup/blkio/web/blkio.weight=500",
                "hugetlb/web/hugetlb.2MB.limit_in_bytes=0",
                "hugetlb/web/hugetlb.2MB.rsvd.limit_in_bytes=0",
            ])
        );
    }

    #[test]
    fn the_rarer_fields_have_their_files_too() {
        let device = |key: &str| format!(r#"[{{"major": 8, "minor": 1, "{key}": 30}}]"#);
        let throttles = ["ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"]
            .map(|name| format!(r#""throttle{name}Device": {}"#, device("rate")))
            .join(", ");
        let one = |version, resources: &str| -> Vec<String> {
            let writes = lines(version, resources).into_iter();
            writes.map(|line| line.rsplit_once("/web/").unwrap().1.to_owned()).collect()
        };
        let lines = |version, resources: &str| one(version, &resources.replace("WEIGHT", &device("weight")));
        let both = [
            (
                format!(r#"{{"blockIO": {{{throttles}}}}}"#),
                "blkio.throttle.read_bps_device=8:1 30, blkio.throttle.write_bps_device=8:1 30, \
                 blkio.throttle.read_iops_device=8:1 30, blkio.throttle.write_iops_device=8:1 30",
                "io.max=8:1 rbps=30, io.max=8:1 wbps=30, io.max=8:1 riops=30, io.max=8:1 wiops=30",
            ),
            (
                r#"{"blockIO": {"weightDevice": WEIGHT}}"#.to_owned(),
                "blkio.weight_device=8:1 30",
                "io.bfq.weight=8:1 30",
            ),
            (
                r#"{"cpu": {"burst": 5, "mems": "0"}}"#.to_owned(),
                "cpu.cfs_burst_us=5, cpuset.mems=0",
                "cpu.max.burst=5, cpuset.mems=0",
            ),
            (
                r#"{"rdma": {"m": {"hcaHandles": 1, "hcaObjects": 2}}}"#.to_owned(),
                "rdma.max=m hca_handle=1 hca_object=2",
                "rdma.max=m hca_handle=1 hca_object=2",
            ),
        ];
        for (resources, on_v1, on_v2) in both {
            assert_eq!(lines(Version::V1, &resources).join(", "), on_v1);
            assert_eq!(lines(Version::V2, &resources).join(", "), on_v2);
        }
        let on_v1 = r#"{"cpu": {"realtimePeriod": 9, "realtimeRuntime": 8},
            "memory": {"swappiness": 7, "disableOOMKiller": true},
            "blockIO": {"leafWeight": 20},
            "network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 3}]}}"#;
        assert_eq!(
            lines(Version::V1, on_v1).join(", "),
            "cpu.rt_period_us=9, cpu.rt_runtime_us=8, memory.swappiness=7, memory.oom_control=1, \
             blkio.leaf_weight=20, net_cls.classid=5, net_prio.ifpriomap=eth0 3"
        );
        assert_eq!(lines(Version::V2, r#"{"unified": {"memory.high": "5"}}"#), ["memory.high=5"]);
    }

    #[test]
    fn what_a_version_cannot_do_is_refused_as_it_would_be() {
        let refusal = |version, resources: &str| {
            let location = usual(version, None, "web");
            writes(&location, &serde_json::from_str(resources).unwrap()).unwrap_err().to_string()
        };
        assert!(refusal(Version::V1, r#"{"unified": {"memory.high": "1"}}"#).contains("unified"));
        let rule = r#"{"devices": [{"allow": true, "type": "c", "access": "x"}]}"#;
        assert!(refusal(Version::V2, rule).contains("linux.resources.devices[0]"));
    }

    #[test]
    fn nothing_is_touched() {
        let location = usual(Version::V1, Some(Path::new("/tare-outline-test")), "x");
        let resources = serde_json::from_str(r#"{"cpu": {"shares": 512}, "pids": {"limit": 7}}"#).unwrap();
        assert!(!writes(&location, &resources).unwrap().is_empty());
        assert!(location.directories.iter().all(|directory| !directory.path.exists()));
    }
}
