//! `linux.seccomp`: a profile becomes one BPF program, compiled by the parent and loaded by the container's process.
//!
//! When it is loaded: without noNewPrivileges while CAP_SYS_ADMIN is still held, which the kernel asks for, and as the
//! last step before that is given up; with it, as the very last call before execve. A filter that notifies a listener is
//! loaded before the parent is told that all is ready: it is the parent that hands the descriptor on.

pub mod arch;
pub mod compile;
mod name;
pub mod notify;
pub mod profile;
pub mod program;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, Spec};
use seccompiler::sock_filter;

use self::arch::Abi;
use self::profile::Profile;
use crate::error::{CallContext, Context};
use crate::step::Step;
use crate::{Error, Result, sys};

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<sock_filter>,
    flags: libc::c_ulong,
    listener: Option<notify::Receiver>,
}

impl Filter {
    /// Compiles the profile of a configuration, if it has one.
    ///
    /// # Errors
    /// A profile too large for the kernel.
    pub fn of(spec: &Spec) -> Result<Option<Self>> {
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        seccomp.map(|seccomp| Self::new(seccomp).during(|| "linux.seccomp")).transpose()
    }

    /// Compiles a profile.
    ///
    /// # Errors
    /// A profile too large for the kernel.
    pub fn new(seccomp: &LinuxSeccomp) -> Result<Self> {
        let profile = Profile::new(seccomp, Abi::NATIVE);
        for name in &profile.unknown {
            // As runc: a profile for many machines and kernels names calls that this one has not.
            tracing::debug!("linux.seccomp.syscalls: unknown system call {name:?} ignored");
        }
        let program = compile::compile(&profile);
        if program.len() > compile::MOST_INSTRUCTIONS {
            let (own, most) = (program.len(), compile::MOST_INSTRUCTIONS);
            return Err(Error::Refused(format!("the filter has {own} instructions, the kernel takes {most}")));
        }
        let notifies =
            seccomp.syscalls().iter().flatten().any(|entry| entry.action() == LinuxSeccompAction::ScmpActNotify);
        let listener = match seccomp.listener_path() {
            Some(path) if notifies => {
                Some(notify::Receiver { path: path.clone(), metadata: seccomp.listener_metadata().clone() })
            }
            _ => None,
        };
        Ok(Self { program, flags: flags(seccomp.flags().as_deref(), listener.is_some()), listener })
    }

    /// Who gets the descriptor of the notifications.
    pub fn listener(&self) -> Option<&notify::Receiver> {
        self.listener.as_ref()
    }

    /// Binds this process and its children to the filter, for ever. With a listener returns the descriptor of its
    /// notifications.
    ///
    /// # Errors
    /// `EACCES` without no_new_privs and CAP_SYS_ADMIN; `EINVAL` for a flag that the kernel does not know.
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        sys::seccomp::set_mode_filter(&self.program, self.flags)
            .call(|| format!("seccomp(SECCOMP_SET_MODE_FILTER, {:#x})", self.flags))
            .during(|| "linux.seccomp")
            .at(Step::Seccomp)
    }
}

/// `SECCOMP_FILTER_FLAG_*`, seccomp(2). Without a list speculation stays as it is, as runc: the kernel's mitigation costs
/// every program with a filter.
fn flags(flags: Option<&[LinuxSeccompFilterFlag]>, listens: bool) -> libc::c_ulong {
    let given = flags.unwrap_or(&[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]);
    let listener = if listens { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    given.iter().fold(listener, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                // Means something only to who waits for an answer; the kernel refuses it to others.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listens => {
                    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
                // The process that loads the filter has one thread.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv
                | LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
    })
}
