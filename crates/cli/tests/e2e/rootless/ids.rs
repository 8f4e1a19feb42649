//! Id maps: by the kernel's leave, by newuidmap's and newgidmap's.

use serde_json::{Value, json};
use tare_testkit::{Bundle, Runtime, TempDir, known, skip};

use super::{USER, advises, as_user, script};

/// The user under a name, with ids of its own, in a mount namespace where only this test sees them.
struct Subids {
    dir: TempDir,
}

impl Subids {
    fn new(subuid: &str, subgid: &str) -> Self {
        let dir = TempDir::new("etc");
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write(dir.join("passwd"), format!("{passwd}ann:x:{USER}:{USER}::/:/bin/sh\n")).unwrap();
        std::fs::write(dir.join("subuid"), subuid).unwrap();
        std::fs::write(dir.join("subgid"), subgid).unwrap();
        Self { dir }
    }

    fn runtime(&self) -> Runtime {
        let mut script = String::new();
        for name in ["passwd", "subuid", "subgid"] {
            // Where the host has none of these files one is made, which nothing goes by.
            let file = self.dir.join(name);
            script.push_str(&format!(
                "[ -e /etc/{name} ] || : > /etc/{name}; mount --bind {} /etc/{name} && ",
                file.display()
            ));
        }
        script.push_str("exec \"$@\"");
        as_user().around(script).around("exec unshare --mount --propagation private \"$@\"")
    }
}

fn has_helpers() -> bool {
    ["newuidmap", "newgidmap"].iter().all(|name| tare_testkit::host::program(name).is_some())
}

macro_rules! helpers {
    () => {
        if !has_helpers() {
            skip!("newuidmap and newgidmap are not installed (Debian: uidmap)");
        }
    };
}

fn entry(container: u32, host: u32, size: u32) -> Value {
    json!({"containerID": container, "hostID": host, "size": size})
}

fn mapped(bundle: Bundle, uids: &[Value], gids: &[Value]) -> Bundle {
    bundle.set("/linux/uidMappings", json!(uids)).set("/linux/gidMappings", json!(gids))
}

const GRANT: &str = "ann:300000:65536\n";

#[test]
fn a_long_map_is_written_by_the_helpers() {
    helpers!();
    let subids = Subids::new(GRANT, GRANT);
    let runtime = subids.runtime();
    let map = [entry(0, USER, 1), entry(1, 300_000, 65_536)];
    let bundle = script("cat /proc/self/uid_map /proc/self/gid_map; chown 5:6 /etc/group && stat -c %u:%g /etc/group")
        .capabilities(&["CAP_CHOWN"]);
    let output = runtime.run(&mapped(bundle, &map, &map)).ok();
    let lines: Vec<String> =
        output.lines().iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = ["0 54321 1", "1 300000 65536", "0 54321 1", "1 300000 65536", "5:6"];
    assert_eq!(lines, expected, "{output}");
}

#[test]
fn other_users_and_groups_of_a_long_map() {
    helpers!();
    let subids = Subids::new(GRANT, GRANT);
    let runtime = subids.runtime();
    known!(runtime, Runc: "has no additional groups for a user, whatever the map");
    let map = [entry(0, USER, 1), entry(1, 300_000, 65_536)];
    let bundle = script("id -u; id -g; id -G").user(1000, 1001);
    let bundle = mapped(bundle, &map, &map).set("/process/user/additionalGids", json!([7, 8]));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["1000", "1001", "1001 7 8"], "{output}");
}

#[test]
fn root_of_the_container_may_be_a_subordinate_id() {
    helpers!();
    let subids = Subids::new(GRANT, GRANT);
    let runtime = subids.runtime();
    known!(runtime, Runc: "1.1.5 may not give its fifo to that id");
    let map = [entry(0, 300_000, 65_536)];
    let bundle = mapped(script("id -u; touch /tmp/x; stat -c %u /tmp/x; sleep 1000 & wait"), &map, &map)
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 100}]));
    let container = runtime.container(&bundle);
    container.up();
    assert_eq!(container.shell("id -u"), "0");
    assert!(
        container
            .proc("limits")
            .lines()
            .any(|line| line.split_whitespace().eq("Max open files 100 100 files".split(' ')))
    );
    container.kill("KILL").ok();
    container.wait_for("stopped");
    container.delete().ok();
}

