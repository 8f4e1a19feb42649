//! capabilities(7): names to numbers, and the five sets of a process.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::Result;
use crate::error::{CallContext, Context};
use crate::sys::capability::{self, Set, Sets};

/// The highest capability number of Linux 6.x: CAP_CHECKPOINT_RESTORE.
const LAST: u32 = 40;

/// The sets that a process of the container has after its credentials are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityPlan {
    /// What a file's capabilities can give at most.
    pub bounding: Set,
    /// What is in force.
    pub effective: Set,
    /// What may be put in force.
    pub permitted: Set,
    /// What survives exec of a file that says so.
    pub inheritable: Set,
    /// What survives exec of any file.
    pub ambient: Set,
}

impl CapabilityPlan {
    /// From the configuration; without one the process has no capability at all.
    pub fn new(capabilities: Option<&LinuxCapabilities>) -> Self {
        let Some(capabilities) = capabilities else { return Self::default() };
        Self {
            bounding: set_of(capabilities.bounding().as_ref()),
            effective: set_of(capabilities.effective().as_ref()),
            permitted: set_of(capabilities.permitted().as_ref()),
            inheritable: set_of(capabilities.inheritable().as_ref()),
            ambient: set_of(capabilities.ambient().as_ref()),
        }
    }

    /// Takes what is not planned out of the bounding set. While CAP_SETPCAP is in force: before the change of user.
    ///
    /// # Errors
    /// `EPERM` without CAP_SETPCAP.
    pub fn limit_bounding(&self) -> Result<()> {
        for number in 0..=63 {
            if self.bounding & 1 << number != 0 {
                continue;
            }
            match capability::drop_bounding(number) {
                Ok(()) => {}
                // A number that this kernel does not have ends the list.
                Err(nix::errno::Errno::EINVAL) if number > 0 => break,
                Err(errno) => return Err(errno).call(|| format!("prctl(PR_CAPBSET_DROP, {number})")),
            }
        }
        Ok(())
    }

    /// Puts what is planned to be effective in force, and keeps the right to go back: to see the file system as the process
    /// will.
    ///
    /// # Errors
    /// The call that failed.
    pub fn put_effective_in_force(&self) -> Result<()> {
        let own = capability::get().call(|| "capget()")?;
        let sets = Sets { effective: self.effective & own.permitted, ..own };
        capability::set(sets).call(|| format!("capset({sets:x?})"))
    }

    /// Puts the four other sets in force. The last thing done with privilege.
    ///
    /// What the runtime itself does not have cannot be given, nor made ambient what is not inheritable: such capabilities
    /// are left out, as runc does, and the returned line says so (empty: nothing to say).
    ///
    /// # Errors
    /// The call that failed.
    pub fn apply(&self) -> Result<String> {
        let own = capability::get().call(|| "capget()")?;
        // Permitted can only shrink. Inheritable may take from the bounding set only what is permitted.
        let permitted = self.permitted & own.permitted;
        let sets = Sets {
            permitted,
            effective: self.effective & permitted,
            inheritable: self.inheritable & (own.permitted | own.inheritable),
        };
        let mut left_out = String::new();
        if self.permitted & !own.permitted != 0 {
            left_out = format!("capabilities not the runtime's to give: {:#x}", self.permitted & !own.permitted);
        }
        // Refused for what is neither ours to inherit nor in the bounding set, which is small by now.
        capability::set(sets).call(|| format!("capset({sets:x?})")).during(|| "process.capabilities")?;
        capability::clear_ambient().call(|| "prctl(PR_CAP_AMBIENT_CLEAR_ALL)")?;
        for number in (0..=LAST).filter(|number| self.ambient & 1 << number != 0) {
            // Possible only for what is permitted and inheritable; runc warns and goes on.
            if let Err(errno) = capability::raise_ambient(number) {
                let separator = if left_out.is_empty() { "" } else { "; " };
                left_out.push_str(&format!("{separator}ambient capability {number} cannot be raised: {errno}"));
            }
        }
        Ok(left_out)
    }
}

/// Puts all that is permitted in force again: a change of user from root takes it out.
///
/// # Errors
/// None that the kernel is known to return.
pub fn put_permitted_in_force() -> Result<()> {
    let own = capability::get().call(|| "capget()")?;
    if own.effective == own.permitted {
        return Ok(());
    }
    let sets = Sets { effective: own.permitted, ..own };
    capability::set(sets).call(|| format!("capset({sets:x?})"))
}

fn set_of(capabilities: Option<&Capabilities>) -> Set {
    capabilities.into_iter().flatten().fold(0, |set, capability| set | 1 << number(*capability))
}

/// The number of a capability, as in `<linux/capability.h>`.
pub fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_sets_of_the_configuration_become_bits() {
        let capabilities = oci_spec::runtime::LinuxCapabilitiesBuilder::default()
            .bounding(HashSet::from([Capability::Chown, Capability::CheckpointRestore]))
            .effective(HashSet::from([Capability::Kill]))
            .permitted(HashSet::new())
            .inheritable(HashSet::new())
            .ambient(HashSet::new())
            .build()
            .unwrap();
        let plan = CapabilityPlan::new(Some(&capabilities));
        assert_eq!(plan.bounding, 1 | 1 << 40);
        assert_eq!(plan.effective, 1 << 5);
        assert_eq!((plan.permitted, plan.inheritable, plan.ambient), (0, 0, 0));
    }
}
