//! The behaviour of a runtime as its callers see it: everything goes through the command line.
//!
//! `TARE_UNDER_TEST=runc cargo test -p tare --test e2e` proves the tests themselves on runc.
//! Each test has a runtime with a `--root` of its own; when that goes, nothing may be left on the host.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod activation;
mod advisories;
mod apparmor;
mod attributes;
mod bad_input;
mod callers;
mod cgroup2;
mod cgroups;
mod check;
mod checkpoint;
mod checkpoint_flags;
mod checkpoint_mounts;
mod concurrency;
mod deadline;
mod device;
mod diagnose;
mod errors;
mod events;
mod exec;
mod flags;
mod golden;
mod hooks;
mod hygiene;
mod idmap;
mod lifecycle;
mod limits;
mod live_mounts;
mod mount_host;
mod mount_links;
mod mount_options;
mod mountinfo;
mod mounts;
mod namespaces;
mod nested;
mod order;
mod pod;
mod process;
mod propagation;
mod random;
mod rootfs;
mod rootless;
mod schema;
mod seccomp;
mod seccomp_arch;
mod sockets;
mod state;
mod systemd;
mod systemd_count;
mod terminal;
mod timings;
mod unified;
mod update;
mod update_device;

use tare_testkit::{Kind, Runtime};

/// The runtime under test.
fn runtime() -> Runtime {
    Runtime::from_env(env!("CARGO_BIN_EXE_tare"))
}

/// For a script of [`tare_testkit::Invocation::through_shell`]: a function of this name is the runtime with its `--root`.
const RUNTIME: &str = "P=$1 O=$2 D=$3; runtime() { \"$P\" \"$O\" \"$D\" \"$@\"; }";

/// Whether it is a runc from before --pidfd-socket, the exec texts and much else of 1.2 and later.
fn is_old_runc(runtime: &Runtime) -> bool {
    runtime.is_release(Kind::Runc, "1.1.")
}

/// runc's words for a failure, which ours are, and crun's where they differ.
fn words(runtime: &Runtime, runc: &'static str, crun: &'static str) -> [&'static str; 1] {
    [if runtime.kind() == Kind::Crun { crun } else { runc }]
}
