//! What programs run that use go-runc as a library, beside what the shim does.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::{Bundle, TempDir, known, wait_until};

use super::{Caller, SHIM, last_error, pid_in};
use crate::runtime;

#[test]
fn go_runc_runs_in_the_foreground_and_detached() {
    let runtime = runtime();
    known!(runtime, Crun: "another log");
    let caller = Caller::new(&runtime, SHIM);
    let bundle = Bundle::script("echo out; exit 5");
    bundle.write();
    let path = bundle.path().to_str().unwrap();
    let output = caller.verb(["run", "--bundle", path, &runtime.id("c")]).run().exits(5);
    assert_eq!((output.text(), output.stderr.as_str()), ("out", ""));

    let (bundle, dir, id) = (Bundle::sleeper(), TempDir::new("caller"), runtime.id("c"));
    bundle.write();
    let pid_file = dir.join("pid");
    let head = ["run", "--bundle", bundle.path().to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
    caller.quietly(head.iter().chain(&["--detach", id.as_str()]));
    assert_eq!(caller.does(["state", &id]).json()["pid"], json!(pid_in(&pid_file)));
    caller.quietly(["kill", "--all", &id, "9"]);
    wait_until("it is dead", || caller.does(["state", &id]).json()["status"] == "stopped");
    caller.quietly(["delete", &id]);
}

#[test]
fn go_runc_reads_statistics() {
    let runtime = runtime();
    known!(runtime, Crun: "has no events");
    let caller = Caller::new(&runtime, SHIM);
    let (bundle, id) = (Bundle::sleeper(), runtime.id("c"));
    bundle.write();
    caller.quietly(["create", "--bundle", bundle.path().to_str().unwrap(), &id]);
    caller.quietly(["start", &id]);
    let event = caller.does(["events", "--stats", &id]).json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    for part in ["cpu", "memory", "pids", "blkio", "hugetlb"] {
        assert!(event["data"][part].is_object(), "{part}: {event}");
    }
    let events = caller.verb(["events", "--interval=1s", &id]).spawn();
    wait_until("a line", || events.stdout_so_far().contains('\n'));
    caller.quietly(["delete", "--force", &id]);
    let output = events.wait();
    let first: Value = serde_json::from_str(output.lines()[0]).unwrap();
    assert_eq!(first["type"], "stats");
}

/// What the log holds besides errors is the runtime's own business, as long as it is JSON with a level and a time.
#[test]
fn a_log_of_debug_holds_the_error_as_well() {
    let runtime = runtime();
    known!(runtime, Crun: "another log");
    let caller = Caller::new(&runtime, &[SHIM, &["--debug"]].concat());
    let (bundle, id) = (Bundle::sleeper(), runtime.id("c"));
    bundle.write();
    let create = ["create", "--bundle", bundle.path().to_str().unwrap(), &id];
    assert_eq!(caller.verb(create).run().ok().stderr, "");
    assert_ne!(fs::read_to_string(caller.log()).unwrap(), "");
    caller.fails(["create", "--bundle", bundle.path().to_str().unwrap(), &id]);
    assert!(last_error(&caller.log()).contains("container with given ID already exists"));
    caller.verb(["delete", "--force", &id]).run().ok();
}
