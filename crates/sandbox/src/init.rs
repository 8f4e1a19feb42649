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
//!                              set clocks
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

pub mod wire;
