//! The same callers where systemd makes the cgroups, which the guest of `hack/vm` has.

use std::path::Path;

use tare_testkit::{Bundle, Runtime, known, skip};

use super::{Caller, PODMAN, SHIM, live_by_crio, live_by_podman, live_by_shim};
use crate::runtime;

/// Leaves the test on a host without systemd.
macro_rules! needs_systemd {
    () => {
        if !Path::new("/run/systemd/system").exists() {
            skip!("systemd does not run here");
        }
    };
}

/// A bundle whose cgroup is as callers name it: `slice:prefix:name`.
fn bundle(runtime: &Runtime, id: &str) -> Bundle {
    Bundle::sleeper().cgroups_path(&format!("system.slice:{}:{id}", runtime.tag()))
}

#[test]
fn containerds_shim_and_docker_say_systemd_cgroup_each_time() {
    let runtime = runtime();
    known!(runtime, Crun: "ps has no options, pause and delete differ");
    needs_systemd!();
    let (shim, id) = (Caller::new(&runtime, &[SHIM, &["--systemd-cgroup"]].concat()), runtime.id("c"));
    live_by_shim(&shim, &bundle(&runtime, &id), &id);
}

#[test]
fn conmon_says_systemd_cgroup_at_create_alone() {
    let runtime = runtime();
    needs_systemd!();
    let conmon = Caller::new(&runtime, &[&["--systemd-cgroup"], PODMAN].concat());
    let id = runtime.id("c");
    live_by_podman(&conmon, &Caller::new(&runtime, PODMAN), &bundle(&runtime, &id), &id);
}

#[test]
fn crio_says_systemd_cgroup_each_time() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1: another text of kill");
    needs_systemd!();
    let (crio, id) = (Caller::new(&runtime, &["--root", "ROOT", "--systemd-cgroup"]), runtime.id("c"));
    live_by_crio(&crio, &bundle(&runtime, &id), &id);
}
