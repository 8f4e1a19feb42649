//! systemd: the cgroup is that of a unit, made by systemd around stage 1, limited by properties and by files.
//!
//! A scope needs a process to be (systemd.scope(5)): stage 1 waits in the runtime's own cgroup until systemd has moved it.
//! After that the files are ours (`Delegate=yes`), and all but `update` does without systemd: whoever joins, freezes,
//! counts or kills uses the directory, and the unit ends by itself once that is empty.

mod bus;
mod host;
mod job;
mod message;
mod property;
mod text;
mod unit;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use self::bus::Connection;
use self::job::Property;
use self::property::Settings;
pub use self::unit::{Bus, Unit};
use super::dir::Dir;
use super::event::{self, Wait};
use super::outline::{self, Version};
use super::stat::Stats;
use super::{Cgroup, Driver, Freezer, Location, v1, v2};
use crate::deadline::Deadline;
use crate::error::CallContext;
use crate::{Error, Result};

/// How long systemd may take to notice that a cgroup is empty, before it is told to stop the unit.
const NOTICE: Duration = Duration::from_secs(2);

/// Works out the unit for `cgroups_path`, and where its directories will be in a cgroup root of `root`.
pub(super) fn locate(root: &Path, cgroups_path: Option<&Path>, id: &str) -> Result<Location> {
    let bus = host::bus();
    host::require_systemd(bus)?;
    let unit = Unit::of(cgroups_path, id, bus)?;
    let path = Path::new("/").join(host::base(bus)).join(unit.path()?);
    let location = super::host::locate(root, Some(&path), id)?;
    Ok(Location { driver: Driver::Systemd, unit: Some(unit), ..location })
}

/// What a unit is started with.
#[derive(Debug)]
struct Asked {
    id: String,
    /// `linux.resources`, devices and annotations.
    properties: Vec<Property>,
}

/// The files of the unit's directories.
#[derive(Debug)]
enum Files {
    V1(v1::Manager),
    V2(v2::Manager),
}

impl Files {
    fn cgroup(&self) -> &dyn Cgroup {
        match self {
            Self::V1(manager) => manager,
            Self::V2(manager) => manager,
        }
    }

    /// Changes them; takes everything back if `then` fails.
    fn update_then<T>(&self, resources: &LinuxResources, then: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::V1(manager) => manager.update_then(resources, then),
            Self::V2(manager) => manager.update_then(resources, then),
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::V1(_) => Version::V1,
            Self::V2(_) => Version::V2,
        }
    }
}

/// A container's cgroup as a unit of systemd.
#[derive(Debug)]
pub(super) struct Manager {
    unit: Unit,
    files: Files,
    /// None for a container that exists.
    asked: Option<Asked>,
    /// Whether the unit is there, as far as this command has to do with it.
    started: Cell<bool>,
    /// One for the whole command.
    connection: RefCell<Option<Connection>>,
}

impl Manager {
    pub(super) fn new(root: &Path, location: &Location, unit: &Unit) -> Self {
        let files = match location.directories.as_slice() {
            [only] if only.hierarchy.is_empty() => Files::V2(v2::Manager::new(root, location, &only.path)),
            _ => Files::V1(v1::Manager::new(location)),
        };
        Self { unit: unit.clone(), files, asked: None, started: Cell::new(true), connection: RefCell::new(None) }
    }

    /// For a container that is to be.
    ///
    /// # Errors
    /// An annotation that is no property; limits that this version of cgroups does not have.
    pub(super) fn prepare<'a>(
        mut self,
        id: &str,
        resources: &LinuxResources,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self> {
        let writes = outline::writes(self.location(), resources)?;
        let settings = writes.into_iter().filter_map(|write| Some((file_name(&write.path)?, write.value))).collect();
        let mut properties = property::of_settings(self.files.version(), &settings);
        properties.extend(property::of_devices(self.unit.bus, resources.devices().as_deref().unwrap_or_default())?);
        properties = property::merge(properties, property::of_annotations(annotations)?);
        self.asked = Some(Asked { id: id.to_owned(), properties });
        self.started.set(false);
        Ok(self)
    }

