//! A systemd for hosts without one: a bus of our own with somebody on it who starts scopes as systemd does, and a protocol
//! of what was said.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zbus::blocking::{Connection, MessageIterator, connection, fdo::MonitoringProxy};
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

use crate::{DEADLINE, TempDir, host, wait_until};

const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// How the fake behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// As systemd does.
    Good,
    /// Every job ends as `failed`.
    JobsFail,
    /// A unit that failed is there under every name, until it is reset.
    FailedBefore,
    /// No unit is changed.
    NothingChanges,
}

/// A unit that was started.
#[derive(Debug, Default)]
pub struct StartedUnit {
    /// Its properties, printed.
    pub properties: BTreeMap<String, String>,
    cgroup: PathBuf,
}

type Units = Arc<Mutex<BTreeMap<String, StartedUnit>>>;

/// The bus and who is on it.
#[derive(Debug)]
pub struct FakeSystemd {
    daemon: Child,
    address: String,
    units: Units,
    said: Arc<Mutex<Vec<String>>>,
    _manager: Connection,
}

struct Manager {
    conduct: Conduct,
    units: Units,
    reset: bool,
    jobs: u32,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    UnitExists(String),
    NoSuchUnit(String),
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn start_transient_unit(
        &mut self,
        name: &str,
        _mode: &str,
        properties: Vec<(String, OwnedValue)>,
        _auxiliary: Vec<(String, Vec<(String, OwnedValue)>)>,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        if self.conduct == Conduct::FailedBefore && !self.reset {
            return Err(Refusal::UnitExists(format!("Unit {name} was already loaded.")));
        }
        let mut unit = StartedUnit::default();
        for (key, value) in properties {
            if key == "Slice"
                && let Value::Str(slice) = &*value
            {
                unit.cgroup = root().join(slice.as_str()).join(name);
            }
            if self.conduct != Conduct::JobsFail
                && key == "PIDs"
                && let Value::Array(pids) = &*value
            {
                fs::create_dir_all(&unit.cgroup).unwrap();
                for pid in pids.iter() {
                    let Value::U32(pid) = pid else { panic!("{pid:?}") };
                    fs::write(unit.cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
                }
            }
            unit.properties.insert(key, value.to_string());
        }
        if self.conduct != Conduct::JobsFail {
            self.units.lock().unwrap().insert(name.to_owned(), unit);
        }
        Ok(self.job(name, connection))
    }

    fn stop_unit(
        &mut self,
        name: &str,
        _mode: &str,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        match self.units.lock().unwrap().remove(name) {
            Some(unit) => drop(fs::remove_dir(unit.cgroup)),
            None => return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))),
        }
        Ok(self.job(name, connection))
    }

    fn set_unit_properties(
        &mut self,
        name: &str,
        _runtime: bool,
        properties: Vec<(String, OwnedValue)>,
    ) -> Result<(), Refusal> {
        let mut units = self.units.lock().unwrap();
        let unit = units.get_mut(name).filter(|_| self.conduct != Conduct::NothingChanges);
        let unit = unit.ok_or_else(|| Refusal::NoSuchUnit(format!("Unit {name} not loaded.")))?;
        unit.properties.extend(properties.into_iter().map(|(key, value)| (key, value.to_string())));
        Ok(())
    }

    fn reset_failed_unit(&mut self, _name: &str) {
        self.reset = true;
    }
}

impl Manager {
    /// A job that ends soon after the answer was sent.
    fn job(&mut self, name: &str, connection: &zbus::Connection) -> OwnedObjectPath {
        self.jobs += 1;
        let (number, name) = (self.jobs, name.to_owned());
        let path = OwnedObjectPath::try_from(format!("{PATH}/job/{number}")).unwrap();
        let result = if self.conduct == Conduct::JobsFail { "failed" } else { "done" };
        let (connection, job) = (Connection::from(connection.clone()), path.clone());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            // The test may be over.
            let _ = connection.emit_signal(None::<&str>, PATH, INTERFACE, "JobRemoved", &(number, job, name, result));
        });
        path
    }
}

