//! A runtime in a container that it has made itself.

use std::path::Path;

use serde_json::json;
use tare_testkit::{Bundle, Runtime, known};

use super::{USER, advises, as_user};
use crate::runtime;

const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// A container in which another can be run: the runtime with the libraries that it may need, the inner bundle on /inner,
/// nothing masked.
fn outer(runtime: &Runtime, inner: &Bundle, script: &str) -> Bundle {
    inner.write();
    // The pid in the id: whatever is left is told apart by the outer one's tag anyway.
    // Where the container has processes its cgroup2 passes no controllers on: they move aside, as every such container does.
    let aside = "if [ -w /sys/fs/cgroup/cgroup.subtree_control ]; then mkdir /sys/fs/cgroup/own; \
         echo $$ > /sys/fs/cgroup/own/cgroup.procs; fi";
    let script = format!("set -e; {aside}; r() {{ /runtime --root /run/inner \"$@\"; }}; cd /inner; {script}");
    let program = tare_testkit::host::program(runtime.program()).unwrap();
    let mut bundle = Bundle::script(&script)
        .capabilities(ALL)
        .set("/process/noNewPrivileges", json!(false))
        .remove("/linux", "maskedPaths")
        .remove("/linux", "readonlyPaths")
        .resource("devices", json!([{"allow": true, "access": "rwm"}]))
        .file("runtime", "")
        .dir("inner")
        .dir("lib64")
        .bind(program, "/runtime", &["bind", "ro"])
        .bind(inner.path(), "/inner", &["bind"]);
    for (host, inside) in [("/usr", "/usr"), ("/lib", "/lib"), ("/lib64", "/lib64")] {
        if Path::new(host).exists() {
            bundle = bundle.bind(host, inside, &["bind", "ro"]);
        }
    }
    bundle.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    })
}

fn inner(script: &str) -> Bundle {
    Bundle::script(script)
}

/// Where one group is mapped, it is not that of terminals.
fn without_gid(bundle: Bundle) -> Bundle {
    bundle.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
    })
}

const HELLO: &str =
    "echo inner $$ $(id -u); head -c 1 /dev/zero | wc -c; test -w /proc/self/oom_score_adj && echo proc";

#[test]
fn nested_as_root() {
    let runtime = runtime();
    let inner = inner(HELLO);
    let outer = outer(&runtime, &inner, "r run a; r list -q; echo end");
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end"], "{output}");
}

#[test]
fn nested_life_and_limits_of_a_container() {
    let runtime = runtime();
    let inner = Bundle::sleeper().resource("pids", json!({"limit": 20}));
    let script = "r create a < /dev/null > /log 2>&1; r start a; r exec a sh -c 'echo in $(cat /proc/1/comm)'; \
         r pause a; r state a | grep status; r resume a; r kill a KILL; \
         until r state a | grep stopped; do sleep 0.1; done; r delete a; r list -q; echo end";
    let output = runtime.run(&outer(&runtime, &inner, script)).ok();
    let lines: Vec<&str> = output.lines().into_iter().map(|line| line.trim().trim_end_matches(',')).collect();
    let expected = ["in sh", "\"status\": \"paused\"", "\"status\": \"stopped\"", "end"];
    assert_eq!(lines, expected, "{output}");
}

#[test]
fn nested_pod() {
    let runtime = runtime();
    let inner = Bundle::sleeper();
    let second = Bundle::new();
    second.write();
    let script = "r create a < /dev/null > /log 2>&1; r start a; \
         p=$(r state a | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'); cd /second; \
         sed -i \"s,\\\"PODNET\\\",\\\"/proc/$p/ns/net\\\",; s,\\\"PODIPC\\\",\\\"/proc/$p/ns/ipc\\\",\" config.json; r run b; \
         readlink /proc/$p/ns/net /proc/$p/ns/ipc 2>&1 || true; readlink /proc/$p/ns/net; readlink /proc/$p/ns/ipc; \
         r delete -f a; echo end";
    let second = second
        .args(["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"])
        .join_namespace("network", "PODNET")
        .join_namespace("ipc", "PODIPC");
    second.write();
    let script = script.replace("readlink /proc/$p/ns/net /proc/$p/ns/ipc 2>&1 || true; ", "");
    let outer = outer(&runtime, &inner, &script).dir("second").bind(second.path(), "/second", &["bind"]);
    let output = runtime.run(&outer).ok();
    let lines = output.lines();
    assert_eq!(lines.len(), 5, "{output}");
    assert_eq!(lines[..2], lines[2..4], "{output}");
}