    /// Uses the connection of this command; the first user opens it.
    fn with_systemd<T>(&self, deadline: Deadline, use_it: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let mut slot = self.connection.borrow_mut();
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::open(self.unit.bus, deadline)?,
        };
        connection.set_deadline(deadline);
        // One that failed is not used again: what comes over it next could be the answer to another question.
        let value = use_it(&mut connection)?;
        *slot = Some(connection);
        Ok(value)
    }

    fn start(&self, process: Option<Pid>, deadline: Deadline) -> Result<()> {
        let Some(asked) = &self.asked else {
            return Err(Error::Refused(format!("{} exists", self.unit.name)));
        };
        let process = process.and_then(|pid| u32::try_from(pid.as_raw()).ok());
        let basic = property::basic(&self.unit, &asked.id, self.files.version(), process);
        let properties = property::merge(basic, asked.properties.clone());
        let start = |properties: &[Property]| {
            self.with_systemd(deadline, |systemd| job::start(systemd, &self.unit, properties))
        };
        unless_idle_is_refused(&properties, start)?;
        self.started.set(true);
        match &self.files {
            Files::V1(manager) => manager.adopt(process),
            Files::V2(manager) => manager.adopt(process),
        }
    }

    /// Tells the unit what it does not know yet: all of it or nothing, which systemd looks at before it changes anything.
    fn tell(&self, properties: Vec<Property>, deadline: Deadline) -> Result<Told> {
        let known = self.asked.as_ref().map(|asked| asked.properties.as_slice()).unwrap_or_default();
        let news: Vec<Property> = properties.into_iter().filter(|property| !known.contains(property)).collect();
        if news.is_empty() {
            return Ok(Told::Nothing);
        }
        unless_idle_is_refused(&news, |properties| {
            self.with_systemd(deadline, |systemd| job::set(systemd, &self.unit, properties))
        })?;
        Ok(Told::News)
    }

    /// Makes files exact again that systemd writes what it has rounded to.
    fn write_exactly(&self, exact: &Settings, deadline: Deadline) -> Result<()> {
        self.with_systemd(deadline, Connection::ping)?;
        for directory in &self.location().directories {
            let dir = Dir::new(&directory.path);
            for file in ["cpu.max", "cpu.cfs_quota_us", "cpu.idle"] {
                let Some(value) = exact.get(file).map(|value| value.trim()) else { continue };
                if dir.try_read(file).is_ok_and(|now| now.trim() != value) {
                    dir.write(file, value)?;
                }
            }
        }
        Ok(())
    }

    /// What the files that `resources` touches say now.
    fn settings(&self, resources: &LinuxResources) -> Result<Settings> {
        let mut settings = BTreeMap::new();
        for write in outline::writes(self.location(), resources)? {
            let (Some(name), Some(dir)) = (file_name(&write.path), write.path.parent().map(Dir::new)) else { continue };
            let companions = property::companions(self.files.version(), &name).iter().map(|name| (*name).to_owned());
            for file in companions.chain([name]) {
                // One that the kernel does not have was not written either.
                if let Ok(value) = dir.try_read(&file) {
                    settings.insert(file, value);
                }
            }
        }
        Ok(settings)
    }

    /// Waits until systemd has removed the directory of a unit that has become empty: by then it has forgotten the unit,
    /// and the name is free.
    fn await_removal(&self, deadline: Deadline) -> Result<Wait> {
        let Some(directory) = self.systemds_directory() else { return Ok(Wait::Done) };
        let Some(parent) = directory.parent() else { return Ok(Wait::Done) };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).call(|| "inotify_init1()")?;
        match inotify.add_watch(parent, AddWatchFlags::IN_DELETE) {
            Ok(_) => {}
            // The slice went with its last unit.
            Err(Errno::ENOENT) => return Ok(Wait::Done),
            Err(errno) => return Err(errno).call(|| format!("inotify_add_watch({parent:?})")),
        }
        let inotify = OwnedFd::from(inotify);
        let mut events = [0; 4096];
        // Looked at after the watch was set: a removal is either seen or reported.
        while directory.exists() {
            if event::sleep_on(std::slice::from_ref(&inotify), PollFlags::POLLIN, deadline)? == Wait::Late {
                return Ok(Wait::Late);
            }
            match nix::unistd::read(&inotify, &mut events) {
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno).call(|| "read(inotify)"),
            }
        }
        Ok(Wait::Done)
    }

    /// The directory that systemd made and watches: on v1 that of its own hierarchy.
    fn systemds_directory(&self) -> Option<&Path> {
        let directories = &self.location().directories;
        let own = directories.iter().find(|directory| directory.hierarchy == "name=systemd");
        own.or(directories.last()).map(|directory| directory.path.as_path())
    }
}

