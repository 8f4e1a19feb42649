//! cgroup v1: a directory in every hierarchy, and one in cgroup2 where the host mounts that beside them (hybrid).

pub(super) mod limit;

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::device::{Lists, Policy, Step, transition};
use super::dir::{Dir, Made, tree};
use super::files::Hierarchies;
use super::journal::{Journal, RememberedHierarchies};
use super::outline::Version;
use super::stat::Stats;
use super::v2::{freeze_unified, frozen_unified, kill_unified};
use super::{Cgroup, Freezer, Location, field, refuse_occupied, removal};
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::{Error, Result};

/// A container's cgroups in the hierarchies of v1.
#[derive(Debug)]
pub(super) struct Manager {
    location: Location,
    hierarchies: Vec<Hierarchy>,
    /// The directory in cgroup2. It has no controllers, but what v1 never got: clone into it, kill, events.
    unified: Option<Dir>,
    /// Whether this manager made the devices directory: then nobody has entered it, and its list is the parent's.
    fresh: Cell<bool>,
}

#[derive(Debug)]
struct Hierarchy {
    /// `cpu,cpuacct`.
    controllers: String,
    dir: Dir,
}

impl Manager {
    pub(super) fn new(location: &Location) -> Self {
        let mut hierarchies = Vec::new();
        let mut unified = None;
        for directory in &location.directories {
            let dir = Dir::new(&directory.path);
            if directory.hierarchy.is_empty() {
                unified = Some(dir);
            } else {
                hierarchies.push(Hierarchy { controllers: directory.hierarchy.clone(), dir });
            }
        }
        Self { location: location.clone(), hierarchies, unified, fresh: Cell::new(false) }
    }

    /// Takes over the directories that systemd has made, makes those in the hierarchies that it leaves alone, and puts
    /// `process` into all: from outside, which costs an RCU grace period each. On a host that is still on v1 systemd has
    /// paid that before.
    pub(super) fn adopt(&self, process: Option<u32>) -> Result<()> {
        self.make_directories(|_| Ok(()))?;
        self.fresh.set(false);
        let Some(process) = process else { return Ok(()) };
        for dir in self.dirs() {
            dir.write("cgroup.procs", &process.to_string())?;
        }
        Ok(())
    }

    /// The directory in the hierarchy of `controller`.
    fn find(&self, controller: &str) -> Option<&Dir> {
        let of = |hierarchy: &&Hierarchy| hierarchy.controllers.split(',').any(|name| name == controller);
        self.hierarchies.iter().find(of).map(|hierarchy| &hierarchy.dir)
    }

    fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.hierarchies.iter().map(|hierarchy| &hierarchy.dir).chain(&self.unified)
    }

    /// Makes what is missing; `look` may refuse what was there.
    fn make_directories(&self, look: impl FnOnce(&[&Dir]) -> Result<()>) -> Result<()> {
        let mut made = Made::default();
        let mut existed = Vec::new();
        for dir in self.dirs() {
            if !made.mkdir(dir.path())? {
                existed.push(dir);
            }
        }
        look(&existed)?;
        if let Some(cpuset) = self.find("cpuset") {
            let ours = |path: &Path| cpuset.path().starts_with(path);
            for path in made.paths().iter().filter(|path| ours(path)) {
                inherit_cpuset(path)?;
            }
            if existed.iter().any(|dir| dir.path() == cpuset.path()) && cpuset.read("cpuset.cpus")?.trim().is_empty() {
                inherit_cpuset(cpuset.path())?;
            }
        }
        let fresh = |dir: &Dir| made.paths().iter().any(|path| path == dir.path());
        self.fresh.set(self.find("devices").is_some_and(fresh));
        made.keep();
        Ok(())
    }

    /// As [`Cgroup::update`], and what `then` does besides: everything is taken back if that fails.
    pub(super) fn update_then<T>(&self, resources: &LinuxResources, then: impl FnOnce() -> Result<T>) -> Result<T> {
        field::warn_ignored(Version::V1, resources);
        let journal = Journal::default();
        let files = self.hierarchies.iter().map(|one| (one.controllers.as_str(), journal.of(&one.dir)));
        let files = RememberedHierarchies(files.collect());
        let changed = limit::apply(&files, resources);
        drop(files);
        journal.settle(changed.and_then(|()| match resources.devices() {
            Some(rules) => self.allow_devices_then(rules, then),
            None => then(),
        }))
    }

    fn allow_devices_then<T>(&self, rules: &[LinuxDeviceCgroup], then: impl FnOnce() -> Result<T>) -> Result<T> {
        let dir = self.require("devices", "linux.resources.devices")?;
        let read = || dir.read("devices.list").and_then(|list| Lists::parse(&list));
        let before = read()?;
        self.allow_devices(rules)?;
        then().or_else(|error| {
            // An open list hides what is excepted from it: it cannot be made again.
            let restored =
                !before.allows_by_default() && read().and_then(|now| self.change_list(dir, &now, &before)).is_ok();
            if restored { Err(error) } else { Err(error).during(|| "not put back: linux.resources.devices") }
        })
    }

    /// Leads the list of a cgroup in use from `current` to `target`.
    fn change_list(&self, dir: &Dir, current: &Lists, target: &Lists) -> Result<()> {
        let steps = transition(Some(current), target);
        if steps.iter().all(|(_, rule)| rule != "a") {
            return write_rules(dir, steps).inspect_err(|_| {
                // As it was, as far as that goes. Where the default changes nothing is: opening everything is no way back.
                if let Ok(now) = dir.read("devices.list").and_then(|list| Lists::parse(&list)) {
                    let _what_is_reported_is_the_cause = write_rules(dir, transition(Some(&now), current));
                }
            });
        }
        // Another default comes by closing or opening everything at once: nobody is to run at that instant.
        let thawed = self.frozen()? == Freezer::Thawed;
        if thawed {
            self.freeze(Freezer::Frozen, Deadline::after(FREEZE_FOR_DEVICES))
                .during(|| "linux.resources.devices: to change the default of the list")?;
        }
        let written = write_rules(dir, steps);
        if thawed {
            self.freeze(Freezer::Thawed, Deadline::after(FREEZE_FOR_DEVICES))?;
        }
        written
    }

    /// Refuses the directories that were there before if something is in them.
    fn refuse_used(&self, existed: &[&Dir]) -> Result<()> {
        if existed.is_empty() {
            return Ok(());
        }
        let mut pids = Vec::new();
        for dir in existed {
            pids.extend(dir.pids()?);
        }
        pids.sort_unstable();
        pids.dedup();
        refuse_occupied(&pids, self.frozen()?)
    }
}

