//! `process.apparmorProfile` and `process.selinuxLabel`: what confines the program once it is executed.
//!
//! The label is written to a file of procfs, and whoever redirects that write leaves the program without
//! (CVE-2019-16884, CVE-2025-52881). It goes through a [`Procfs`], to the attribute of the writer itself: the kernel
//! refuses to write another's, so that a procfs of another pid namespace leads to an error, never to a process unlabelled.

use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};

use crate::error::Context;
use crate::procfs::Procfs;
use crate::{Error, Result};

const SELINUX_MAGIC: FsType = FsType(0xf97c_ff8c);

/// The labels of a process; None and empty are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The profile of AppArmor.
    pub apparmor: Option<String>,
    /// The context of SELinux.
    pub selinux: Option<String>,
}

impl Labels {
    /// Refuses labels that this host cannot enforce, and a label for mounts.
    ///
    /// # Errors
    /// The field.
    pub fn check_host(&self, mount_label: Option<&str>) -> Result<()> {
        if self.apparmor.is_some() && !has_apparmor() {
            return Err(Error::Refused("process.apparmorProfile: apparmor not enabled on this host".into()));
        }
        for (field, label) in [("process.selinuxLabel", self.selinux.as_deref()), ("linux.mountLabel", mount_label)] {
            if label.is_some() && !has_selinux() {
                return Err(Error::Refused(format!(
                    "{field}: selinux label is specified in config, but selinux is disabled or not supported"
                )));
            }
        }
        Ok(())
    }

    /// Has the kernel change to the labels when the caller executes a program: before its privilege is dropped, which opens
    /// a procfs that the container cannot have prepared.
    ///
    /// # Errors
    /// A profile that is not loaded, a context that the policy does not allow.
    pub fn set_on_exec(&self) -> Result<()> {
        if self.apparmor.is_none() && self.selinux.is_none() {
            return Ok(());
        }
        let procfs = Procfs::private()?;
        let own = procfs.own_directory()?;
        if let Some(profile) = &self.apparmor {
            let command = format!("exec {profile}");
            // The directory of its own since Linux 5.8; before, AppArmor had the one that all modules share.
            let written = match procfs.write(&format!("{own}/attr/apparmor/exec"), command.as_bytes()) {
                Err(error) if error.errno() == Some(Errno::ENOENT) => {
                    procfs.write(&format!("{own}/attr/exec"), command.as_bytes())
                }
                written => written,
            };
            written.during(|| format!("process.apparmorProfile: apply profile {profile:?}"))?;
        }
        if let Some(label) = &self.selinux {
            procfs
                .write(&format!("{own}/attr/exec"), label.as_bytes())
                .during(|| format!("process.selinuxLabel: {label:?}"))?;
        }
        Ok(())
    }

    /// Does `make` while the kernel gives new keys the context of the process: for its session keyring, which it could not
    /// search otherwise.
    ///
    /// # Errors
    /// Of `make`, or the write that failed.
    pub fn with_key_label(&self, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(label) = &self.selinux else { return make() };
        let procfs = Procfs::private()?;
        let file = format!("{}/attr/keycreate", procfs.own_directory()?);
        procfs.write(&file, label.as_bytes()).during(|| format!("process.selinuxLabel: {label:?}"))?;
        make()?;
        // A line end alone is no context: the kernel's own choice again.
        procfs.write(&file, b"\n").during(|| "process.selinuxLabel")
    }
}

/// Whether the kernel enforces AppArmor profiles.
fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|enabled| enabled.first() == Some(&b'Y'))
}

/// Whether the kernel has SELinux, and its file system is where everyone looks for it.
fn has_selinux() -> bool {
    ["/sys/fs/selinux", "/selinux"]
        .iter()
        .any(|path| statfs(*path).is_ok_and(|fs| fs.filesystem_type() == SELINUX_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_the_host_cannot_enforce_is_refused() {
        let none = Labels::default();
        none.check_host(None).unwrap();
        none.set_on_exec().unwrap();
        if !has_apparmor() {
            let labels = Labels { apparmor: Some("some-profile".into()), selinux: None };
            let error = labels.check_host(None).unwrap_err().to_string();
            assert_eq!(error, "process.apparmorProfile: apparmor not enabled on this host");
        }
        if !has_selinux() {
            let labels = Labels { apparmor: None, selinux: Some("a:b:c:d".into()) };
            assert!(
                labels.check_host(None).unwrap_err().to_string().starts_with("process.selinuxLabel: selinux label")
            );
            assert!(none.check_host(Some("a:b:c:d")).unwrap_err().to_string().starts_with("linux.mountLabel: "));
        }
    }

    #[test]
    fn a_label_that_the_kernel_does_not_know_is_an_error_that_names_the_file() {
        // Whatever modules there are, nobody has loaded this; without any the write itself fails.
        let labels = Labels { apparmor: Some("no-such-profile".into()), selinux: None };
        let error = labels.set_on_exec().unwrap_err().to_string();
        assert!(error.starts_with("process.apparmorProfile: apply profile \"no-such-profile\": "), "{error}");
        assert!(error.contains("/attr/") && error.contains("/exec\""), "{error}");
    }
}