/// What the unit learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    News,
    Nothing,
}

/// A systemd before 252 refuses the weight `idle`: again without it then, and the error is the second one's.
fn unless_idle_is_refused(properties: &[Property], tell: impl Fn(&[Property]) -> Result<()>) -> Result<()> {
    match (tell(properties), property::without_idle(properties)) {
        (Err(_), Some(rest)) => tell(&rest),
        (told, _) => told,
    }
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

impl Cgroup for Manager {
    fn location(&self) -> &Location {
        self.files.cgroup().location()
    }

    fn wants_process(&self) -> bool {
        self.asked.is_some() && !self.unit.is_slice()
    }

    fn create(&self, deadline: Deadline) -> Result<()> {
        self.start(None, deadline)
    }

    fn create_around(&self, process: Pid, deadline: Deadline) -> Result<()> {
        self.start(Some(process), deadline)
    }

    fn apply(&self, resources: &LinuxResources) -> Result<()> {
        // The unit was started with them, but for what it had to round: now the files are exact.
        self.files.cgroup().apply(resources)
    }

    fn update(&self, resources: &LinuxResources, deadline: Deadline) -> Result<()> {
        // Before anything is changed: a systemd that is not there changes nothing.
        self.with_systemd(deadline, |_| Ok(()))?;
        let (told, exact) = self.files.update_then(resources, || {
            let exact = self.settings(resources)?;
            let mut properties = property::of_settings(self.files.version(), &exact);
            if let Some(rules) = resources.devices() {
                properties.extend(property::of_devices(self.unit.bus, rules)?);
            }
            Ok((self.tell(properties, deadline)?, exact))
        })?;
        // The update has happened by now: what fails here leaves a quota a little above what was asked for.
        if told == Told::News
            && let Err(error) = self.write_exactly(&exact, deadline)
        {
            tracing::warn!("{error}: the limits are as systemd has rounded them");
        }
        Ok(())
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        self.files.cgroup().allow_devices(rules)
    }

    fn clone_target(&self) -> Result<Option<OwnedFd>> {
        // Stage 1 of a scope that is to be is inside already when it forks init.
        if self.started.get() { self.files.cgroup().clone_target() } else { Ok(None) }
    }

    fn entrances(&self) -> Result<Vec<OwnedFd>> {
        if self.started.get() { self.files.cgroup().entrances() } else { Ok(Vec::new()) }
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        self.files.cgroup().pids()
    }

    fn freeze(&self, freezer: Freezer, deadline: Deadline) -> Result<()> {
        self.files.cgroup().freeze(freezer, deadline)
    }

    fn frozen(&self) -> Result<Freezer> {
        self.files.cgroup().frozen()
    }

    fn kill(&self) -> Result<()> {
        self.files.cgroup().kill()
    }

    fn remove(&self, deadline: Deadline) -> Result<()> {
        if !self.started.get() {
            // What is there under this name is somebody else's.
            return Ok(());
        }
        let files = self.files.cgroup();
        if self.systemds_directory().is_some_and(Path::exists) {
            files.kill()?;
            let noticed = if self.unit.is_slice() { Wait::Late } else { self.await_removal(deadline.sooner(NOTICE))? };
            if noticed == Wait::Late {
                // A slice stays until it is stopped; a scope whose systemd is slow, or has never heard of it.
                if let Err(error) = self.with_systemd(deadline, |systemd| job::stop(systemd, &self.unit)) {
                    tracing::warn!("{error}: removing the cgroup without systemd");
                }
            }
        }
        // Directories in hierarchies of v1 that systemd has nothing in, and whatever it left.
        files.remove(deadline)
    }

    fn stats(&self) -> Result<Stats> {
        self.files.cgroup().stats()
    }
}
