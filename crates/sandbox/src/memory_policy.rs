//! `linux.memoryPolicy`: on which NUMA nodes the process finds its memory.

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use crate::affinity::mask_of;
use crate::error::{CallContext, Context};
use crate::sys::mempolicy::set_mempolicy;
use crate::{Error, Result};

/// The kernel refuses masks of more bits than a page has; there are no such nodes.
const NODES: u32 = 4096 * 8;

/// The arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: libc::c_int,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// From the configuration. Which mode goes with which nodes and flags is the kernel's to say.
    ///
    /// # Errors
    /// What is no list of nodes.
    pub fn new(policy: &LinuxMemoryPolicy) -> Result<Self> {
        let flags = policy.flags().iter().flatten().fold(0, |flags, name| flags | flag(*name));
        let nodes = policy.nodes().as_deref().filter(|nodes| !nodes.is_empty());
        let nodes = nodes
            .map(|nodes| mask_of(nodes, NODES))
            .transpose()
            .map_err(Error::Refused)
            .during(|| "linux.memoryPolicy.nodes")?;
        Ok(Self { mode: mode(policy.mode()) | flags, nodes: nodes.unwrap_or_default() })
    }

    /// Sets it on the caller.
    ///
    /// # Errors
    /// As [`set_mempolicy`].
    pub fn set(&self) -> Result<()> {
        set_mempolicy(self.mode, &self.nodes)
            .call(|| format!("set_mempolicy({:#x}, {:x?})", self.mode, self.nodes))
            .during(|| "linux.memoryPolicy")
    }
}

/// `MPOL_*` of <linux/mempolicy.h>: PREFERRED_MANY since Linux 5.15, WEIGHTED_INTERLEAVE since 6.9.
fn mode(mode: MemoryPolicyModeType) -> libc::c_int {
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

/// `MPOL_F_*`.
fn flag(flag: MemoryPolicyFlagType) -> libc::c_int {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> MemoryPolicy {
        MemoryPolicy::new(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn each_mode_and_flag_has_its_number() {
        for (name, number) in [
            ("MPOL_DEFAULT", 0),
            ("MPOL_PREFERRED", 1),
            ("MPOL_BIND", 2),
            ("MPOL_INTERLEAVE", 3),
            ("MPOL_LOCAL", 4),
            ("MPOL_PREFERRED_MANY", 5),
            ("MPOL_WEIGHTED_INTERLEAVE", 6),
        ] {
            let policy = parse(&format!("{{\"mode\": \"{name}\", \"nodes\": \"\"}}"));
            assert_eq!(policy, MemoryPolicy { mode: number, nodes: vec![] }, "{name}");
        }
        let json = r#"{"mode": "MPOL_BIND", "nodes": "0-1,64",
            "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(parse(json), MemoryPolicy { mode: 0xe002, nodes: vec![3, 1] });
        let far = serde_json::from_str(r#"{"mode": "MPOL_BIND", "nodes": "0-4294967295"}"#).unwrap();
        assert!(MemoryPolicy::new(&far).unwrap_err().to_string().starts_with("linux.memoryPolicy.nodes: "));
    }

    #[test]
    fn the_kernel_takes_them_and_refuses_what_there_is_not() {
        // A thread of its own: the policy is a thread's.
        std::thread::spawn(|| {
            for json in [
                r#"{"mode": "MPOL_BIND", "nodes": "0"}"#,
                r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}"#,
                r#"{"mode": "MPOL_INTERLEAVE", "nodes": "0"}"#,
                r#"{"mode": "MPOL_LOCAL"}"#,
                r#"{"mode": "MPOL_DEFAULT"}"#,
            ] {
                parse(json).set().unwrap_or_else(|error| panic!("{json}: {error}"));
            }
            let error = parse(r#"{"mode": "MPOL_BIND"}"#).set().unwrap_err().to_string();
            assert!(error.starts_with("linux.memoryPolicy: set_mempolicy(0x2, []): invalid"), "{error}");
        })
        .join()
        .unwrap();
    }
}
