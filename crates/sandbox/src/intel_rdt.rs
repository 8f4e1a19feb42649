//! `linux.intelRdt`: a class of service (cache and memory bandwidth) and a monitoring group in resctrl.
//!
//! <https://docs.kernel.org/filesystems/resctrl.html>. A group is a directory; a process enters by writing `0` to its
//! `tasks` file, as in a v1 cgroup, and its children follow.

mod stat;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{CallContext, Context};
use crate::{Error, Result};

pub use stat::Stats;

/// The groups of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Where resctrl is mounted.
    root: PathBuf,
    class: PathBuf,
    /// Whether the class is the container's own, to be removed with it.
    own_class: bool,
    monitoring: Option<PathBuf>,
    /// Lines to write to `schemata`: those of the old fields, then those of the new.
    old_schemata: Vec<String>,
    schemata: Vec<String>,
}

/// Finds the groups of container `id` on this host. Makes nothing.
///
/// # Errors
/// No resctrl is mounted.
pub fn locate(rdt: &LinuxIntelRdt, id: &str) -> Result<Groups> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").call(|| "read(\"/proc/self/mountinfo\")")?;
    let root = mount_point(&mounts)
        .ok_or_else(|| Error::Refused("linux.intelRdt: no resctrl file system is mounted on this host".into()))?;
    Ok(Groups::new(Path::new(root), rdt, id))
}

/// Where resctrl is, in the text of proc_pid_mountinfo(5).
fn mount_point(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        back.starts_with("resctrl ").then(|| front.split(' ').nth(4))?
    })
}

impl Groups {
    /// The groups of container `id` in the resctrl at `root`.
    pub fn new(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Self {
        let class = match rdt.clos_id().as_deref() {
            Some("/") => root.to_owned(),
            Some(class) => root.join(class),
            None => root.join(id),
        };
        Self {
            root: root.to_owned(),
            own_class: rdt.clos_id().is_none(),
            monitoring: rdt.enable_monitoring().unwrap_or(false).then(|| class.join("mon_groups").join(id)),
            class,
            old_schemata: rdt.l3_cache_schema().iter().chain(rdt.mem_bw_schema()).cloned().collect(),
            schemata: rdt.schemata().clone().unwrap_or_default(),
        }
    }

    /// The directories that go with the container, in the order in which to remove them.
    pub fn to_remove(&self) -> Vec<PathBuf> {
        self.monitoring.iter().chain(self.own_class.then_some(&self.class)).cloned().collect()
    }

    /// Makes what is to be made, and writes the schemata. After a failure nothing is left.
    ///
    /// # Errors
    /// A class that exists and is not as configured, one that must exist and does not, what the kernel refuses.
    pub fn create(&self) -> Result<()> {
        let mut made = Vec::new();
        let created = self.create_noting(&mut made).during(|| "linux.intelRdt");
        if created.is_err() {
            made.reverse();
            // What is reported is the cause.
            let _left = remove(&made);
        }
        created
    }

    fn create_noting(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let nothing_to_write = self.old_schemata.is_empty() && self.schemata.is_empty();
        if self.own_class {
            fs::create_dir(&self.class).call(|| format!("mkdir({:?})", self.class))?;
            made.push(self.class.clone());
            self.write_schemata(self.old_schemata.iter().chain(&self.schemata))?;
        } else if self.class.is_dir() {
            self.compare()?;
            self.write_schemata(self.schemata.iter())?;
        } else if nothing_to_write {
            return Err(Error::Refused(format!("closID: {:?} does not exist, and no schemata to make it", self.class)));
        } else {
            // It stays when the container goes: others may use it by its name.
            fs::create_dir(&self.class).call(|| format!("mkdir({:?})", self.class))?;
            made.push(self.class.clone());
            self.write_schemata(self.old_schemata.iter().chain(&self.schemata))?;
        }
        if let Some(monitoring) = &self.monitoring {
            fs::create_dir(monitoring).call(|| format!("mkdir({monitoring:?})")).during(|| "enableMonitoring")?;
            made.push(monitoring.clone());
        }
        Ok(())
    }

    /// Opens the `tasks` files to be entered, in this order: a process has to be in the class before its monitoring group.
    ///
    /// # Errors
    /// A group that is not there.
    pub fn entrances(&self) -> Result<Vec<OwnedFd>> {
        [Some(&self.class), self.monitoring.as_ref()]
            .into_iter()
            .flatten()
            .map(|group| {
                let path = group.join("tasks");
                let tasks = File::options().write(true).open(&path).map(OwnedFd::from);
                tasks.call(|| format!("open({path:?})")).during(|| "linux.intelRdt")
            })
            .collect()
    }

    /// Writes `lines` to the schemata of a class that is there, and returns what they said before of the same resources.
    ///
    /// # Errors
    /// A class that is not there, what the kernel refuses.
    pub fn rewrite(&self, lines: &[String]) -> Result<String> {
        let path = self.class.join("schemata");
        let before = fs::read_to_string(&path).call(|| format!("read({path:?})"))?;
        let resources: Vec<&str> = lines.iter().flat_map(|line| line.lines()).map(|line| parse(line).0).collect();
        let before = before.lines().map(str::trim).filter(|line| resources.contains(&parse(line).0));
        let before = before.collect::<Vec<_>>().join("\n");
        self.write_schemata(lines.iter())?;
        Ok(before)
    }

    /// Moves processes that run into the class, with all their threads.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn take_in(&self, pids: &[Pid]) -> Result<()> {
        let path = self.class.join("tasks");
        for pid in pids {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads.filter_map(|thread| thread.file_name().into_string().ok()) {
                let write = || {
                    let mut tasks = File::options().write(true).open(&path)?;
                    std::io::Write::write_all(&mut tasks, thread.as_bytes())
                };
                match write() {
                    // It has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                    written => written.call(|| format!("write({path:?}, {thread:?})")).during(|| "linux.intelRdt")?,
                }
            }
        }
        Ok(())
    }

