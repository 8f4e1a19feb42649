//! The processes that build a container, and every message between them, in order.
//!
//! ```text
//!  parent (tare)               stage 1                        stage 2 (pid 1 of the container)
//!  ─────────────               ───────                        ────────
//!  make cgroup
//!  clone3 ───────────────────▶ enter v1 cgroups
//!  (into cgroup2)              join namespaces
//!                              unshare user namespace ┐ only with
//!      ◀──────── MapIds ────── (waits)                │ a new user
//!  write uid_map, gid_map                             │ namespace
//!      ───────── Proceed ────▶ become its root        ┘
//!      ◀─────── SetClocks ──── unshare time namespace ┐ only with
//!  write timens_offsets                               │ time
//!      ───────── Proceed ────▶                        ┘ offsets
//!                              clone3(CLONE_PARENT) ────────▶ session, keyring, loopback
//!      ◀──────── Init(pid) ─── exit                           attach root, mounts, devices
//!      ◀─────────────────────── RunHooks ──────────────────── (waits)         ┐ only with
//!  prestart, createRuntime hooks                                              │ such hooks
//!      ───────────────────────── Proceed ───────────────────▶                 ┘
//!                                                             createContainer hooks
//!                                                             pivot_root, console, hostname,
//!                                                             sysctl, masks, read-only
//!      ◀─────────────────────── SetLimits ─────────────────── (waits)         ┐ only in a
//!  prlimit                                                                    │ user namespace
//!      ───────────────────────── Proceed ───────────────────▶                 ┘
//!                                                             credentials, cwd, capabilities,
//!                                                             find program, close fds
//!      ◀──────────────────────── Ready ────────────────────── (waits)
//!  record pid and start time, pid file
//!      ──────────── Start ────────────▶ or ──── AwaitStart ─▶
//!      (run)                               (create: exits)    write to the exec fifo, which is full
//!                                                             until `tare start` drains it
//!                                                             startContainer hooks
//!                                                             execve
//!      ◀────────────────────── end of file ────────────────── (the wire or the fifo closes at exec)
//! ```
//!
//! At any point a stage may send `Failed` with its step and one line of text, and exit; and the death of the parent
//! closes the wire, upon which a stage exits: a killed runtime leaves no process. The exec fifo carries the same
//! frames, from stage 2 to `start`.

pub mod enter;
pub mod fifo;
pub mod finish;
pub mod parent;
pub mod stage1;
pub mod stage2;
pub mod wire;

use std::os::fd::OwnedFd;

use crate::Error;
use crate::procfs::Procfs;
use crate::sys::exec::exit_child;
use crate::sys::thread::SingleThreaded;

/// What the stages inherit from the parent over the forks: open before, so that nothing of the host is opened by name once
/// the container's namespaces are entered.
#[derive(Debug)]
pub struct Inherited {
    /// The proof that forking is safe.
    pub single_threaded: SingleThreaded,
    /// The host's procfs, when something has to be written there.
    pub procfs: Option<Procfs>,
    /// The v1 `tasks` files of the container's cgroup.
    pub entrances: Vec<OwnedFd>,
    /// The files of the namespaces to join, in the plan's order.
    pub joined: Vec<OwnedFd>,
    /// The trees to bind, in the order of the mounts, when a user namespace keeps stage 2 from cloning them itself.
    pub sources: Vec<Option<OwnedFd>>,
    /// Where the master side of the terminal goes.
    pub console: Option<OwnedFd>,
    /// Where init waits for `start`; None for `run`.
    pub fifo: Option<fifo::ExecFifo>,
    /// The container's cgroup directories, for the cgroup mount.
    pub cgroup: crate::cgroup::Location,
}

/// Reports the failure of a stage, and ends it.
fn stage_failed(wire: &wire::StageEnd, error: Error) -> ! {
    // A parent that is gone cannot be told.
    let _gone = wire.send(&wire::FromStage::Failed(error));
    exit_child(1)
}
