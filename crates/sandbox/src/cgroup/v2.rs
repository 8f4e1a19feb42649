//! cgroup v2: one directory, everything in it, by its fd.

pub(super) mod limit;
mod memory;

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::device::{self, Policy};
use super::dir::{Dir, Made};
use super::event::{self, Wait};
use super::files::Occupancy;
use super::journal::Journal;
use super::outline::Version;
use super::stat::Stats;
use super::{Cgroup, Freezer, Location, field, refuse_occupied, removal};
use crate::error::CallContext;
use crate::sys::bpf;
use crate::{Error, Result};

/// A container's cgroup on a pure cgroup2 mount.
#[derive(Debug)]
pub(super) struct Manager {
    location: Location,
    /// Where the hierarchy is mounted.
    root: PathBuf,
    dir: Dir,
    /// Whether this manager made the directory: then no device program hangs on it.
    fresh: Cell<bool>,
}

impl Manager {
    pub(super) fn new(root: &Path, location: &Location, path: &Path) -> Self {
        Self { location: location.clone(), root: root.to_path_buf(), dir: Dir::new(path), fresh: Cell::new(false) }
    }

    /// Takes over a directory that systemd has made, with a device program of its own perhaps.
    pub(super) fn adopt(&self) -> Result<()> {
        self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?;
        // systemd hands down those that it knows: not hugetlb, rdma, misc.
        self.enable_controllers()
    }

    /// Makes every controller of the host available in the container's cgroup, as runc does: statistics want those
    /// that no limit asks for. Usually an earlier container of the same parent has paid: then this is two reads.
    ///
    /// A controller that an ancestor cannot pass on (it has processes, it is threaded) is left out: that is an error
    /// only for the limit that needs it, and said there.
    fn enable_controllers(&self) -> Result<()> {
        let all = Dir::new(&self.root).read("cgroup.controllers")?;
        let here = self.dir.read("cgroup.controllers")?;
        if lacking(&all, &here).is_empty() {
            return Ok(());
        }
        let below_root = self.dir.path().strip_prefix(&self.root).unwrap_or(Path::new(""));
        let mut ancestors: Vec<&Path> = below_root.ancestors().skip(1).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let ancestor = Dir::new(&self.root.join(ancestor));
            let missing = lacking(&ancestor.read("cgroup.controllers")?, &ancestor.read("cgroup.subtree_control")?);
            if missing.is_empty() || ancestor.try_write("cgroup.subtree_control", &missing.join(" ")).is_ok() {
                continue;
            }
            // All or none is what the kernel did: find out which ones can be had.
            for controller in missing {
                if let Err(errno) = ancestor.try_write("cgroup.subtree_control", &controller) {
                    tracing::debug!("{controller} in {:?}: {errno}", ancestor.path().join("cgroup.subtree_control"));
                }
            }
        }
        Ok(())
    }
}

/// The words of `all` that `here` lacks, as `cgroup.subtree_control` takes them: `+memory`.
fn lacking(all: &str, here: &str) -> Vec<String> {
    let here: Vec<&str> = here.split_whitespace().collect();
    all.split_whitespace().filter(|word| !here.contains(word)).map(|word| format!("+{word}")).collect()
}

impl Cgroup for Manager {
    fn location(&self) -> &Location {
        &self.location
    }

    fn create(&self) -> Result<()> {
        let mut made = Made::default();
        let new = made.mkdir(self.dir.path())?;
        self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?;
        if !new {
            refuse_occupied(&self.dir.pids()?, self.frozen()?)?;
        }
        self.enable_controllers()?;
        self.fresh.set(new);
        made.keep();
        Ok(())
    }

    fn apply(&self, resources: &LinuxResources) -> Result<()> {
        field::warn_ignored(Version::V2, resources);
        limit::apply(&self.dir, resources, Occupancy::Empty)
    }

