//! One command line of a runtime, timed.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tare_sandbox::sys::pidfd::pidfd_open;

use crate::Row;

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

    /// Removes a container that may be there.
    pub(crate) fn discard(&self, id: &str) {
        let _best_effort = self.command(&["delete", "--force"], id).stderr(Stdio::null()).status();
    }

    /// Removes its containers.
    pub(crate) fn clear_away(&self) {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let mut command = self.command(&["delete", "--force"], "");
            let _best_effort = command.arg(name).stderr(Stdio::null()).status();
        }
    }
}

/// No pipe to read: a container that stays would keep it open.
pub(crate) fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // A backtrace would be the last of what a runtime in Rust says.
    command.env_remove("RUST_BACKTRACE");
    command
}

/// What a command may take before it is taken to hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A command that failed, and the last line of what it said.
#[derive(Debug)]
struct Failure {
    #[expect(dead_code, reason = "for Debug, which is what main prints")]
    command: Command,
    /// None: it was killed after [`LIMIT`].
    status: Option<ExitStatus>,
    said: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{} ({status})", self.said),
            None => write!(f, "{} (no end within {} s)", self.said, LIMIT.as_secs()),
        }
    }
}

impl Error for Failure {}

/// Runs a command to its end; milliseconds.
pub(crate) fn time(mut command: Command) -> Done<f64> {
    // No pipe here either.
    let mut said = File::from(memfd_create("stderr", MFdFlags::MFD_CLOEXEC)?);
    command.stderr(said.try_clone()?);
    // What is behind an observer dies with it.
    command.process_group(0);
    let begin = Instant::now();
    let mut child = command.spawn()?;
    #[expect(clippy::cast_possible_wrap, reason = "a pid is less than 2^22")]
    let pid = Pid::from_raw(child.id() as i32);
    let pidfd = pidfd_open(pid)?;
    let ended = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::try_from(LIMIT)?)? == 1;
    if !ended {
        killpg(pid, Signal::SIGKILL)?;
    }
    let status = child.wait()?;
    let taken = begin.elapsed().as_secs_f64() * 1e3;
    if ended && status.success() {
        return Ok(taken);
    }
    let status = ended.then_some(status);
    let mut bytes = Vec::new();
    said.rewind()?;
    said.read_to_end(&mut bytes)?;
    let said = String::from_utf8_lossy(&bytes).trim_end().lines().last().unwrap_or("said nothing").trim().to_owned();
    Err(Failure { command, status, said }.into())
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

    /// What a runtime failed at is in the row, with the reason. Of the first it is the end of the bench.
    pub(crate) fn refuse(
        &self,
        what: &'static str,
        runtime: &Runtime,
        error: Box<dyn Error>,
        rows: &mut Vec<Row>,
    ) -> Done {
        if runtime.name == self.runtimes[0].name {
            return Err(error);
        }
        let reason = error.to_string();
        match rows.iter_mut().find(|row| row.what == what && row.runtime == runtime.name) {
            Some(row) => (row.failures, row.reason) = (row.failures + 1, reason),
            None => rows.push(Row { failures: 1, reason, ..Row::new(what, &runtime.name, Vec::new(), "ms") }),
        }
        Ok(())
    }

    /// Removes what a measurement that failed has left.
    pub(crate) fn clear_away(&self) {
        self.runtimes.iter().for_each(Runtime::clear_away);
        // crun leaves the cgroup2 one of what it refuses.
        for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{}-", prefix())) {
                let _best_effort = std::fs::remove_dir(entry.path());
            }
        }
    }
}
