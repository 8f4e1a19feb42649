//! `linux.personality`.

use oci_spec::runtime::LinuxPersonalityDomain;

use crate::Result;
use crate::error::{CallContext, Context};

/// `PER_LINUX` and `PER_LINUX32` of <linux/personality.h>.
pub fn persona(domain: LinuxPersonalityDomain) -> libc::c_ulong {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    }
}

/// Sets it on the caller.
///
/// # Errors
/// The call that failed.
pub fn set(persona: libc::c_ulong) -> Result<()> {
    crate::sys::personality::personality(persona)
        .call(|| format!("personality({persona:#x})"))
        .during(|| "linux.personality")
}
