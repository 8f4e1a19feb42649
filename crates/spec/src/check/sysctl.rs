//! /proc/sys is not namespaced as a whole: only what belongs to a namespace of the container may be set.

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::{Findings, has};
use crate::decode::escape;

/// Refuses a sysctl that would change the host. Whether a joined network namespace is the host's own is for
/// [`crate::Bundle::load`], which may look at files.
pub(super) fn check(linux: &Linux, found: &mut Findings) {
    let mut names: Vec<&String> = linux.sysctl().iter().flatten().map(|(name, _)| name).collect();
    // A map has no order: of two errors always the same one.
    names.sort();
    for name in names {
        if let Err(cause) = allowed(linux, name) {
            found.add(format!("/linux/sysctl/{}", escape(name)), cause);
        }
    }
}

/// The components of a sysctl's name, whichever of `.` and `/` comes first separating them, as sysctl(8) has it:
/// `net/ipv4/conf/eth0.1/forwarding` and `net.ipv4.conf.eth0/1.forwarding` are the same.
fn components(name: &str) -> Vec<String> {
    let slashed = name.find(['.', '/']).is_some_and(|first| name.as_bytes()[first] == b'/');
    if slashed {
        name.split('/').map(str::to_owned).collect()
    } else {
        name.split('.').map(|component| component.replace('/', ".")).collect()
    }
}

fn allowed(linux: &Linux, name: &str) -> std::result::Result<(), String> {
    let components = components(name);
    if components.iter().any(|component| matches!(component.as_str(), "" | "." | "..")) {
        return Err("is not the name of a sysctl".into());
    }
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    let (namespace, word) = match components.as_slice() {
        ["kernel", "hostname"] => return Err("is set by /hostname".into()),
        ["kernel", "domainname"] => (LinuxNamespaceType::Uts, "uts"),
        ["kernel", "msgmax" | "msgmnb" | "msgmni" | "sem" | "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced"]
        | ["fs", "mqueue", _, ..] => (LinuxNamespaceType::Ipc, "ipc"),
        ["net", _, ..] => (LinuxNamespaceType::Network, "network"),
        ["user", _, ..] => (LinuxNamespaceType::User, "user"),
        _ => return Err("belongs to no namespace, so it would change the host".into()),
    };
    if has(linux, namespace) { Ok(()) } else { Err(format!("needs a {word} namespace in /linux/namespaces")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(namespaces: &[&str]) -> Linux {
        let namespaces: Vec<_> = namespaces.iter().map(|kind| serde_json::json!({"type": kind})).collect();
        serde_json::from_value(serde_json::json!({"namespaces": namespaces})).unwrap()
    }

    #[test]
    fn a_sysctl_needs_its_own_namespace() {
        let cases = [
            ("kernel.shmmax", "ipc"),
            ("kernel/sem", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("net.ipv4.ip_forward", "network"),
            ("net/ipv4/conf/eth0.1/forwarding", "network"),
            ("user.max_user_namespaces", "user"),
            ("kernel.domainname", "uts"),
        ];
        for (name, namespace) in cases {
            assert_eq!(allowed(&linux(&[namespace]), name), Ok(()), "{name}");
            assert!(allowed(&linux(&["pid", "mount"]), name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_every_namespace() {
        let all = linux(&["pid", "mount", "ipc", "network", "user", "uts", "cgroup", "time"]);
        for name in [
            "kernel.hostname",
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "fs.mqueue",
            "net",
            "",
            ".",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net.//.kernel",
            "net.ipv4/../../kernel.core_pattern",
            "kernel.msgmax.x",
        ] {
            assert!(allowed(&all, name).is_err(), "{name}");
        }
    }
}