impl Hierarchies for Manager {
    type Files = Dir;

    fn of(&self, controller: &str) -> Option<&Dir> {
        self.find(controller)
    }
}

/// How long an update of the device list waits for the processes to stop.
const FREEZE_FOR_DEVICES: Duration = Duration::from_secs(2);

fn write_rules(dir: &Dir, steps: Vec<Step>) -> Result<()> {
    let mut open: Option<(&str, OwnedFd)> = None;
    for (file, rule) in steps {
        let fd = match open.take() {
            Some((name, fd)) if name == file => fd,
            _ => dir.open(file, OFlag::O_WRONLY).call(|| format!("open({:?})", dir.path().join(file)))?,
        };
        // One rule per write(2): the kernel stops reading at the end of the first.
        nix::unistd::write(&fd, rule.as_bytes()).call(|| dir.write_text(file, &rule))?;
        open = Some((file, fd));
    }
    Ok(())
}

/// A cpuset of v1 starts empty and admits nobody (ENOSPC) before it has CPUs and memory nodes: they are copied down
/// from the parent, which may be as empty if something else made it.
fn inherit_cpuset(path: &Path) -> Result<()> {
    let parent = path.parent().ok_or_else(|| Error::Refused(format!("{path:?} has no parent cpuset")))?;
    let (parent, dir) = (Dir::new(parent), Dir::new(path));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = parent.read(file)?;
        if value.trim().is_empty() {
            inherit_cpuset(parent.path())?;
            value = parent.read(file)?;
        }
        dir.write(file, value.trim())?;
    }
    Ok(())
}

impl Cgroup for Manager {
    fn location(&self) -> &Location {
        &self.location
    }

    fn create(&self, _: Deadline) -> Result<()> {
        self.make_directories(|existed| self.refuse_used(existed))
    }

    fn apply(&self, resources: &LinuxResources) -> Result<()> {
        field::warn_ignored(Version::V1, resources);
        limit::apply(self, resources)
    }

    fn update(&self, resources: &LinuxResources, _: Deadline) -> Result<()> {
        self.update_then(resources, || Ok(()))
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let target = Lists::of(&Policy::of(rules, &self.location.own_devices)?)?;
        let dir = self.require("devices", "linux.resources.devices")?;
        if self.fresh.replace(false) {
            // Not read for a directory of our own making: the parent's list is swept away anyway.
            return write_rules(dir, transition(None, &target));
        }
        let current = Lists::parse(&dir.read("devices.list")?)?;
        self.change_list(dir, &current, &target)
    }

    fn clone_target(&self) -> Result<Option<OwnedFd>> {
        let Some(unified) = &self.unified else { return Ok(None) };
        unified.open_itself().call(|| format!("open({:?})", unified.path())).map(Some)
    }

