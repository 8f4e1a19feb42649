//! What a user namespace may not mount, and what to do then.
//!
//! The kernel says EPERM to all of it. Which rule it was follows from the file system and from the namespaces.

use nix::errno::Errno;
use oci_spec::runtime::LinuxNamespaceType;

use crate::Error;
use crate::plan::Plan;
use crate::plan::mounts::{Kind, MountPlan};

/// The error of the first thing done with the privilege of a new user namespace.
pub(super) fn explain_attach(plan: &Plan, error: Error) -> Error {
    let restricted = || {
        let sysctl = std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
        sysctl.is_ok_and(|value| value.trim() == "1")
    };
    match error.errno() {
        Some(Errno::EPERM | Errno::EACCES) if plan.namespaces.makes(LinuxNamespaceType::User) && restricted() => error
            .hinted(
                "AppArmor takes the privileges in user namespaces away on this host: sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0, or a profile for tare that allows userns",
            ),
        _ => error,
    }
}

/// The error of a mount.
pub(super) fn explain_mount(plan: &Plan, mount: &MountPlan, error: Error) -> Error {
    if error.errno() != Some(Errno::EPERM) || error.hint().is_some() {
        return error;
    }
    match hint(plan, mount) {
        Some(hint) => error.hinted(hint),
        None => error,
    }
}

fn hint(plan: &Plan, mount: &MountPlan) -> Option<&'static str> {
    use LinuxNamespaceType::{Ipc, Network, Pid, User};
    let Kind::Fs(fs) = &mount.kind else { return None };
    let makes = |typ| plan.namespaces.makes(typ);
    if !plan.namespaces.has(User) && !crate::userns::is_inside() {
        return None;
    }
    // For the three that show a namespace its owner alone may mount them. proc and sysfs besides must not show more than
    // those that are mounted already, kernel fs/namespace.c `mount_too_revealing`.
    Some(match fs.fstype.to_str()? {
        "proc" if makes(User) && !makes(Pid) => {
            "proc needs a new pid namespace beside the new user namespace: or bind /proc"
        }
        "proc" => {
            "parts of /proc around tare are covered, as a container's maskedPaths do, and a new proc would show them: run \
             the outer container with an unmasked /proc (podman: --security-opt unmask=ALL, Docker: \
             --security-opt systempaths=unconfined), or bind /proc"
        }
        "sysfs" if makes(User) && !makes(Network) => {
            "sysfs needs a new network namespace beside the new user namespace: or bind /sys, as `tare spec --rootless` does"
        }
        "sysfs" => "parts of /sys around tare are covered, and a new sysfs would show them: bind /sys",
        "mqueue" if makes(User) && !makes(Ipc) => "mqueue needs a new ipc namespace beside the new user namespace",
        _ => return None,
    })
}
