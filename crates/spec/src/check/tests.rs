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
        ("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 99, "nice": -20})),
        ("/process/scheduler", json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 7})),
        ("/process/execCPUAffinity", json!({"initial": "0-3,7", "final": "1"})),
        ("/linux/personality", json!({"domain": "LINUX32", "flags": []})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-3,7"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL", "nodes": ""})),
        ("/linux/netDevices", json!({"a": {"name": "eth%d"}, "b": {"name": "eth%d"}, "c": {}})),
        ("/linux/intelRdt", json!({"closID": "/", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=10"})),
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
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "/process/scheduler/nice"),
        ("/process/scheduler", json!({"policy": "SCHED_BATCH", "priority": 1}), "/process/scheduler/priority"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 100}), "/process/scheduler/priority"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "runtime": 1}), "/process/scheduler/runtime"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "period": 1}), "/process/scheduler/period"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "/process/ioPriority/priority"),
        ("/process/execCPUAffinity", json!({"final": "3-1"}), "/process/execCPUAffinity/final"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "/linux/personality/flags/0"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0;1"}), "/linux/memoryPolicy/nodes"),
        ("/linux/netDevices", json!({"eth/0": {}}), "/linux/netDevices/eth~10"),
        ("/linux/netDevices", json!({"a-name-of-16-byte": {}}), "/linux/netDevices/a-name-of-16-byte"),
        ("/linux/netDevices", json!({"a": {"name": "eth%s"}}), "/linux/netDevices/a/name"),
        ("/linux/intelRdt", json!({"closID": "a/b"}), "/linux/intelRdt/closID"),
        ("/linux/intelRdt", json!({"closID": "info"}), "/linux/intelRdt/closID"),
        ("/linux/intelRdt", json!({"memBwSchema": "L3:0=f"}), "/linux/intelRdt/memBwSchema"),
        ("/linux/intelRdt", json!({"schemata": ["L3:0=f", "MB:\n"]}), "/linux/intelRdt/schemata/1"),
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
fn a_seccomp_profile_that_cannot_be_meant_is_refused() {
    let refusal = |seccomp: Value| {
        let spec: Spec = serde_json::from_value(changed("/linux/seccomp", seccomp)).unwrap();
        super::spec(&spec).map_err(|finding| finding.pointer)
    };
    let rule = |rule: Value| refusal(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    let refused = |at: &str| Err(format!("/linux/seccomp{at}"));
    assert_eq!(rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095})), Ok(()));
    assert_eq!(rule(json!({"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535})), Ok(()));
    for (given, at) in [
        (json!({"names": [], "action": "SCMP_ACT_ERRNO"}), "/syscalls/0/names"),
        (json!({"names": ["read", ""], "action": "SCMP_ACT_ERRNO"}), "/syscalls/0/names/1"),
        (json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}), "/syscalls/0/errnoRet"),
        (json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1}), "/syscalls/0/errnoRet"),
        (
            json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}),
            "/syscalls/0/args/0/index",
        ),
        (json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}), "/syscalls/0/action"),
    ] {
        assert_eq!(rule(given.clone()), refused(at), "{given}");
    }
    let notify = |names: Value| {
        let rules = json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]);
        refusal(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s", "syscalls": rules}))
    };
    assert_eq!(notify(json!(["mkdir"])), Ok(()));
    assert_eq!(notify(json!(["mkdir", "write"])), refused("/syscalls/0/action"));
    for (given, at) in [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/s"}), "/defaultAction"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "/defaultErrnoRet"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}), "/listenerMetadata"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "s"}), "/listenerPath"),
    ] {
        assert_eq!(refusal(given.clone()), refused(at), "{given}");
    }
}

#[test]
fn net_devices_need_a_namespace_and_names_of_their_own() {
    let mut document = changed("/linux/netDevices", json!({"a": {"name": "eth0"}, "b": {"name": "eth0"}}));
    assert!(check(&document).unwrap_err().0.starts_with("/linux/netDevices/"));
    document["linux"]["netDevices"] = json!({"a": {}});
    assert_eq!(check(&document), Ok(()));
    document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
    assert_eq!(check(&document).unwrap_err().0, "/linux/netDevices");
}
