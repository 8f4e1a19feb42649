//! The processes that build a container, and every message between them, in order.
//!
//! ```text
//!  parent (tare)               stage 1                        stage 2 (pid 1 of the container)
//!  ─────────────               ───────                        ────────
//!  make cgroup
//!  clone3 ───────────────────▶ close the parent's fds
//!  (into cgroup2)
//!  limit devices (not with systemd)
//!      ◀──────── Place ─────── (waits)                ┐ only with
//!  start a scope around it,                           │ systemd
//!  write its limits                                   │
//!      ───────── Proceed ────▶                        ┘
//!                              enter v1 cgroups, join namespaces
//!                              unshare user namespace ┐ only with
//!      ◀──────── MapIds ────── (waits)                │ a new user
//!  write uid_map, gid_map                             │ namespace
//!      ───────── Proceed ────▶ become its root        ┘
//!      ◀─────── SetClocks ──── unshare time namespace ┐ only with
//!  write timens_offsets                               │ time
//!      ───────── Proceed ────▶                        ┘ offsets
//!                              clone3(CLONE_PARENT) ────────▶ session, keyring, loopback, sysctl
//!                              exit
//!      ◀─────────────────────── MoveDevices ───────────────── (waits)         ┐ only with
//!  move network devices                                                       │ netDevices
//!      ───────────────────────── Proceed ───────────────────▶                 ┘
//!                                                             attach root, mounts, devices
//!      ◀─────────────────────── RunHooks ──────────────────── (waits)         ┐ only with
//!  prestart, createRuntime hooks                                              │ such hooks
//!      ───────────────────────── Proceed ───────────────────▶                 ┘
//!                                                             createContainer hooks
//!                                                             console, pivot_root, hostname,
//!                                                             masks, read-only, labels, close fds
//!      ◀─────────────────────── SetLimits ─────────────────── (waits)         ┐ only in a
//!  prlimit, scheduler, I/O priority                                           │ user namespace
//!      ───────────────────────── Proceed ───────────────────▶                 ┘
//!                                                             credentials, cwd, find program,
//!                                                             seccomp (or below), capabilities
//!      ◀──────────────────────── Ready ────────────────────── (waits)
//!  record pid and start time, pid file
//!      ──────────── Start ────────────▶ or ──── AwaitStart ─▶
//!      (run)                               (create: exits)    write to the exec fifo, which is full
//!                                                             until `tare start` drains it
//!                                                             startContainer hooks
//!                                                             seccomp with noNewPrivileges, execve
//!      ◀────────────────────── end of file ────────────────── (the wire or the fifo closes at exec)
//! ```
//!
//! At any point a stage may send `Failed` with its step and one line of text, and exit; and the death of the parent
//! closes the wire, upon which a stage exits: a killed runtime leaves no process. The exec fifo carries the same
//! frames, from stage 2 to `start`.

mod diagnose;
pub mod enter;
pub mod fifo;
pub mod finish;
pub mod parent;
mod rootless;
pub mod stage1;
pub mod stage2;
pub mod wire;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{CallContext, Context};
use crate::procfs::Procfs;
use crate::step::Step;
use crate::sys::thread::SingleThreaded;
use crate::sys::{self, exec::exit_child};
use crate::{Error, Result};

/// What stage 1 inherits from the parent over the fork and closes before its own: opened before, so that nothing of the
/// host is opened by name once the container's namespaces are entered.
#[derive(Debug)]
pub struct ForStage1 {
    /// The proof that forking is safe.
    pub single_threaded: SingleThreaded,
    /// The host's procfs, when something has to be written there.
    pub procfs: Option<Procfs>,
    /// The v1 `tasks` files of the container's cgroup.
    pub entrances: Vec<OwnedFd>,
    /// How it comes into its cgroup.
    pub placement: Placement,
    /// The files of the namespaces to join, in the plan's order.
    pub joined: Vec<OwnedFd>,
}

/// How stage 1 comes into the container's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It is born there, or enters by itself.
    Own,
    /// It asks the parent: a scope of systemd is started around it.
    Asks,
}

/// What stage 2 inherits. It is born into the container's pid namespace, perhaps one that it shares, where a process with
/// CAP_SYS_PTRACE can look through its descriptors (CVE-2016-9962): so no directory of the host is among them.
#[derive(Debug)]
pub struct ForStage2 {
    /// The trees to bind, in the order of the mounts, when a user namespace keeps stage 2 from cloning them itself.
    pub sources: Vec<Option<OwnedFd>>,
    /// Where the master side of the terminal goes.
    pub console: Option<OwnedFd>,
    /// Where init waits for `start`; None for `run`.
    pub fifo: Option<fifo::ExecFifo>,
    /// The container's cgroup directories, for the cgroup mount.
    pub cgroup: crate::cgroup::Location,
    /// Whose container it is.
    pub owner: Owner,
}

/// Who runs the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Root, of the host or of a user namespace: it looks into every process.
    Root,
    /// Another user: the directory in /proc of a process that is not dumpable is closed to it, its own hooks could not open
    /// the container's namespaces, nor could `exec` enter one that waits for `start`.
    User,
}

impl Owner {
    /// The caller.
    pub fn own() -> Self {
        if nix::unistd::geteuid().is_root() { Self::Root } else { Self::User }
    }

    /// Opens init's directory in /proc to a user. No process of the container sees it, as there is none in a new pid
    /// namespace before the program runs but those that the user has put there.
    ///
    /// # Errors
    /// The call that failed.
    fn let_in(self, plan: &crate::plan::Plan) -> Result<()> {
        if self == Self::User && plan.namespaces.makes(oci_spec::runtime::LinuxNamespaceType::Pid) {
            nix::sys::prctl::set_dumpable(true).call(|| "prctl(PR_SET_DUMPABLE)").at(Step::Session)?;
        }
        Ok(())
    }
}

impl ForStage1 {
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let procfs = self.procfs.iter().map(AsFd::as_fd);
        procfs.chain(self.entrances.iter().chain(&self.joined).map(AsFd::as_fd))
    }
}

impl ForStage2 {
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let fifo = self.fifo.iter().map(AsFd::as_fd);
        fifo.chain(self.sources.iter().flatten().chain(&self.console).map(AsFd::as_fd))
    }
}

/// Closes what the parent has open for itself: the state directory with its lock, the log, the bundle. A stage that kept
/// the lock would hold it beyond the death of the parent.
///
/// From here on a stage must not log: the log's descriptor is closed, and its number will be another's.
fn close_the_parents<'a>(
    preserve_fds: u32,
    wire: &'a wire::StageEnd,
    kept: impl Iterator<Item = BorrowedFd<'a>>,
) -> Result<()> {
    let kept: Vec<BorrowedFd<'a>> = kept.chain([wire.as_fd()]).collect();
    sys::fd::close_except(preserve_fds, &kept).call(|| "close_range()").at(Step::Fork)
}

/// Reports the failure of a stage, and ends it.
fn stage_failed(wire: &wire::StageEnd, error: Error) -> ! {
    // A parent that is gone cannot be told.
    let _gone = wire.send(&wire::FromStage::Failed(error));
    exit_child(1)
}
