//! The kernel takes the programs, and acts on them. A filter is of one thread: each test has one to spare.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Pid, getpgid, getsid};
use serde_json::{Value, json};

use super::super::Filter;
use super::profiles::{PROFILES, parse};
use super::seccomp;

/// Runs `act` under a filter, with what the load took.
fn under<T: Send>(filter: &Filter, act: impl FnOnce() -> T + Send) -> (T, Duration) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            let begun = Instant::now();
            assert!(filter.load().unwrap().is_none());
            let took = begun.elapsed();
            (act(), took)
        });
        thread.join().unwrap()
    })
}

/// How long the kernel takes to take the filter.
pub(super) fn load_time(filter: &Filter) -> Duration {
    under(filter, || ()).1
}

fn filter(rules: Value) -> Filter {
    Filter::new(&seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))).unwrap()
}

#[test]
fn a_call_fails_with_the_errno_of_its_rule() {
    let filter = filter(json!([
        {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOTEMPTY},
        {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]},
    ]));
    let ((group, session, own), _) = under(&filter, || {
        (getpgid(None).unwrap_err(), getsid(Some(Pid::from_raw(7))).unwrap_err(), getsid(None).is_ok())
    });
    assert_eq!((group, session, own), (Errno::ENOTEMPTY, Errno::EPERM, true));
}

#[test]
fn every_flag_and_the_longest_of_programs_load() {
    let flags = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    let rule = |value: u64| {
        let args: Vec<Value> =
            (0..6).map(|index| json!({"index": index, "value": value, "op": "SCMP_CMP_GE"})).collect();
        json!({"names": ["getpgid", "getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": args})
    };
    let rules: Vec<Value> = (1..100).map(|value| rule(value << 33)).collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": rules});
    let filter = Filter::new(&seccomp(profile)).unwrap();
    assert!(filter.program.len() > 2000, "{}", filter.program.len());
    assert!(under(&filter, || getpgid(None).is_ok()).0);
}

#[test]
fn the_default_profiles_load() {
    for (name, text) in PROFILES {
        let begun = Instant::now();
        let filter = Filter::new(&parse(text)).unwrap();
        let made = begun.elapsed();
        let (works, took) = under(&filter, || getpgid(None).is_ok());
        assert!(works, "{name}");
        eprintln!("{name}: {} instructions, made in {made:?}, loaded in {took:?}", filter.program.len());
    }
}
