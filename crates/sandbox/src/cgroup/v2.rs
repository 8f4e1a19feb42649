//! cgroup v2: one directory, everything in it, by its fd.

pub(super) mod limit;
mod memory;

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::device::device_program;
use super::dir::{Dir, Made};
use super::event::{self, Wait};
use super::files::Occupancy;
use super::journal::Journal;
use super::outline::Version;
use super::stat::Stats;
use super::{Cgroup, Freezer, Location, field, refuse_occupied, removal};
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
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

    /// Takes over a directory that systemd has made, with a device program of its own perhaps, and looks whether `process`
    /// is inside: a systemd that is not in our pid namespace knows another one by that number.
    pub(super) fn adopt(&self, process: Option<u32>) -> Result<()> {
        self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?;
        if let Some(process) = process.map(|pid| pid.to_string())
            && !self.dir.read("cgroup.procs")?.lines().any(|line| line == process)
        {
            return Err(Error::Refused(format!(
                "systemd has not put process {process} into {:?}: is it in another pid namespace?",
                self.dir.path()
            )));
        }
        // systemd hands down those that it knows: not hugetlb, rdma, misc.
        self.enable_controllers()
    }

    /// As [`Cgroup::update`], and what `then` does besides: everything is taken back if that fails.
    pub(super) fn update_then<T>(&self, resources: &LinuxResources, then: impl FnOnce() -> Result<T>) -> Result<T> {
        field::warn_ignored(Version::V2, resources);
        let journal = Journal::default();
        let changed = limit::apply(&journal.of(&self.dir), resources, Occupancy::InUse);
        journal.settle(changed.and_then(|()| match resources.devices() {
            Some(rules) => self.allow_devices_then(rules, then),
            None => then(),
        }))
    }

    fn allow_devices_then<T>(&self, rules: &[LinuxDeviceCgroup], then: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.device_programs()?;
        self.allow_devices(rules)?;
        then().or_else(|error| {
            let restored = self.device_programs().and_then(|now| self.exchange_device_programs(&now, &before));
            if restored.is_ok() { Err(error) } else { Err(error).during(|| "not put back: linux.resources.devices") }
        })
    }

    fn about_devices(&self, command: &str) -> String {
        format!("bpf({command}): device program of {:?}", self.dir.path())
    }

    /// What hangs on the cgroup: our program, under systemd its own besides.
    fn device_programs(&self) -> Result<Vec<OwnedFd>> {
        let cgroup = self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?;
        bpf::device_programs(cgroup.as_fd()).call(|| self.about_devices("BPF_PROG_QUERY"))
    }

    /// Puts `new` programs in the place of `old` ones. There is no instant without one: one takes the other's place, or hangs
    /// beside it before it goes (several programs must all allow, so beside means stricter).
    fn exchange_device_programs(&self, old: &[OwnedFd], new: &[OwnedFd]) -> Result<()> {
        let cgroup = self.dir.hold().call(|| format!("open({:?})", self.dir.path()))?.as_fd();
        if let ([old], [new]) = (old, new)
            && bpf::replace_device_program(cgroup, new.as_fd(), old.as_fd()).is_ok()
        {
            return Ok(());
        }
        for program in new {
            bpf::attach_device_program(cgroup, program.as_fd()).call(|| self.about_devices("BPF_PROG_ATTACH"))?;
        }
        for program in old {
            match bpf::detach_device_program(cgroup, program.as_fd()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Error::call(self.about_devices("BPF_PROG_DETACH"), errno)),
            }
        }
        Ok(())
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
            if missing.is_empty() || is_inhabited(&ancestor) {
                continue;
            }
            if ancestor.try_write("cgroup.subtree_control", &missing.join(" ")).is_ok() {
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

/// Whether processes are in the cgroup itself, and it is not the root of all. Most controllers it cannot pass on then (EBUSY);
/// some it could, and would become the root of a threaded subtree, in which no process is born (EOPNOTSUPP). So are
/// containers in containers.
fn is_inhabited(dir: &Dir) -> bool {
    // The root of all has no type.
    dir.try_read("cgroup.procs").is_ok_and(|procs| !procs.is_empty()) && dir.try_read("cgroup.type").is_ok()
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

    fn create(&self, _: Deadline) -> Result<()> {
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

    fn update(&self, resources: &LinuxResources, _: Deadline) -> Result<()> {
        self.update_then(resources, || Ok(()))
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let program = device_program(rules, &self.location.own_devices)?;
        let program = bpf::load_device_program(&program).call(|| self.about_devices("BPF_PROG_LOAD"))?;
        let attached = if self.fresh.replace(false) { Vec::new() } else { self.device_programs()? };
        self.exchange_device_programs(&attached, &[program])
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

    fn freeze(&self, freezer: Freezer, deadline: Deadline) -> Result<()> {
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
        let deadline = Deadline::after(super::FREEZE_FOR_KILL);
        let frozen = self.freeze(Freezer::Frozen, deadline);
        let killed = removal::kill_each(&self.dir);
        self.freeze(Freezer::Thawed, deadline)?;
        frozen.and(killed).map(drop)
    }

    fn remove(&self, deadline: Deadline) -> Result<()> {
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
pub(super) fn freeze_unified(dir: &Dir, freezer: Freezer, deadline: Deadline) -> Result<()> {
    let (value, frozen) = match freezer {
        Freezer::Frozen => ("1", true),
        Freezer::Thawed => ("0", false),
    };
    dir.write("cgroup.freeze", value)?;
    if event::wait_for(dir, "frozen", frozen, deadline)? == Wait::Late {
        let what = if frozen {
            let sleepers = removal::sleepers(dir)?;
            dir.write("cgroup.freeze", "0")?;
            format!("cgroup {:?} did not freeze{sleepers}", dir.path())
        } else {
            // Our switch is off: what still holds is another's.
            format!("cgroup {:?} is still frozen: one above it is", dir.path())
        };
        return Err(deadline.late(what));
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
