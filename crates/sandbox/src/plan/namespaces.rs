//! Which namespaces are made and which are joined.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespacePlan {
    /// Those to make.
    pub new: Vec<LinuxNamespaceType>,
    /// Those to join, with the file that stands for each.
    pub joined: Vec<(LinuxNamespaceType, PathBuf)>,
}

impl NamespacePlan {
    /// Sorts the namespaces of the configuration. An empty path means a new one.
    pub fn new(namespaces: &[LinuxNamespace]) -> Self {
        let mut plan = Self::default();
        for namespace in namespaces {
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => plan.joined.push((namespace.typ(), path.clone())),
                _ => plan.new.push(namespace.typ()),
            }
        }
        plan
    }

    /// Whether the container gets a new namespace of this type.
    pub fn makes(&self, typ: LinuxNamespaceType) -> bool {
        self.new.contains(&typ)
    }

    /// Whether the container's namespace of this type differs from the runtime's.
    pub fn has(&self, typ: LinuxNamespaceType) -> bool {
        self.makes(typ) || self.joins(typ).is_some()
    }

    /// The file of the namespace of this type that is joined.
    pub fn joins(&self, typ: LinuxNamespaceType) -> Option<&Path> {
        self.joined.iter().find(|(joined, _)| *joined == typ).map(|(_, path)| path.as_path())
    }

    /// The `CLONE_NEW*` bits of the namespaces to make, without those in `except`.
    pub fn clone_flags(&self, except: &[LinuxNamespaceType]) -> libc::c_int {
        self.new.iter().filter(|typ| !except.contains(typ)).fold(0, |flags, typ| flags | clone_flag(*typ))
    }

    /// The `CLONE_NEW*` bits of all namespaces that a second process of the container has to enter.
    pub fn all_flags(&self) -> libc::c_int {
        let joined = self.joined.iter().fold(0, |flags, (typ, _)| flags | clone_flag(*typ));
        self.clone_flags(&[]) | joined
    }
}

/// The `CLONE_NEW*` bit of a namespace type.
pub fn clone_flag(typ: LinuxNamespaceType) -> libc::c_int {
    match typ {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => 0x80, // CLONE_NEWTIME, Linux 5.6; not in libc's constants for every target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespaceBuilder;

    #[test]
    fn a_namespace_with_a_path_is_joined_and_one_without_is_made() {
        let namespace = |typ, path: Option<&str>| {
            let builder = LinuxNamespaceBuilder::default().typ(typ);
            match path {
                Some(path) => builder.path(path).build().unwrap(),
                None => builder.build().unwrap(),
            }
        };
        let plan = NamespacePlan::new(&[
            namespace(LinuxNamespaceType::Pid, None),
            namespace(LinuxNamespaceType::Network, Some("/proc/7/ns/net")),
            namespace(LinuxNamespaceType::Ipc, Some("")),
        ]);
        assert!(plan.makes(LinuxNamespaceType::Pid) && plan.makes(LinuxNamespaceType::Ipc));
        assert_eq!(plan.joins(LinuxNamespaceType::Network), Some(Path::new("/proc/7/ns/net")));
        assert!(!plan.has(LinuxNamespaceType::Uts));
        assert_eq!(plan.clone_flags(&[LinuxNamespaceType::Pid]), libc::CLONE_NEWIPC);
        assert_eq!(plan.all_flags(), libc::CLONE_NEWIPC | libc::CLONE_NEWPID | libc::CLONE_NEWNET);
    }
}