    fn update(&self, resources: &LinuxResources) -> Result<()> {
        field::warn_ignored(Version::V2, resources);
        let journal = Journal::default();
        let changed = limit::apply(&journal.of(&self.dir), resources, Occupancy::InUse);
        journal.settle(changed.and_then(|()| match resources.devices() {
            Some(rules) => self.allow_devices(rules),
            None => Ok(()),
        }))
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let program = device::compile(&Policy::new(rules)?);
        let purpose = || format!("device program of {:?}", self.dir.path());
        let cgroup = self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?.as_fd();
        let program = bpf::load_device_program(&program).call(|| format!("bpf(BPF_PROG_LOAD): {}", purpose()))?;
        let attached = if self.fresh.replace(false) {
            Vec::new()
        } else {
            bpf::device_programs(cgroup).call(|| format!("bpf(BPF_PROG_QUERY): {}", purpose()))?
        };
        // There is no instant without a program: ours takes the old one's place, or hangs beside it before it goes
        // (several programs must all allow, so beside means stricter).
        let replaced = match attached.as_slice() {
            [old] => bpf::replace_device_program(cgroup, program.as_fd(), old.as_fd()).is_ok(),
            _ => false,
        };
        if replaced {
            return Ok(());
        }
        bpf::attach_device_program(cgroup, program.as_fd()).call(|| format!("bpf(BPF_PROG_ATTACH): {}", purpose()))?;
        for old in &attached {
            match bpf::detach_device_program(cgroup, old.as_fd()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Error::call(format!("bpf(BPF_PROG_DETACH): {}", purpose()), errno)),
            }
        }
        Ok(())
    }

    fn clone_target(&self) -> Result<Option<OwnedFd>> {
        self.dir.open_itself().call(|| format!("open({:?})", self.dir.path())).map(Some)
    }

    fn entrances(&self) -> Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        self.dir.pids()
    }

    fn freeze(&self, freezer: Freezer, deadline: Instant) -> Result<()> {
        freeze_unified(&self.dir, freezer, deadline)
    }

    fn frozen(&self) -> Result<Freezer> {
        frozen_unified(&self.dir)
    }

    fn kill(&self) -> Result<()> {
        if kill_unified(&self.dir)? {
            return Ok(());
        }
        // Kernel < 5.14. Frozen, so that nothing forks away from the list; a frozen process of cgroup2 can be killed.
        let deadline = Instant::now() + super::FREEZE_FOR_KILL;
        let frozen = self.freeze(Freezer::Frozen, deadline);
        let killed = removal::kill_each(&self.dir);
        self.freeze(Freezer::Thawed, deadline)?;
        frozen.and(killed).map(drop)
    }

    fn remove(&self, deadline: Instant) -> Result<()> {
        removal::remove(self, Some(&self.dir), deadline)
    }

    fn stats(&self) -> Result<Stats> {
        super::stat::v2(&self.dir)
    }
}

/// Writes `cgroup.kill` (kernel ≥ 5.14): everything inside and below, whatever it forks, even frozen. False if there is
/// no such file; a cgroup that is gone has nothing to kill.
pub(super) fn kill_unified(dir: &Dir) -> Result<bool> {
    match dir.try_write("cgroup.kill", "1") {
        Ok(()) | Err(Errno::ENODEV) => Ok(true),
        Err(Errno::ENOENT) => Ok(!dir.path().exists()),
        Err(errno) => Err(Error::call(dir.write_text("cgroup.kill", "1"), errno)),
    }
}

/// `cgroup.freeze` (kernel ≥ 5.2), and waits for the kernel to say that it is so. Nothing stays half frozen.
pub(super) fn freeze_unified(dir: &Dir, freezer: Freezer, deadline: Instant) -> Result<()> {
    let (value, frozen) = match freezer {
        Freezer::Frozen => ("1", true),
        Freezer::Thawed => ("0", false),
    };
    dir.write("cgroup.freeze", value)?;
    if event::wait_for(dir, "frozen", frozen, deadline)? == Wait::Late {
        if frozen {
            dir.write("cgroup.freeze", "0")?;
        }
        return Err(Error::Refused(format!("cgroup {:?} did not become frozen={value} in time", dir.path())));
    }
    Ok(())
}

/// Our own switch, not what an ancestor does: `resume` could not undo that.
pub(super) fn frozen_unified(dir: &Dir) -> Result<Freezer> {
    match dir.try_read("cgroup.freeze") {
        Ok(text) if text.trim() == "1" => Ok(Freezer::Frozen),
        Ok(_) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(Freezer::Thawed),
        Err(errno) => Err(Error::call(format!("read({:?})", dir.path().join("cgroup.freeze")), errno)),
    }
}

#[cfg(test)]
mod tests;