    fn write_schemata<'a>(&self, lines: impl Iterator<Item = &'a String>) -> Result<()> {
        let text: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
        if text.is_empty() {
            return Ok(());
        }
        let path = self.class.join("schemata");
        let write = || {
            File::options()
                .write(true)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        };
        write().call(|| format!("write({path:?}, {text:?}){}", self.last_status()))
    }

    /// What resctrl says of the last command, in brackets: more than an errno can.
    fn last_status(&self) -> String {
        let root = if self.class.join("info").is_dir() { Some(self.class.as_path()) } else { self.class.parent() };
        let status = root.and_then(|root| fs::read_to_string(root.join("info/last_cmd_status")).ok());
        status.map(|status| format!(" ({})", status.trim().replace('\n', "; "))).unwrap_or_default()
    }

    /// Refuses a class whose cache and bandwidth are not those of the configuration.
    fn compare(&self) -> Result<()> {
        if self.old_schemata.is_empty() {
            return Ok(());
        }
        let path = self.class.join("schemata");
        let text = fs::read_to_string(&path).call(|| format!("read({path:?})"))?;
        for wanted in &self.old_schemata {
            let (resource, domains) = parse(wanted);
            let there = text.lines().map(parse).find(|(name, _)| *name == resource);
            let same = there.is_some_and(|(_, there)| domains.iter().all(|(id, value)| there.get(id) == Some(value)));
            if !same {
                return Err(Error::Refused(format!("{path:?} exists and does not have {wanted:?}")));
            }
        }
        Ok(())
    }
}

/// Removes groups. Those of their tasks that still run go to the default group.
///
/// # Errors
/// What stayed.
pub fn remove(directories: &[PathBuf]) -> Result<()> {
    for directory in directories {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            removed => removed.call(|| format!("rmdir({directory:?})")).during(|| "linux.intelRdt")?,
        }
    }
    Ok(())
}

