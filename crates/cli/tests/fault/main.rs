//! Whatever goes wrong, and wherever: the runtime is killed at each of its system calls in turn, and each of them fails in
//! turn, in each of its processes, verb by verb. Then `delete --force` ends with 0, and nothing is left.
//!
//! And a life without one of the newer system calls at all: there is another way, or a refusal in one line.
//!
//! And whole lives of containers, at random, with a fault somewhere in them ([`lives`]).
//!
//! Each test tries some of the points, others each time; `TARE_FAULT=all` tries all of them (`make fault`),
//! `TARE_FAULT=2/8` the second of eight parts of them, `TARE_FAULT=500` so many, and `TARE_FAULT=create/1/37/KILL`, which a failure prints, that one.

// The registers of a stopped system call are read and written by name.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod lives;
mod tracer;
mod trial;

use nix::errno::Errno;
use syscalls::Sysno;

use self::tracer::Fault;
use self::trial::{Verb, each_point, without};

/// tare as cargo has built it, or the copy of it that `TARE_UNDER_TEST` names.
fn program() -> String {
    std::env::var("TARE_UNDER_TEST").ok().filter(|name| name.contains('/')).unwrap_or(env!("CARGO_BIN_EXE_tare").into())
}

const ERRNOS: [Errno; 6] = [Errno::ENOSYS, Errno::EPERM, Errno::ENOMEM, Errno::ENOSPC, Errno::EINTR, Errno::EMFILE];

macro_rules! tests {
    ($($verb:ident: $killed:ident, $failing:ident;)+) => { $(
        #[test]
        fn $killed() {
            each_point(Verb::$verb, &[Fault::Kill]);
        }

        #[test]
        fn $failing() {
            each_point(Verb::$verb, &ERRNOS.map(Fault::Fail));
        }
    )+ };
}

tests! {
    Create: create_is_killed, create_fails;
    Run: run_is_killed, run_fails;
    Start: start_is_killed, start_fails;
    Exec: exec_is_killed, exec_fails;
    Pause: pause_is_killed, pause_fails;
    Resume: resume_is_killed, resume_fails;
    Update: update_is_killed, update_fails;
    Kill: kill_is_killed, kill_fails;
    Delete: delete_is_killed, delete_fails;
}

#[test]
fn what_could_not_be_deleted_is_not_made() {
    trial::not_made_without(Sysno::pidfd_open);
}

#[test]
fn lives_with_faults() {
    lives::each_life();
}

macro_rules! missing {
    ($($name:ident: $call:ident, $refused:expr;)+) => { $(
        #[test]
        fn $name() {
            without(Sysno::$call, $refused);
        }
    )+ };
}

// The oldest kernel that tare runs on, 5.12, has all of these: a filter around tare may not.
missing! {
    without_openat2: openat2, &[Verb::Create, Verb::Run];
    without_clone3: clone3, &[Verb::Create, Verb::Run, Verb::Exec];
    without_mount_setattr: mount_setattr, &[Verb::Create, Verb::Run];
    without_open_tree: open_tree, &[Verb::Create, Verb::Run];
    without_fsopen: fsopen, &[Verb::Create, Verb::Run];
    without_close_range: close_range, &[Verb::Create, Verb::Run, Verb::Start, Verb::Exec, Verb::Delete];
    without_pidfd_open: pidfd_open, &[Verb::Create, Verb::Run, Verb::Start, Verb::Exec, Verb::Kill, Verb::Delete];
}