#[test]
fn nested_in_a_user_namespace() {
    let runtime = runtime();
    let inner = inner(HELLO);
    // Root there, and nobody on the host: it goes without cgroups, and binds devices.
    let outer = outer(&runtime, &inner, "r run a; r list -q; echo end").user_namespace(100_000, 65_536);
    let outer = outer.owned_by(100_000);
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end"], "{output}");
}

#[test]
fn nested_user_namespaces() {
    let runtime = runtime();
    let inner = inner(HELLO).user_namespace(1000, 1000).owned_by(101_000);
    let outer = outer(&runtime, &inner, "r run a; echo end").user_namespace(100_000, 65_536).owned_by(100_000);
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end"], "{output}");
}

#[test]
fn nested_in_a_container_of_a_user() {
    let runtime = as_user();
    known!(runtime, Runc: "1.1.5 looks for the cgroups of the host, which are covered");
    let inner = without_gid(inner(HELLO)).owned_by(USER);
    let outer = outer(&runtime, &inner, "r run a; r list -q; echo end").rootless(USER);
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end"], "{output}");
}

#[test]
fn nested_user_namespaces_of_a_user() {
    let runtime = as_user();
    known!(runtime, Runc: "1.1.5 looks for the cgroups of the host, which are covered");
    let inner = without_gid(inner(HELLO)).user_namespace(0, 1).owned_by(USER);
    let outer = outer(&runtime, &inner, "r run a; echo end").rootless(USER);
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end"], "{output}");
}

#[test]
fn nested_three_deep() {
    let runtime = runtime();
    known!(
        runtime,
        Runc: "1.1.5 fails in a container of the same name, over the session keyring",
        Crun: "1.8.1 hangs in the end",
    );
    let innermost = inner(HELLO);
    let middle = outer(&runtime, &innermost, "r run a; echo end");
    middle.write();
    // The middle one has its binds from the outer one, where they have the same names.
    let middle = middle.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/runtime" {
                mount["source"] = json!("/runtime");
            } else if mount["destination"] == "/inner" {
                mount["source"] = json!("/innermost");
            }
        }
    });
    let outer = outer(&runtime, &middle, "r run a; echo outer").dir("innermost");
    let outer = outer.bind(innermost.path(), "/innermost", &["bind"]);
    let output = runtime.run(&outer).ok();
    assert_eq!(output.lines(), ["inner 1 0", "1", "proc", "end", "outer"], "{output}");
}

#[test]
fn nested_where_proc_is_masked_says_what_to_do() {
    let runtime = as_user();
    // Of what it may take away itself its user namespace has to be another: there the masks are locked.
    let inner = without_gid(inner("echo ran")).user_namespace(0, 1).owned_by(USER);
    let masked = outer(&runtime, &inner, "r run a")
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys", "/proc/timer_list"]))
        .rootless(USER);
    let output = runtime.run(&masked).fails(&[]);
    assert_eq!(output.stdout, "");
    advises(
        &runtime,
        &output,
        "mount proc on \"/proc\": mount(\"proc\"): operation not permitted (EPERM)",
        "unmask=ALL",
    );

    // As it advises.
    let inner = inner.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let proc = mounts.iter_mut().find(|mount| mount["destination"] == "/proc").unwrap();
        *proc = json!({"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]});
        config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
    });
    inner.write();
    known!(runtime, Runc: "1.1.5 wants a proc of its own");
    let output = runtime.run(&masked).ok();
    assert_eq!(output.lines(), ["ran"], "{output}");
}
