//! `linux.resources.unified`: files of cgroup v2 by their own names.

use std::fs;

use serde_json::json;
use tare_testkit::{known, skip};

use crate::limits::{arrives, arrives_at_create, block_device, limited, on_v2, runtime};

/// v2 alone.
#[test]
fn unified() {
    if !on_v2() {
        skip!("needs cgroup v2");
    }
    let runtime = runtime();
    arrives(
        &json!({"unified": {"memory.high": "50331648", "pids.max": "45", "cgroup.max.depth": "7"}}),
        &[],
        &[("memory", "memory.high", "50331648"), ("pids", "pids.max", "45"), ("memory", "cgroup.max.depth", "7")],
    );
    // It wins over other fields.
    arrives_at_create(
        &runtime,
        &json!({"memory": {"limit": 64 << 20}, "unified": {"memory.max": "33554432"}}),
        &[],
        &[("memory", "memory.max", "33554432")],
    );
}

#[test]
fn unified_with_several_lines() {
    if !on_v2() {
        skip!("needs cgroup v2");
    }
    let runtime = runtime();
    known!(runtime, Runc: "writes the value in one");
    let Some((major, minor)) = block_device() else { skip!("no block device") };
    let value = format!("{major}:{minor} rbps=1000000\n{major}:{minor} wiops=90\n");
    let line = format!("{major}:{minor} rbps=1000000 wbps=max riops=max wiops=90");
    arrives_at_create(&runtime, &json!({"unified": {"io.max": value}}), &[], &[("io", "io.max", &line)]);
}

#[test]
fn unified_with_a_controller_that_is_not_there() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 leaves its cgroups behind when a limit fails");
    let bundle = limited(&json!({"unified": {"foo.max": "1"}}));
    let container = runtime.container(&bundle);
    container.create().fails(&[]);
    container.is("none");
}

/// The misc controller by its file, where the host has something to count.
#[test]
fn unified_misc() {
    let capacity = fs::read_to_string("/sys/fs/cgroup/misc.capacity").unwrap_or_default();
    let Some(resource) = capacity.split_whitespace().next() else { skip!("no resource of the misc controller") };
    let value = format!("{resource} 1");
    arrives_at_create(&runtime(), &json!({"unified": {"misc.max": value}}), &[], &[("misc", "misc.max", &value)]);
}
