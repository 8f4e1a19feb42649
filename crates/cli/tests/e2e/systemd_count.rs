//! What is said over D-Bus, on a bus of our own: with a systemd that only plays its part, so that it runs on any host.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use serde_json::json;
use tare_testkit::systemd::{Conduct, FakeSystemd};
use tare_testkit::{Bundle, Container, Runtime, host, known, skip};

use crate::limits::read;

/// The runtime, and the systemd it is to talk to.
macro_rules! on_fake {
    ($conduct:expr) => {{
        let runtime = crate::runtime().on_systemd();
        known!(runtime, Runc: "looks for systemd itself", Crun: "looks for systemd itself", Youki: "the same");
        if !host::is_root() {
            skip!("makes cgroups");
        }
        let Some(systemd) = FakeSystemd::start(runtime.dir(), $conduct) else { skip!("no dbus-daemon here") };
        (runtime, systemd)
    }};
}

fn bundle(runtime: &Runtime) -> Bundle {
    Bundle::sleeper().cgroups_path(&format!("{}.slice:pre:name", runtime.tag()))
}

/// `VERB ARGS... ID ARGS...` over the fake's bus.
fn call(container: &Container<'_>, systemd: &FakeSystemd, verb: &str, before: &[&str], after: &[&str]) {
    let invocation = container.verb(verb).env("DBUS_SYSTEM_BUS_ADDRESS", systemd.address());
    invocation.args(before).arg(container.id()).args(after).run().ok();
}

/// Slices are systemd's to remove, which has none here.
fn remove_slices(runtime: &Runtime) {
    let mut dirs = host::cgroups_with(runtime.tag());
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    for dir in dirs {
        assert!(dir.ends_with(format!("{}.slice", runtime.tag())), "{}", dir.display());
        fs::remove_dir(dir).unwrap();
    }
}

/// The number to beat: asks, "one connection, one call, one signal per create, and exec never".
#[test]
fn a_lifecycle_is_seven_messages() {
    let (runtime, systemd) = on_fake!(Conduct::Good);
    let bundle = bundle(&runtime);
    let container = runtime.container(&bundle);
    call(&container, &systemd, "create", &[], &[]);
    let create = ["Hello", "answer", "NameAcquired", "AddMatch", "StartTransientUnit", "answer", "JobRemoved"];
    let mut said = systemd.said();
    // The bus and the others take their turns as they like.
    let mut sorted = create.map(str::to_owned).to_vec();
    said.sort();
    sorted.sort();
    assert_eq!(said, sorted);
    assert_eq!(systemd.units(), ["pre-name.scope"]);
    call(&container, &systemd, "start", &[], &[]);
    call(&container, &systemd, "exec", &[], &["true"]);
    call(&container, &systemd, "pause", &[], &[]);
    call(&container, &systemd, "resume", &[], &[]);
    call(&container, &systemd, "kill", &[], &["KILL"]);
    container.wait_for("stopped");
    call(&container, &systemd, "delete", &[], &[]);
    assert_eq!(systemd.said().len(), 7);
    assert_eq!(systemd.units(), [""; 0]);
    remove_slices(&runtime);
}

#[test]
fn an_update_is_seven_messages_and_keeps_what_it_does_not_name() {
    let (runtime, systemd) = on_fake!(Conduct::Good);
    let bundle = bundle(&runtime).resource("pids", json!({"limit": 40}));
    let container = runtime.container(&bundle);
    call(&container, &systemd, "create", &[], &[]);
    let property = |name| systemd.property("pre-name.scope", name);
    assert_eq!(property("TasksMax").as_deref(), Some("uint64 40"));
    assert_eq!(property("DevicePolicy").as_deref(), Some("\"strict\""));
    assert_eq!(property("Delegate").as_deref(), Some("true"));
    let before = systemd.said().len();
    call(&container, &systemd, "update", &["--memory", "64M"], &[]);
    assert_eq!(systemd.said()[before..].len(), 7, "{:?}", systemd.said());
    assert_eq!(property("TasksMax").as_deref(), Some("uint64 40"));
    let memory = property("MemoryMax").or_else(|| property("MemoryLimit"));
    assert_eq!(memory, Some(format!("uint64 {}", 64 << 20)));
    call(&container, &systemd, "delete", &["--force"], &[]);
    remove_slices(&runtime);
}

#[test]
fn an_update_that_systemd_refuses_changes_nothing() {
    let (runtime, systemd) = on_fake!(Conduct::NothingChanges);
    let kmsg = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"}]);
    let nothing = json!([{"allow": false, "access": "rwm"}]);
    for (before, after, opens) in [(&kmsg, &nothing, true), (&nothing, &kmsg, false)] {
        let bundle = bundle(&runtime)
            .capabilities(&["CAP_MKNOD", "CAP_SYSLOG", "CAP_KILL"])
            .resource("pids", json!({"limit": 40}))
            .resource("devices", before.clone());
        let container = runtime.container(&bundle);
        call(&container, &systemd, "create", &[], &[]);
        call(&container, &systemd, "start", &[], &[]);
        container.shell("mknod /kmsg c 1 11");
        let resources = json!({"pids": {"limit": 50}, "devices": after}).to_string();
        let update = container.verb("update").env("DBUS_SYSTEM_BUS_ADDRESS", systemd.address());
        let update = update.args(["--resources", "-", container.id()]).stdin(resources).run();
        let update = update.fails(&["systemd: setunitproperties"]);
        assert!(!update.stderr.contains("not put back"), "{update}");
        assert_eq!(read(&container, "pids", "pids.max"), "40");
        assert_eq!(container.exec(["sh", "-c", ": < /kmsg"]).success(), opens);
        call(&container, &systemd, "delete", &["--force"], &[]);
    }
    remove_slices(&runtime);
}

#[test]
fn a_unit_that_failed_before_is_swept_away() {
    let (runtime, systemd) = on_fake!(Conduct::FailedBefore);
    let bundle = bundle(&runtime);
    let container = runtime.container(&bundle);
    call(&container, &systemd, "create", &[], &[]);
    let said = systemd.said();
    assert_eq!(said.iter().filter(|member| *member == "StartTransientUnit").count(), 2);
    assert_eq!(said.iter().filter(|member| *member == "ResetFailedUnit").count(), 1);
    call(&container, &systemd, "delete", &["--force"], &[]);
    remove_slices(&runtime);
}

#[test]
fn a_job_that_fails_is_an_error_and_nothing_is_left() {
    let (runtime, systemd) = on_fake!(Conduct::JobsFail);
    let bundle = bundle(&runtime);
    let container = runtime.container(&bundle);
    let create = container.verb("create").env("DBUS_SYSTEM_BUS_ADDRESS", systemd.address()).arg(container.id()).run();
    create.fails(&["systemd: start of pre-name.scope: the job ended as \"failed\""]);
    container.is("none");
    let bus = fs::metadata(runtime.dir().join("bus")).unwrap();
    assert!(bus.file_type().is_socket());
}

#[test]
fn a_host_without_systemd_is_told_in_one_line() {
    let runtime = crate::runtime().on_systemd();
    known!(runtime, Runc: "in its own words", Crun: "in its own words");
    if std::path::Path::new("/run/systemd/system").exists() {
        skip!("systemd runs here");
    }
    let bundle = Bundle::sleeper();
    let output = runtime.container(&bundle).create();
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    output.fails(&["--systemd-cgroup: systemd does not run on this host"]);
}