/// `L3:0=00f;1=f` as its name and the values by domain: without the zeros and spaces with which the kernel pads.
fn parse(line: &str) -> (&str, BTreeMap<&str, String>) {
    let (name, domains) = line.split_once(':').unwrap_or((line, ""));
    let domains = domains.split(';').filter_map(|domain| domain.split_once('='));
    let domains = domains.map(|(id, value)| {
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        (id.trim(), value)
    });
    (name.trim(), domains.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like resctrl, but for what the kernel does by itself.
    pub(super) struct Fake(pub(super) PathBuf);

    impl Fake {
        pub(super) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tare-resctrl-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("mon_groups")).unwrap();
            Self(path)
        }

        /// A class as the kernel would make it.
        pub(super) fn class(&self, name: &str, schemata: &str) -> PathBuf {
            let class = self.0.join(name);
            fs::create_dir_all(class.join("mon_groups")).unwrap();
            fs::write(class.join("schemata"), schemata).unwrap();
            fs::write(class.join("tasks"), "").unwrap();
            class
        }

        pub(super) fn groups(&self, json: &str) -> Groups {
            Groups::new(&self.0, &serde_json::from_str(json).unwrap(), "web")
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_class_is_named_by_the_configuration_or_the_container() {
        let fake = Fake::new("names");
        let groups = fake.groups(r#"{"enableMonitoring": true}"#);
        assert_eq!(groups.to_remove(), [fake.0.join("web/mon_groups/web"), fake.0.join("web")]);
        let groups = fake.groups(r#"{"closID": "gold", "enableMonitoring": true}"#);
        assert_eq!(
            (groups.class.clone(), groups.to_remove()),
            (fake.0.join("gold"), vec![fake.0.join("gold/mon_groups/web")])
        );
        let groups = fake.groups(r#"{"closID": "/"}"#);
        assert_eq!((groups.class.clone(), groups.to_remove()), (fake.0.clone(), vec![]));
    }

    #[test]
    fn a_class_of_its_own_is_made_and_removed() {
        let fake = Fake::new("own");
        let groups = fake.groups("{}");
        groups.create().unwrap();
        assert!(fake.0.join("web").is_dir());
        let error = groups.create().unwrap_err().to_string();
        assert!(error.starts_with("linux.intelRdt: mkdir(") && error.ends_with("(EEXIST)"), "{error}");
        assert!(fake.0.join("web").is_dir(), "another's class is not removed");
        remove(&groups.to_remove()).unwrap();
        remove(&groups.to_remove()).unwrap();
        assert!(!fake.0.join("web").exists());
    }

    #[test]
    fn an_existing_class_must_be_as_configured_and_takes_schemata() {
        let fake = Fake::new("existing");
        let class = fake.class("gold", "    MB:0=100;1= 20\n    L3:0=007ff;1=1f\n");
        for (json, fits) in [
            (r#"{"closID": "gold"}"#, true),
            (r#"{"closID": "gold", "l3CacheSchema": "L3:0=7ff;1=1F", "memBwSchema": "MB:1=20"}"#, true),
            (r#"{"closID": "gold", "l3CacheSchema": "L3:0=7fe"}"#, false),
            (r#"{"closID": "gold", "memBwSchema": "MB:2=20"}"#, false),
            (r#"{"closID": "silver"}"#, false),
        ] {
            let created = fake.groups(json).create();
            assert_eq!(created.is_ok(), fits, "{json}: {created:?}");
        }
        fake.groups(r#"{"closID": "gold", "schemata": ["L3:0=f", "MB:0=10"], "enableMonitoring": true}"#)
            .create()
            .unwrap();
        assert!(fs::read_to_string(class.join("schemata")).unwrap().starts_with("L3:0=f\nMB:0=10\n"));
        assert!(class.join("mon_groups/web").is_dir());
    }

    #[test]
    fn an_update_rewrites_the_schemata_and_knows_what_they_were() {
        let fake = Fake::new("rewrite");
        let class = fake.class("gold", "    MB:0=100;1= 20\n    L3:0=007ff;1=1f\n");
        let groups = fake.groups(r#"{"closID": "gold"}"#);
        assert_eq!(groups.rewrite(&["L3:0=f".into()]).unwrap(), "L3:0=007ff;1=1f");
        assert!(fs::read_to_string(class.join("schemata")).unwrap().starts_with("L3:0=f\n"));
        let error = fake.groups(r#"{"closID": "none"}"#).rewrite(&["L3:0=f".into()]).unwrap_err().to_string();
        assert!(error.starts_with("read(") && error.ends_with("(ENOENT)"), "{error}");
    }

    #[test]
    fn processes_that_run_are_taken_in_by_thread() {
        let fake = Fake::new("take-in");
        let class = fake.class("gold", "");
        let groups = fake.groups(r#"{"closID": "gold"}"#);
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let taken = groups.take_in(&[Pid::from_raw(child.id().cast_signed())]);
        child.kill().unwrap();
        child.wait().unwrap();
        taken.unwrap();
        assert_eq!(fs::read_to_string(class.join("tasks")).unwrap(), child.id().to_string());
        groups.take_in(&[Pid::from_raw(child.id().cast_signed())]).unwrap();
    }

    #[test]
    fn nothing_is_left_of_a_class_that_the_kernel_refuses() {
        let fake = Fake::new("refused");
        // No kernel makes the schemata file here: writing it fails.
        for json in [r#"{"memBwSchema": "MB:0=5"}"#, r#"{"closID": "silver", "schemata": ["L3:0=f"]}"#] {
            let error = fake.groups(json).create().unwrap_err().to_string();
            assert!(error.starts_with("linux.intelRdt: write(") && error.contains("schemata"), "{error}");
        }
        assert_eq!(fs::read_dir(&fake.0).unwrap().count(), 1, "mon_groups alone");
    }

    #[test]
    fn the_class_is_entered_before_its_monitoring_group() {
        let fake = Fake::new("enter");
        let class = fake.class("gold", "");
        let groups = fake.groups(r#"{"closID": "gold", "enableMonitoring": true}"#);
        assert!(groups.entrances().unwrap_err().to_string().contains("mon_groups/web/tasks"));
        fs::create_dir(class.join("mon_groups/web")).unwrap();
        fs::write(class.join("mon_groups/web/tasks"), "").unwrap();
        let entrances = groups.entrances().unwrap();
        nix::unistd::write(&entrances[0], b"class").unwrap();
        nix::unistd::write(&entrances[1], b"monitoring").unwrap();
        assert_eq!(fs::read_to_string(class.join("tasks")).unwrap(), "class");
        assert_eq!(fs::read_to_string(class.join("mon_groups/web/tasks")).unwrap(), "monitoring");
    }

    #[test]
    fn resctrl_is_found_among_the_mounts() {
        let mounts =
            "29 1 0:26 / /sys rw - sysfs sysfs rw\n40 29 0:35 / /sys/fs/resctrl rw,nosuid - resctrl resctrl rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/resctrl"));
        assert_eq!(mount_point("29 1 0:26 / /resctrl rw - tmpfs resctrl rw\n"), None);
    }
}
