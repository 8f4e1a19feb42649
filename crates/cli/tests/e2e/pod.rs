//! A pod: a pause container, and siblings in its namespaces.

use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, known, wait_until};

use crate::runtime;

/// A bundle in the pause container's namespaces.
fn sibling(pause: &Container<'_>, script: &str) -> Bundle {
    let pid = pause.pid();
    Bundle::script(script)
        .remove("", "hostname")
        .join_namespace("network", format!("/proc/{pid}/ns/net"))
        .join_namespace("ipc", format!("/proc/{pid}/ns/ipc"))
        .join_namespace("uts", format!("/proc/{pid}/ns/uts"))
        .join_namespace("pid", format!("/proc/{pid}/ns/pid"))
}

fn pause_bundle() -> Bundle {
    Bundle::sleeper().set("/hostname", serde_json::json!("the-pod"))
}

#[test]
fn siblings_share_net_ipc_uts_and_pid_but_not_mount() {
    let runtime = runtime();
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let script = "hostname; for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done";
    let output = runtime.run(&sibling(&pause, script)).ok();
    let lines = output.lines();
    assert_eq!(lines[0], "the-pod");
    for (index, kind) in ["net", "ipc", "uts", "pid"].into_iter().enumerate() {
        assert_eq!(lines[index + 1], pause.link(&format!("ns/{kind}")).to_str().unwrap());
    }
    assert_ne!(lines[5], pause.link("ns/mnt").to_str().unwrap());
}

#[test]
fn siblings_talk_over_loopback() {
    let runtime = runtime();
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let server_bundle = sibling(&pause, "exec httpd -f -p 8080 -h /srv").file("srv/page", "served");
    let server = runtime.container(&server_bundle);
    server.up();
    let client = sibling(&pause, "until wget -q -O - 127.0.0.1:8080/page 2>/dev/null; do sleep 0.02; done");
    assert_eq!(runtime.run(&client).ok().text(), "served");
}

#[test]
fn siblings_see_each_others_processes() {
    let runtime = runtime();
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let output = runtime.run(&sibling(&pause, "tr '\\0' ' ' < /proc/1/cmdline; echo; echo $$")).ok();
    assert!(output.lines()[0].contains("sleep 1000"), "{output}");
    assert_ne!(output.lines()[1], "1");
}

#[test]
fn a_killed_sibling_takes_its_children_with_it() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 kills the cgroup only if pid is no namespace of the config", Crun: "1.8.1 kills \
         init alone; in a shared pid namespace its children live on until delete");
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let bundle = sibling(&pause, "sleep 1001 & sleep 1002 & wait");
    let container = runtime.container(&bundle);
    container.up();
    let cgroup = container.cgroup(if host::cgroup_mode() == CgroupMode::V2 { "" } else { "pids" });
    let count = || std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines().count();
    wait_until("three processes", || count() == 3);
    container.kill("KILL").ok();
    container.wait_for("stopped");
    wait_until("all are gone", || count() == 0);
    pause.is("running");
}

#[test]
fn delete_force_of_a_sibling_leaves_the_others() {
    let runtime = runtime();
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let bundle = sibling(&pause, "sleep 1001 & sleep 1002 & wait");
    let (first, second) = (runtime.container(&bundle), runtime.container(&bundle));
    first.up();
    second.up();
    first.delete_force().ok();
    second.is("running");
    pause.is("running");
}

#[test]
fn siblings_end_with_the_pause_container_and_can_be_deleted() {
    let runtime = runtime();
    let bundle = pause_bundle();
    let pause = runtime.container(&bundle);
    pause.up();
    let bundle = sibling(&pause, "sleep 1001");
    let container = runtime.container(&bundle);
    container.up();
    pause.delete_force().ok();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn a_sibling_shares_a_user_namespace() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 asks for mappings");
    let bundle = pause_bundle().user_namespace(100_000, 65536);
    let pause = runtime.container(&bundle);
    pause.up();
    let path = format!("/proc/{}/ns/user", pause.pid());
    let bundle = sibling(&pause, "id -u; readlink /proc/self/ns/user").join_namespace("user", path);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["0", pause.link("ns/user").to_str().unwrap()]);
}
