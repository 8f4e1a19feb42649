//! What a user may not have, and what is said then.

use serde_json::json;
use tare_testkit::{Bundle, skip};

use super::{USER, advises, as_user, script};

fn replace_mount(bundle: Bundle, destination: &str, with: serde_json::Value) -> Bundle {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        *mounts.iter_mut().find(|mount| mount["destination"] == destination).unwrap() = with;
    })
}

#[test]
fn sysfs_belongs_to_the_network_namespace() {
    let runtime = as_user();
    let sysfs = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]});
    let bundle = replace_mount(script("true"), "/sys", sysfs);
    let output = runtime.run(&bundle);
    if runtime.is_tare() {
        let output = output.fails(&[]);
        let line = "mount sysfs on \"/sys\": mount(\"sysfs\"): operation not permitted (EPERM)";
        advises(&runtime, &output, line, "sysfs needs a new network namespace");
    }
    // With one of its own it may be mounted.
    runtime.run(&bundle.namespace("network")).ok();
}

#[test]
fn proc_belongs_to_the_pid_namespace() {
    let runtime = as_user();
    let output = runtime.run(&script("true").without_namespace("pid")).fails(&[]);
    let line = "mount proc on \"/proc\": mount(\"proc\"): operation not permitted (EPERM)";
    advises(&runtime, &output, line, "proc needs a new pid namespace");
}

#[test]
fn mqueue_belongs_to_the_ipc_namespace() {
    let runtime = as_user();
    let output = runtime.run(&script("true").without_namespace("ipc")).fails(&[]);
    let line = "mount mqueue on \"/dev/mqueue\": mount(\"mqueue\"): operation not permitted (EPERM)";
    advises(&runtime, &output, line, "mqueue needs a new ipc namespace");
}

#[test]
fn the_state_directory_of_root_is_not_the_users() {
    let runtime = as_user();
    let bundle = script("true");
    bundle.write();
    // A directory as /run is to a user.
    let root = std::path::Path::new("/proc/sys/tare");
    let output = runtime.bare().arg("--root").arg(root).arg("run").arg("--bundle").arg(bundle.path()).arg("x").run();
    let output = output.fails(&[]);
    if runtime.is_tare() {
        assert!(output.stderr.contains("mkdir(\"/proc/sys/tare"), "{output}");
    }
    let closed = tare_testkit::TempDir::new("closed");
    let root = closed.join("root");
    let output = runtime.bare().arg("--root").arg(&root).arg("run").arg("--bundle").arg(bundle.path()).arg("x").run();
    let output = output.fails(&["ermission denied", "No such file"]);
    advises(&runtime, &output, "mkdir(", "set XDG_RUNTIME_DIR, or give --root a directory of your own");
}

#[test]
fn user_namespaces_that_are_switched_off() {
    let runtime = as_user();
    if !runtime.is_tare() {
        skip!("the words are ours");
    }
    // The sysctl of the user namespace that the runtime is in: one of this test's own.
    let around = "exec unshare --user --map-root-user --keep-caps sh -c \
         'echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"";
    let runtime = as_user().inside(around);
    let bundle = script("true").user_namespace(0, 1);
    let output = runtime.run(&bundle).fails(&[]);
    let line = "unshare(CLONE_NEWUSER): no space left on device (ENOSPC)";
    advises(&runtime, &output, line, "sysctl user.max_user_namespaces=15000");
}

#[test]
fn an_idmapped_mount_takes_privilege() {
    let runtime = as_user();
    if !runtime.is_tare() {
        skip!("the words are ours");
    }
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let mount = json!({"destination": "/v", "type": "bind", "source": "/usr", "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map});
    let output = runtime.run(&script("true").mount(mount)).fails(&["operation not permitted (EPERM)"]);
    assert!(output.stderr.contains("mount \"/usr\" on \"/v\": "), "{output}");
}