#[test]
fn ids_that_nobody_granted_are_told_with_the_line_that_is_missing() {
    helpers!();
    for (subuid, subgid, helper, file, line) in [
        ("", GRANT, "newuidmap", "/etc/subuid", "ann:300000:65536"),
        ("ann:300000:10\n", GRANT, "newuidmap", "/etc/subuid", "ann:300000:65536"),
        (GRANT, "bob:300000:65536\n", "newgidmap", "/etc/subgid", "ann:300000:65536"),
    ] {
        let subids = Subids::new(subuid, subgid);
        let runtime = subids.runtime();
        let map = [entry(0, USER, 1), entry(1, 300_000, 65_536)];
        let output = runtime.run(&mapped(script("true"), &map, &map)).fails(&[]);
        let first = format!("host ids 54321, 300000-365535: {helper}: ");
        let hint = format!("{file} does not grant 300000-365535 to ann: add the line {line}");
        advises(&runtime, &output, &first, &hint);
    }
}

#[test]
fn a_user_without_subordinate_ids_is_told_so() {
    helpers!();
    // No line in /etc/passwd either.
    let runtime = as_user();
    let map = [entry(0, USER, 1), entry(1, 300_000, 65_536)];
    let output = runtime.run(&mapped(script("true"), &map, &map)).fails(&[]);
    advises(&runtime, &output, "linux.uidMappings: host ids 54321, 300000-365535: newuidmap: ", "/etc/subuid");
}

#[test]
fn without_helpers_a_long_map_is_refused_by_their_name() {
    let runtime =
        as_user().inside("program=$(command -v \"$1\"); shift; PATH=/nowhere; export PATH; exec \"$program\" \"$@\"");
    let map = [entry(0, USER, 1), entry(1, 300_000, 65_536)];
    let output = runtime.run(&mapped(script("true"), &map, &map)).fails(&[]);
    let line = "linux.uidMappings: host ids 54321, 300000-365535: newuidmap is needed and not in PATH";
    advises(&runtime, &output, line, "install it (Debian and Ubuntu: uidmap");
}

#[test]
fn an_id_that_is_not_mapped_is_refused_by_its_field() {
    let runtime = as_user();
    if !runtime.is_tare() {
        skip!("the words are ours");
    }
    for (bundle, field) in [
        (script("true").user(1, 0), "/process/user/uid: 1 is not mapped by /linux/uidMappings"),
        (script("true").user(0, 2), "/process/user/gid: 2 is not mapped by /linux/gidMappings"),
        (
            script("true").set("/process/user/additionalGids", json!([0, 3])),
            "/process/user/additionalGids/1: 3 is not mapped by /linux/gidMappings",
        ),
        (
            script("true").mount(json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["gid=5"]})),
            "/mounts/7/options/0: 5 is not mapped by /linux/gidMappings",
        ),
    ] {
        let output = runtime.run(&bundle).fails(&[]);
        assert!(output.stderr.contains(field), "{field}: {output}");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
}

#[test]
fn additional_groups_of_ones_own_group_alone() {
    let runtime = as_user();
    known!(runtime, Crun: "goes without");
    let bundle = script("true").set("/process/user/additionalGids", json!([0]));
    let output = runtime.run(&bundle).fails(&[]);
    advises(&runtime, &output, "process.user.additionalGids: setgroups(", "newgidmap");
}

#[test]
fn exec_as_a_user_who_is_not_mapped() {
    let runtime = as_user();
    let bundle = super::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let output = container.exec_with(&["--user", "1000"], ["true"]).fails(&[]);
    assert_eq!(output.code(), Some(255).filter(|_| runtime.is_tare()).or(output.code()));
    if runtime.is_tare() {
        let line = "process.user.uid: setresuid(1000): not mapped in the container's user namespace: invalid argument (EINVAL)";
        assert!(output.stderr.contains(line), "{output}");
    }
}
