use serde_json::{Value, json};

use super::*;
use crate::template::{self, Cgroups};

/// The template with `value` at `pointer`; the parents must exist. Null removes.
fn changed(pointer: &str, value: Value) -> Value {
    let mut document = template::document(Cgroups::Legacy);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => parent.remove(key),
        value => parent.insert(key.to_owned(), value),
    };
    document
}

fn check(document: &Value) -> std::result::Result<(), (String, String)> {
    let text = document.to_string();
    let spec: Spec = serde_json::from_str(&text).unwrap();
    super::text(text.as_bytes()).and_then(|()| super::spec(&spec)).map_err(|finding| (finding.pointer, finding.cause))
}

#[test]
fn the_templates_pass() {
    assert_eq!(check(&template::document(Cgroups::Legacy)), Ok(()));
    assert_eq!(check(&template::document(Cgroups::Unified)), Ok(()));
    assert_eq!(check(&template::rootless_document(Cgroups::Unified, 1000, 1000)), Ok(()));
}

#[test]
fn what_clients_write_passes() {
    let cases = [
        ("/ociVersion", json!("1.0.0")),
        ("/ociVersion", json!("1.0.2-dev")),
        ("/ociVersion", json!("1.1.0+dev")),
        ("/ociVersion", json!("1.0.0-rc.5.dev")),
        ("/process/consoleSize", json!({"height": 0, "width": 0})),
        ("/process/oomScoreAdj", json!(-1000)),
        ("/process/env", json!(["A=", "B=x=y", "C=line\nbreak"])),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": u64::MAX}])),
        ("/linux/rootfsPropagation", json!("")),
        ("/linux/rootfsPropagation", json!("rslave")),
        ("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "1"})),
        ("/linux/uidMappings", json!([])),
        ("/hooks", json!({"prestart": [{"path": "/bin/true", "timeout": 1}], "poststop": []})),
        ("/annotations", json!({"a": "NUL \u{0} is nobody's business here"})),
    ];
    for (pointer, value) in cases {
        assert_eq!(check(&changed(pointer, value.clone())), Ok(()), "{pointer} {value}");
    }
}

#[test]
fn each_fault_is_found_and_named() {
    let cases = [
        ("/ociVersion", json!(""), "/ociVersion"),
        ("/ociVersion", json!("2.0.0"), "/ociVersion"),
        ("/ociVersion", json!("0.9.0"), "/ociVersion"),
        ("/ociVersion", json!("1.0"), "/ociVersion"),
        ("/ociVersion", json!("1.0.0.0"), "/ociVersion"),
        ("/ociVersion", json!("1.0.x"), "/ociVersion"),
        ("/ociVersion", json!("1.0.0-"), "/ociVersion"),
        ("/ociVersion", json!("01.0.0"), "/ociVersion"),
        ("/ociVersion", json!("10.0.0"), "/ociVersion"),
        ("/ociVersion", json!("1.0.0 x"), "/ociVersion"),
        ("/root", Value::Null, "/root"),
        ("/root/path", json!(""), "/root/path"),
        ("/process", Value::Null, "/process"),
        ("/process/args", json!([]), "/process/args"),
        ("/process/args", Value::Null, "/process/args"),
        ("/process/args", json!(["a", "b\u{0}c"]), "/process/args/1"),
        ("/process/cwd", json!(""), "/process/cwd"),
        ("/process/cwd", json!("tmp"), "/process/cwd"),
        ("/process/env", json!(["A=1", "B"]), "/process/env/1"),
        ("/process/env", json!(["=1"]), "/process/env/0"),
        ("/process/user", json!({"uid": u32::MAX, "gid": 0}), "/process/user/uid"),
        ("/process/user", json!({"uid": 0, "gid": u32::MAX}), "/process/user/gid"),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "additionalGids": [1, u32::MAX]}),
            "/process/user/additionalGids/1",
        ),
        ("/process/consoleSize", json!({"height": 65536, "width": 1}), "/process/consoleSize/height"),
        ("/process/oomScoreAdj", json!(1001), "/process/oomScoreAdj"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}, {"type": "RLIMIT_CPU", "hard": 1, "soft": 1}]),
            "/process/rlimits/1",
        ),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]), "/process/rlimits/0"),
        ("/linux", Value::Null, "/linux"),
        ("/linux/namespaces", json!([{"type": "mount"}]), "/hostname"),
        ("/linux/namespaces", json!([{"type": "uts"}]), "/linux/maskedPaths"),
        (
            "/linux/namespaces",
            json!([{"type": "uts"}, {"type": "mount"}, {"type": "uts", "path": "/x"}]),
            "/linux/namespaces/2",
        ),
        ("/linux/namespaces", json!([{"type": "pid", "path": "proc/1/ns/pid"}]), "/linux/namespaces/0/path"),
        ("/linux/namespaces", json!([{"type": "uts"}, {"type": "mount"}, {"type": "user"}]), "/linux/uidMappings"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "/linux/uidMappings"),
        ("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "/linux/gidMappings"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "/linux/timeOffsets/boottime"),
        ("/linux/timeOffsets", json!({"real/time": {"secs": 1}}), "/linux/timeOffsets/real~1time"),
        ("/linux/maskedPaths", json!(["/proc/kcore", "proc/keys"]), "/linux/maskedPaths/1"),
        ("/linux/readonlyPaths", json!([""]), "/linux/readonlyPaths/0"),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/x"}), "/linux/sysctl/kernel.core_pattern"),
        ("/linux/sysctl", json!({"kernel/hostname": "x"}), "/linux/sysctl/kernel~1hostname"),
        ("/linux/rootfsPropagation", json!("everywhere"), "/linux/rootfsPropagation"),
        ("/mounts", json!([{"destination": "", "type": "tmpfs"}]), "/mounts/0/destination"),
        (
            "/mounts",
            json!([{"destination": "/a", "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}]),
            "/mounts/0/gidMappings",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 0, "size": 0}]}]),
            "/mounts/0/gidMappings/0",
        ),
        ("/mounts", json!([{"destination": "/a", "options": ["rbind", "ridmap"]}]), "/mounts/0/options/1"),
        ("/hooks", json!({"poststop": [{"path": "bin/true"}]}), "/hooks/poststop/0/path"),
        ("/hooks", json!({"createRuntime": [{"path": ""}]}), "/hooks/createRuntime/0/path"),
        (
            "/hooks",
            json!({"startContainer": [{"path": "/a"}, {"path": "/b", "timeout": 0}]}),
            "/hooks/startContainer/1/timeout",
        ),
        ("/hostname", json!("a\u{0}b"), "/hostname"),
        ("/linux/resources", json!([]), "/linux/resources"),
        ("/linux/devices", json!([{"path": "dev/x", "type": "c"}]), "/linux/devices/0/path"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), "/linux/devices/0/type"),
    ];
    for (pointer, value, expected) in cases {
        let found = check(&changed(pointer, value.clone())).expect_err(&format!("{pointer} {value}"));
        assert_eq!(found.0, expected, "{pointer} {value}: {}", found.1);
        assert!(!found.1.contains('\n') && !found.1.is_empty());
    }
}

