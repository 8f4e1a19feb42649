//! What a caller can ask for: one short function per verb.

mod checkpoint;
mod control;
mod create;
mod delete;
mod events;
mod exec;
mod inspect;
mod mounts;
mod restore;
mod start;
mod update;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::Process;
use serde::Serialize;

pub use self::checkpoint::{CgroupMode, CheckpointOptions, CriuOptions, NetworkLock};
pub use self::events::{Happening, Usage, Watch};
pub use self::restore::RestoreOptions;
pub use self::update::Update;
use crate::cgroup::Driver;
use crate::deadline::Deadline;
use crate::store::Store;

/// What all commands share.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where the state of containers is kept: `/run/tare`.
    pub root: PathBuf,
    /// Who makes cgroups.
    pub cgroup_driver: Driver,
    /// Whether a container goes without the cgroups that its user may not make, as long as it asks for nothing that takes
    /// one: `--rootless`. None: if the caller is not root of the host.
    pub rootless: Option<bool>,
    /// How long a command may wait, all in all, for hooks, systemd, a cgroup to freeze or to empty, another command on the same
    /// container, init to execute its program; not for the program itself, nor for CRIU. Zero: as long as it takes. None:
    /// five minutes to make a container or a process, else thirty seconds.
    pub timeout: Option<Duration>,
}

/// How to create a container.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The bundle directory.
    pub bundle: PathBuf,
    /// The configuration, if it is not `config.json` in the bundle.
    pub config: Option<PathBuf>,
    /// Where to send the terminal's master side.
    pub console_socket: Option<PathBuf>,
    /// Where to send a pidfd of the container's init.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write init's pid, without a newline.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root(2): for a root on ramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many fds after stdio the container inherits, those of `listen_fds` included.
    pub preserve_fds: u32,
    /// How many of them, the first ones, are sockets that somebody listens on: the container is told by LISTEN_FDS,
    /// sd_listen_fds(3).
    pub listen_fds: u32,
    /// The socket of the service manager, to be told when the container's program is ready: sd_notify(3).
    pub notify_socket: Option<PathBuf>,
}

/// How `run` treats the container it creates.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Return once the process runs.
    pub detach: bool,
    /// Keep the state after the process has ended.
    pub keep: bool,
    /// Do not become the subreaper of the container's orphans.
    pub no_subreaper: bool,
}

/// How to run one more process in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The process; None: the container's own process with `args`, and what else the fields below change.
    pub process: Option<Process>,
    /// The program and its arguments (without `process`).
    pub args: Vec<String>,
    /// `-t`.
    pub tty: bool,
    /// `--env`, appended.
    pub env: Vec<String>,
    /// `--cwd`.
    pub cwd: Option<PathBuf>,
    /// `--user`, uid and gid.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`.
    pub additional_gids: Vec<u32>,
    /// `--cap`, added.
    pub caps: Vec<String>,
    /// `--no-new-privs`.
    pub no_new_privs: bool,
    /// `--apparmor`.
    pub apparmor: Option<String>,
    /// `--process-label`.
    pub process_label: Option<String>,
    /// Return once the process runs.
    pub detach: bool,
    /// Where to send the terminal's master side.
    pub console_socket: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write the pid, without a newline.
    pub pid_file: Option<PathBuf>,
    /// How many fds after stdio the process inherits.
    pub preserve_fds: u32,
    /// Run even if the container is paused.
    pub ignore_paused: bool,
    /// `--cgroup`: a path below the container's cgroup.
    pub cgroup: Vec<String>,
}

/// What a container is doing, as the runtime specification names it (plus `paused`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Waits for `start`.
    Created,
    /// The process runs.
    Running,
    /// The process is frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

/// What `state` and `list` tell of a container: runc's fields in runc's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the runtime specification.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// init's pid on the host; 0 when stopped.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The annotations of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who owns the container, empty if it has none.
    pub owner: String,
}

impl Runtime {
    fn store(&self) -> Store {
        Store::new(&self.root)
    }

    /// That of a command which begins now.
    fn deadline(&self, otherwise: Duration) -> Deadline {
        match self.timeout {
            None => Deadline::after(otherwise),
            Some(Duration::ZERO) => Deadline::NEVER,
            Some(timeout) => Deadline::after(timeout),
        }
    }

    /// The deadline of a command for what takes the time it takes, unless somebody has said how long the command may.
    fn only_if_asked(&self, deadline: Deadline) -> Deadline {
        if self.timeout.is_some() { deadline } else { Deadline::NEVER }
    }
}