/// Where systemd's cgroups are.
fn root() -> PathBuf {
    let own = host::cgroup_mounts().into_iter().find(|mount| {
        mount.controllers.as_ref().is_some_and(|options| options.iter().any(|option| option == "name=systemd"))
    });
    own.map_or_else(|| "/sys/fs/cgroup".into(), |mount| mount.path)
}

impl FakeSystemd {
    /// Starts it; None on a host without `dbus-daemon`.
    ///
    /// # Panics
    /// If the bus does not come up.
    pub fn start(dir: &TempDir, conduct: Conduct) -> Option<Self> {
        let socket = dir.join("bus");
        let address = format!("unix:path={}", socket.display());
        let config = dir.join("bus.conf");
        fs::write(
            &config,
            format!(
                "<busconfig><type>custom</type><listen>{address}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
                 <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
            ),
        )
        .unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg(format!("--config-file={}", config.display()))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // The socket has its name before it takes connections.
        wait_until("the bus is there", || UnixStream::connect(&socket).is_ok());
        let units = Units::default();
        let manager = Manager { conduct, units: units.clone(), reset: false, jobs: 0 };
        let connect = || connection::Builder::address(address.as_str()).unwrap().method_timeout(DEADLINE);
        let manager = connect().name("org.freedesktop.systemd1").unwrap().serve_at(PATH, manager).unwrap();
        let manager = manager.build().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let monitor = connect().build().unwrap();
        let messages = MessageIterator::from(&monitor);
        MonitoringProxy::new(&monitor).unwrap().become_monitor(&[], 0).unwrap();
        let own = [&manager, &monitor].map(|connection| connection.unique_name().unwrap().to_string());
        record(messages, own, said.clone());
        watch(Arc::downgrade(&units));
        Some(Self { daemon, address, units, said, _manager: manager })
    }

    /// For `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Every message of others to and from the bus and systemd so far, signals that somebody had asked for included.
    pub fn said(&self) -> Vec<String> {
        // The monitor is told last.
        std::thread::sleep(Duration::from_millis(50));
        self.said.lock().unwrap().clone()
    }

    /// Looks at a unit.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn property(&self, unit: &str, name: &str) -> Option<String> {
        self.units.lock().unwrap()[unit].properties.get(name).cloned()
    }

    /// The names of the units that run.
    pub fn units(&self) -> Vec<String> {
        self.units.lock().unwrap().keys().cloned().collect()
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Takes down what is said but for what the connections `ours` and the bus have to say to each other.
fn record(messages: MessageIterator, ours: [String; 2], said: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for message in messages {
            let Ok(message) = message else { return };
            let header = message.header();
            let sender = header.sender().map(ToString::to_string).unwrap_or_default();
            let destination = header.destination().map(ToString::to_string).unwrap_or_default();
            let member = header.member().map_or("answer", |member| member.as_str()).to_owned();
            let bus = |name: &str| name == "org.freedesktop.DBus";
            if (bus(&sender) && ours.contains(&destination)) || (bus(&destination) && ours.contains(&sender)) {
                continue;
            }
            // The bus tells nobody of these here.
            if matches!(member.as_str(), "NameOwnerChanged" | "NameLost") {
                continue;
            }
            said.lock().unwrap().push(member);
        }
    });
}

/// A scope ends when its cgroup is empty: looks every few milliseconds, since v1 has no event for that.
fn watch(units: std::sync::Weak<Mutex<BTreeMap<String, StartedUnit>>>) {
    std::thread::spawn(move || {
        while let Some(units) = units.upgrade() {
            units.lock().unwrap().retain(|_, unit| {
                let procs = fs::read_to_string(unit.cgroup.join("cgroup.procs")).unwrap_or_default();
                !procs.is_empty() || fs::remove_dir(&unit.cgroup).is_err()
            });
            drop(units);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