#[test]
fn a_domainname_needs_a_uts_namespace_too() {
    let mut document = changed("/domainname", json!("example"));
    document["hostname"] = json!("");
    document["linux"]["namespaces"] = json!([{"type": "mount"}]);
    assert_eq!(check(&document).unwrap_err().0, "/domainname");
}

#[test]
fn id_mappings_are_bounded() {
    let with = |list: Vec<Value>| {
        let mut document = template::rootless_document(Cgroups::Legacy, 1000, 1000);
        document["linux"]["uidMappings"] = Value::Array(list);
        check(&document).map_err(|(pointer, _)| pointer)
    };
    let one = |container: u32, host: u32, size: u32| json!({"containerID": container, "hostID": host, "size": size});
    let many = |count: u32| (0..count).map(|index| one(index, index, 1)).collect();
    assert_eq!(with(many(340)), Ok(()));
    assert_eq!(with(many(341)), Err("/linux/uidMappings".into()));
    assert_eq!(with(vec![]), Err("/linux/uidMappings".into()));
    assert_eq!(with(vec![one(0, 100_000, 65_536)]), Ok(()));
    assert_eq!(with(vec![one(0, 0, u32::MAX)]), Ok(()));
    assert_eq!(with(vec![one(0, 0, 1), one(1, 1, 0)]), Err("/linux/uidMappings/1".into()));
    assert_eq!(with(vec![one(0, 1, u32::MAX)]), Err("/linux/uidMappings/0".into()));
    assert_eq!(with(vec![one(u32::MAX, 0, 1)]), Err("/linux/uidMappings/0".into()));
}

#[test]
fn what_is_not_implemented_is_named_and_what_is_empty_is_not() {
    let asked = |pointer: &str, value: Value| unsupported(&serde_json::from_value(changed(pointer, value)).unwrap());
    let cases = [
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}), vec!["/linux/seccomp"]),
        ("/linux/mountLabel", json!("system_u"), vec!["/linux/mountLabel"]),
        ("/linux/mountLabel", json!(""), vec![]),
        ("/linux/intelRdt", json!({}), vec!["/linux/intelRdt"]),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL"}), vec!["/linux/memoryPolicy"]),
        ("/linux/netDevices", json!({"eth0": {}}), vec!["/linux/netDevices"]),
        ("/linux/netDevices", json!({}), vec![]),
        ("/linux/personality", json!({"domain": "LINUX32"}), vec!["/linux/personality"]),
        ("/process/apparmorProfile", json!("docker-default"), vec!["/process/apparmorProfile"]),
        ("/process/apparmorProfile", json!(""), vec![]),
        ("/process/selinuxLabel", json!("system_u"), vec!["/process/selinuxLabel"]),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO"}), vec!["/process/scheduler"]),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE"}), vec!["/process/ioPriority"]),
        ("/process/execCPUAffinity", json!({"initial": "0"}), vec!["/process/execCPUAffinity"]),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}]), vec![]),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}), vec![]),
    ];
    for (pointer, value, expected) in cases {
        assert_eq!(asked(pointer, value.clone()), expected, "{pointer} {value}");
    }
}