    fn entrances(&self) -> Result<Vec<OwnedFd>> {
        let open =
            |dir: &Dir| dir.open("tasks", OFlag::O_WRONLY).call(|| format!("open({:?})", dir.path().join("tasks")));
        self.hierarchies.iter().map(|hierarchy| open(&hierarchy.dir)).collect()
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        // A process of the container is in all of them, but one whose runtime was killed half way in is in cgroup2
        // alone (it was born there); freezer is the hierarchy that nobody leaves for its limits.
        let mut pids = Vec::new();
        for dir in self.unified.iter().chain(self.find("freezer").or_else(|| self.dirs().next())) {
            pids.extend(dir.pids()?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn freeze(&self, freezer: Freezer, deadline: Deadline) -> Result<()> {
        match (self.find("freezer"), &self.unified) {
            (Some(dir), _) => freeze(dir, freezer, deadline),
            (None, Some(unified)) => freeze_unified(unified, freezer, deadline),
            (None, None) => Err(Error::Refused("this host has no freezer: neither on cgroup v1 nor cgroup2".into())),
        }
    }

    fn frozen(&self) -> Result<Freezer> {
        match (self.find("freezer"), &self.unified) {
            (Some(dir), _) => frozen(dir),
            (None, Some(unified)) => frozen_unified(unified),
            (None, None) => Ok(Freezer::Thawed),
        }
    }

    fn kill(&self) -> Result<()> {
        let dir = self.find("freezer");
        let thaw = || dir.map_or(Ok(()), thaw_tree);
        if let Some(unified) = &self.unified
            && kill_unified(unified)?
        {
            // A process that the v1 freezer holds dies when it is thawed, not before.
            return thaw();
        }
        // No cgroup2, or a kernel before 5.14. Frozen, so that nothing forks away from the list.
        let frozen = match dir {
            Some(dir) if dir.path().exists() => freeze(dir, Freezer::Frozen, Deadline::after(super::FREEZE_FOR_KILL)),
            _ => Ok(()),
        };
        let killed = match dir.or_else(|| self.dirs().next()) {
            Some(dir) => removal::kill_each(dir).map(drop),
            None => Ok(()),
        };
        thaw()?;
        // Whatever could not be frozen was signalled all the same; `remove` looks again until nothing is left.
        if let Err(error) = frozen {
            tracing::debug!("killed without freezing: {error}");
        }
        killed
    }

    fn remove(&self, deadline: Deadline) -> Result<()> {
        removal::remove(self, self.unified.as_ref(), deadline)
    }

    fn stats(&self) -> Result<Stats> {
        super::stat::v1(|controller| self.find(controller), self.unified.as_ref())
    }
}

/// After how many looks at a cgroup that does not freeze it is thawed for a moment.
const LOOKS_BEFORE_THAW: u32 = 20;

/// `freezer.state` of v1. FREEZING until every task has stopped; nothing reports that, reading the file makes the
/// kernel look again.
fn freeze(dir: &Dir, freezer: Freezer, deadline: Deadline) -> Result<()> {
    if freezer == Freezer::Thawed {
        return dir.write("freezer.state", "THAWED");
    }
    let mut pause = Duration::from_micros(50);
    for look in 1.. {
        // Written every time: a task that was forked while the kernel walked the list is caught by the next walk.
        dir.write("freezer.state", "FROZEN")?;
        let state = dir.read("freezer.state")?;
        if state.trim() == "FROZEN" {
            return Ok(());
        }
        if deadline.passed() {
            let sleepers = removal::sleepers(dir)?;
            dir.write("freezer.state", "THAWED")?;
            let what = format_args!("cgroup {:?} is still {}{sleepers}", dir.path(), state.trim());
            return Err(deadline.late(what));
        }
        if look % LOOKS_BEFORE_THAW == 0 {
            // A task in uninterruptible sleep may wait for one that is frozen already (a FUSE server, the holder of a
            // lock): neither would ever move. The kernel's documentation asks user space to thaw and try again.
            dir.write("freezer.state", "THAWED")?;
        }
        // The v1 freezer has no event to wait for.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    Ok(())
}

/// Thaws a cgroup that is to die, and those below it, which the container may have frozen itself.
fn thaw_tree(dir: &Dir) -> Result<()> {
    // Parents first: a child of a frozen cgroup does not thaw.
    for path in tree(dir.path()).call(|| format!("readdir({:?})", dir.path()))?.iter().rev() {
        let dir = Dir::new(path);
        match dir.try_write("freezer.state", "THAWED") {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(Error::call(dir.write_text("freezer.state", "THAWED"), errno)),
        }
    }
    Ok(())
}

fn frozen(dir: &Dir) -> Result<Freezer> {
    match dir.try_read("freezer.state") {
        Ok(text) if text.trim() == "THAWED" => Ok(Freezer::Thawed),
        Ok(_) => Ok(Freezer::Frozen),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Freezer::Thawed),
        Err(errno) => Err(Error::call(format!("read({:?})", dir.path().join("freezer.state")), errno)),
    }
}

#[cfg(test)]
mod tests;
