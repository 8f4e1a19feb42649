//! The document that the `spec` verb writes: what `runc spec` writes, but for the hostname.

use serde_json::{Value, json};

use crate::OCI_VERSION;

/// Whether the host has only the one, unified cgroup hierarchy; then the container gets a cgroup namespace too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// cgroup v1, or v1 and v2 side by side.
    Legacy,
    /// cgroup v2 alone.
    Unified,
}

impl Cgroups {
    /// What this host has.
    pub fn of_host() -> Self {
        // Only the root of a cgroup2 mount has it.
        if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { Self::Unified } else { Self::Legacy }
    }
}

/// A shell in a container as it should be: own namespaces, few capabilities, read-only root.
pub fn document(cgroups: Cgroups) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if cgroups == Cgroups::Unified {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            // No inheritable set (CVE-2022-24769) and no ambient one: nothing survives an exec by another user.
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "tare",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi", "/sys/devices/virtual/tpm",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

/// The same for a user without privileges: an own user namespace in which that user is root.
pub fn rootless_document(cgroups: Cgroups, uid: u32, gid: u32) -> Value {
    let mut document = document(cgroups);
    let linux = &mut document["linux"];
    if let Some(linux) = linux.as_object_mut() {
        // Cgroups belong to root.
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // sysfs can be mounted only by the owner of the network namespace.
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // The groups of the host are not mapped.
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=") || o.starts_with("uid=")));
        }
    }
    document
}

/// The members of the documents in the order in which people read them: the specification's.
#[rustfmt::skip]
const ORDER: &[&str] = &[
    "ociVersion", "process", "root", "hostname", "mounts", "linux", // the document
    "terminal", "user", "args", "env", "cwd", "capabilities", "rlimits", "noNewPrivileges", // process
    "uid", "gid", "bounding", "effective", "permitted", // its user and capabilities
    "destination", "type", "source", "options", "hard", "soft", "path", "readonly", // mounts, limits, root
    "uidMappings", "gidMappings", "resources", "namespaces", "maskedPaths", "readonlyPaths", // linux
    "containerID", "hostID", "size", "devices", "allow", "access", // below it
];

/// A document as text, indented by tabs.
pub fn text(document: &Value) -> String {
    let mut text = String::new();
    write(&mut text, document, 1);
    text.push('\n');
    text
}

fn write(text: &mut String, value: &Value, depth: usize) {
    let indent = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n('\t', depth));
    };
    match value {
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                text.push(if index == 0 { '[' } else { ',' });
                indent(text, depth);
                write(text, element, depth + 1);
            }
            indent(text, depth - 1);
            text.push(']');
        }
        Value::Object(members) if !members.is_empty() => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| ORDER.iter().position(|known| known == key));
            for (index, (key, member)) in members.into_iter().enumerate() {
                text.push(if index == 0 { '{' } else { ',' });
                indent(text, depth);
                text.push_str(&format!("{}: ", Value::from(key.as_str())));
                write(text, member, depth + 1);
            }
            indent(text, depth - 1);
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
