//! `update` of device rules.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, known, skip, wait_until};

use crate::limits::{file_of, on_v2, read, runtime};
use crate::update::{needs_cgroups, update};

const KMSG: &str = "c 1:11";

fn rules(also: &[(i64, i64)]) -> Value {
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    let allow = |(major, minor): &(i64, i64)| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"});
    rules.extend(also.iter().map(allow));
    Value::Array(rules)
}

/// A container that can try devices: `/dev/k` is kmsg, 1:11, `/dev/n` is null.
fn with_nodes(also: &[(i64, i64)]) -> Bundle {
    Bundle::script("mknod /dev/k c 1 11; mknod /dev/n c 1 3; touch /ready; sleep 1000")
        .resource("devices", rules(also))
        .capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
}

fn opens_kmsg(container: &Container<'_>) -> bool {
    container.exec(["sh", "-c", ": < /dev/k"]).success()
}

#[test]
fn without_a_list_the_devices_stay_as_they_are() {
    needs_cgroups!();
    let runtime = runtime();
    let bundle = with_nodes(&[(1, 11)]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    assert!(opens_kmsg(&container));
    container.call("update", &["--pids-limit", "50"]).ok();
    update(&container, &json!({"cpu": {"shares": 700}})).ok();
    assert!(opens_kmsg(&container));
}

#[test]
fn a_list_of_devices_takes_the_place_of_the_one_before() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "never updates devices");
    let bundle = with_nodes(&[]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    assert!(!opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[(1, 11)])})).ok();
    assert!(opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[(10, 229)])})).ok();
    assert!(!opens_kmsg(&container));
    // The one of create comes back: the comparison is with what holds, not with config.json.
    update(&container, &json!({"devices": rules(&[])})).ok();
    assert!(!opens_kmsg(&container));
    update(&container, &json!({"devices": [{"allow": true, "access": "rwm"}]})).ok();
    assert!(opens_kmsg(&container));
    update(&container, &json!({"devices": rules(&[])})).ok();
    assert!(!opens_kmsg(&container));
}

/// A container that opens a device over and over sees no instant without rules, and none where all is denied.
#[test]
fn while_the_list_of_devices_changes_what_both_allow_can_be_opened() {
    needs_cgroups!();
    let runtime = runtime();
    known!(runtime, Runc: "never updates devices");
    if !on_v2() {
        known!(runtime, Crun: "denies everything for an instant");
    }
    let script = "mknod /dev/k c 1 11; mknod /dev/n c 1 3; touch /ready; \
        while [ ! -e /stop ]; do true < /dev/n || echo refused; true < /dev/k && echo opened; done 2>/dev/null; touch /stopped; sleep 1000";
    let bundle = Bundle::script(script).resource("devices", rules(&[])).capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let container = runtime.container(&bundle);
    let output = runtime.dir().join("output");
    let create = container.verb("create").arg(container.id());
    let file = fs::File::create(&output).unwrap();
    let null = || fs::File::open("/dev/null").unwrap();
    let created = create.stdio([null().into(), file.try_clone().unwrap().into(), file.into()]).run();
    assert!(created.success(), "{created}{}", fs::read_to_string(&output).unwrap());
    container.start().ok();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    for round in 0..20 {
        let list = if round % 2 == 0 { rules(&[(10, 229), (10, 232)]) } else { rules(&[(10, 223)]) };
        update(&container, &json!({"devices": list})).ok();
    }
    fs::write(bundle.rootfs().join("stop"), "").unwrap();
    wait_until("it has stopped", || bundle.rootfs().join("stopped").exists());
    let seen = fs::read_to_string(&output).unwrap();
    assert!(seen.is_empty(), "{} lines, the first is {:?}", seen.lines().count(), seen.lines().next());
}

/// What a hook has added, a GPU say, goes away only by a list that is another one: clients send all they know again.
#[test]
fn the_same_list_again_leaves_what_others_have_added() {
    needs_cgroups!();
    if on_v2() {
        skip!("a cgroup v2 program has no list that others could add to");
    }
    let runtime = runtime();
    known!(runtime, Crun: "takes away what is not in the list");
    let bundle = with_nodes(&[(10, 229)]);
    let container = runtime.container(&bundle);
    container.up();
    wait_until("the nodes are there", || bundle.rootfs().join("ready").exists());
    fs::write(file_of(&container, "devices", "devices.allow"), format!("{KMSG} rw")).unwrap();
    assert!(opens_kmsg(&container));
    let list = container_rules(&bundle);
    update(&container, &json!({"devices": list, "pids": {"limit": 60}})).ok();
    assert_eq!(read(&container, "pids", "pids.max"), "60");
    assert!(opens_kmsg(&container));
}

fn container_rules(bundle: &Bundle) -> Value {
    bundle.config()["linux"]["resources"]["devices"].clone()
}
