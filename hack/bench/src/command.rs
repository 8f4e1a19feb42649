//! One command line of a runtime, timed.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

pub(crate) type Done<T = ()> = Result<T, Box<dyn Error>>;

/// What all measurements share.
pub(crate) struct Bench {
    /// With the bundles that hack/bench/run made, and room for state.
    pub(crate) directory: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) floor: PathBuf,
    /// The first is the one that the others are compared with.
    pub(crate) runtimes: Vec<Runtime>,
}

pub(crate) struct Runtime {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    root: PathBuf,
    /// Whether systemd makes the cgroups: TARE_BENCH_SYSTEMD is set.
    systemd: bool,
}

/// The name in front of every container of this run.
fn prefix() -> String {
    format!("bench-{}", std::process::id())
}

impl Runtime {
    pub(crate) fn new(path: PathBuf, directory: &std::path::Path) -> Done<Self> {
        let name = path.file_name().ok_or("a runtime is a path")?.to_string_lossy().into_owned();
        let root = directory.join("state").join(&name);
        Ok(Self { path, name, root, systemd: std::env::var_os("TARE_BENCH_SYSTEMD").is_some() })
    }

    /// `RUNTIME --root STATE VERB... ID`.
    pub(crate) fn command(&self, verb: &[&str], id: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(&self.root).args(self.systemd.then_some("--systemd-cgroup")).args(verb);
        if !id.is_empty() {
            command.arg(format!("{}-{}-{id}", prefix(), self.name));
        }
        quiet(command)
    }
}

/// No pipe to read: a container that stays would keep it open.
pub(crate) fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a command to its end; milliseconds.
pub(crate) fn time(mut command: Command) -> Done<f64> {
    let begin = Instant::now();
    let status = command.status()?;
    let taken = begin.elapsed().as_secs_f64() * 1e3;
    if status.success() { Ok(taken) } else { Err(format!("{command:?}: {status}").into()) }
}

impl Bench {
    pub(crate) fn bundle(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// Where the caller is in each hierarchy: there the floor makes its cgroup.
    pub(crate) fn cgroups(&self) -> Done<Vec<PathBuf>> {
        let mut directories = Vec::new();
        for line in std::fs::read_to_string("/proc/self/cgroup")?.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let name = controllers.trim_start_matches("name=");
            let top = PathBuf::from("/sys/fs/cgroup");
            let unified = [top.clone(), top.join("unified")]
                .into_iter()
                .find(|top| top.join("cgroup.procs").exists() && name.is_empty());
            // A runtime's default is a name below the root on cgroup2, below its own place on v1, as runc has it.
            directories.extend(match unified {
                Some(top) => Some(top),
                None => Some(top.join(name).join(path.trim_start_matches('/')))
                    .filter(|path| !name.is_empty() && path.join("tasks").exists()),
            });
        }
        Ok(directories)
    }

    /// With as many mounts more than the default configuration has.
    pub(crate) fn floor(&self, mounts: usize, id: &str) -> Done<Command> {
        let mut command = Command::new(&self.floor);
        command.arg(self.directory.join("true/rootfs")).arg(mounts.to_string());
        command.arg(format!("{}-floor-{id}", prefix())).args(self.cgroups()?);
        Ok(quiet(command))
    }

    /// Removes what a measurement that failed has left.
    pub(crate) fn clear_away(&self) {
        for runtime in &self.runtimes {
            let Ok(entries) = std::fs::read_dir(&runtime.root) else { continue };
            for name in entries.flatten().map(|entry| entry.file_name()) {
                let mut command = runtime.command(&["delete", "--force"], "");
                let _best_effort = command.arg(name).stderr(Stdio::null()).status();
            }
        }
    }
}
