//! `process.ioPriority`.

use nix::unistd::Pid;
use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority};

use crate::Result;
use crate::error::{CallContext, Context};
use crate::sys::ioprio::ioprio_set;

/// The number for ioprio_set(2): the class above bit 13, the level below.
pub fn number(priority: LinuxIOPriority) -> libc::c_int {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | libc::c_int::try_from(priority.priority().clamp(0, 7)).unwrap_or(0)
}

/// Sets it on process `pid`; 0 is the caller. The children of the process inherit it, so that it comes to hold for the
/// whole container.
///
/// # Errors
/// As [`ioprio_set`].
pub fn set(pid: Pid, number: libc::c_int) -> Result<()> {
    ioprio_set(pid, number)
        .call(|| format!("ioprio_set(class {}, level {})", number >> 13, number & 7))
        .during(|| "process.ioPriority")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_and_level_make_one_number() {
        for (json, expected) in [
            (r#"{"class": "IOPRIO_CLASS_RT", "priority": 0}"#, 1 << 13),
            (r#"{"class": "IOPRIO_CLASS_BE", "priority": 7}"#, 2 << 13 | 7),
            (r#"{"class": "IOPRIO_CLASS_IDLE", "priority": 0}"#, 3 << 13),
        ] {
            assert_eq!(number(serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }
}
