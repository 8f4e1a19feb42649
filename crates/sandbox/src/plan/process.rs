//! The process: arguments, environment, user, limits.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{Gid, Pid, Uid};
use oci_spec::runtime::{Linux, PosixRlimitType, Process};

use crate::affinity::ExecAffinity;
use crate::caps::CapabilityPlan;
use crate::label::Labels;
use crate::memory_policy::MemoryPolicy;
use crate::seccomp::Filter;
use crate::sys::rlimit::Resource;
use crate::sys::sched::SchedAttr;
use crate::{Error, Result, ioprio, personality, scheduler};

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: Resource,
    /// The name in the configuration.
    pub typ: PosixRlimitType,
    /// What the process is held to.
    pub soft: u64,
    /// How far it may raise that.
    pub hard: u64,
}

/// When a process gets the CPU and the disks: what takes a privilege over the host, and so may be the parent's to set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// For sched_setattr(2).
    pub scheduler: Option<SchedAttr>,
    /// For ioprio_set(2).
    pub io_priority: Option<libc::c_int>,
}

impl Scheduling {
    fn new(process: &Process) -> Self {
        Self {
            scheduler: process.scheduler().as_ref().map(scheduler::attributes),
            io_priority: process.io_priority().map(ioprio::number),
        }
    }

    /// Sets it on process `pid`; 0 is the caller.
    ///
    /// # Errors
    /// The field that was refused.
    pub fn set(self, pid: Pid) -> Result<()> {
        self.io_priority.map_or(Ok(()), |number| ioprio::set(pid, number))?;
        self.scheduler.map_or(Ok(()), |attributes| scheduler::set(pid, &attributes))
    }
}

/// What a process of the container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// argv, at least one.
    pub args: Vec<CString>,
    /// The environment: of a name given twice the last counts, in the place of the first.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: PathBuf,
    /// The user, as the container sees it.
    pub uid: Uid,
    /// The group, as the container sees it.
    pub gid: Gid,
    /// The supplementary groups.
    pub additional_gids: Vec<Gid>,
    /// The mask of file modes: 0022 unless given, as runc.
    pub umask: u32,
    /// The five sets.
    pub capabilities: CapabilityPlan,
    /// The resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Policy, priority, I/O priority.
    pub scheduling: Scheduling,
    /// `linux.personality`, for personality(2).
    pub personality: Option<libc::c_ulong>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<MemoryPolicy>,
    /// What confines the program.
    pub labels: Labels,
    /// The CPUs of a process that is executed in a container.
    pub exec_affinity: ExecAffinity,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Whether it gets a pty.
    pub terminal: bool,
    /// `linux.seccomp`, for every process of the container.
    pub seccomp: Option<Filter>,
    /// Rows and columns of the pty.
    pub console_size: Option<(u16, u16)>,
}

impl ProcessPlan {
    /// Gives a variable of the environment its value, whatever the configuration says.
    ///
    /// # Errors
    /// A value with a NUL byte.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) -> Result<()> {
        let variable = strings(name, &[format!("{name}={value}")])?;
        let prefix = format!("{name}=");
        self.env.retain(|known| !known.as_bytes().starts_with(prefix.as_bytes()));
        self.env.extend(variable);
        Ok(())
    }

    /// From the configuration: `process`, and what `linux` says of every process of the container.
    ///
    /// # Errors
    /// No arguments, or a string with a NUL byte.
    pub fn new(process: &Process, linux: Option<&Linux>, seccomp: Option<Filter>) -> Result<Self> {
        let args = process.args().as_deref().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::Refused("process.args: must name a program".into()));
        }
        let user = process.user();
        Ok(Self {
            args: strings("process.args", args)?,
            env: environment(process.env().as_deref().unwrap_or_default())?,
            cwd: process.cwd().clone(),
            uid: Uid::from_raw(user.uid()),
            gid: Gid::from_raw(user.gid()),
            additional_gids: user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect(),
            umask: user.umask().unwrap_or(0o022),
            capabilities: CapabilityPlan::new(process.capabilities().as_ref()),
            rlimits: process
                .rlimits()
                .iter()
                .flatten()
                .map(|limit| Rlimit {
                    resource: resource(limit.typ()),
                    typ: limit.typ(),
                    soft: limit.soft(),
                    hard: limit.hard(),
                })
                .collect(),
            scheduling: Scheduling::new(process),
            personality: linux
                .and_then(|linux| linux.personality().as_ref())
                .map(|personality| personality::persona(personality.domain())),
            memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()).map(MemoryPolicy::new).transpose()?,
            labels: Labels {
                apparmor: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
                selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
            },
            exec_affinity: ExecAffinity::new(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            terminal: process.terminal().unwrap_or(false),
            seccomp,
            console_size: process.console_size().map(|size| {
                (u16::try_from(size.height()).unwrap_or(u16::MAX), u16::try_from(size.width()).unwrap_or(u16::MAX))
            }),
        })
    }
}

fn strings(field: &str, values: &[String]) -> Result<Vec<CString>> {
    values
        .iter()
        .enumerate()
        .map(|(index, value)| {
            CString::new(value.as_str()).map_err(|_| Error::Refused(format!("{field}[{index}]: contains a NUL byte")))
        })
        .collect()
}

/// Of a name given twice the last value counts; what has no `=` is dropped, as execve's readers would.
fn environment(env: &[String]) -> Result<Vec<CString>> {
    let mut place: HashMap<&str, usize> = HashMap::with_capacity(env.len());
    let mut kept: Vec<CString> = Vec::with_capacity(env.len() + 1);
    for (entry, string) in env.iter().zip(strings("process.env", env)?) {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::Refused(format!("process.env: \"{entry}\" is not NAME=value")));
        };
        if let Some(index) = place.get(name) {
            kept[*index] = string;
        } else {
            place.insert(name, kept.len());
            kept.push(string);
        }
    }
    Ok(kept)
}

fn resource(typ: PosixRlimitType) -> Resource {
    match typ {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_variable_given_twice_the_last_value_counts() {
        let env = ["A=1", "B=2\nlines", "A=3"].map(String::from);
        let kept = environment(&env).unwrap();
        assert_eq!(kept, [CString::new("A=3").unwrap(), CString::new("B=2\nlines").unwrap()]);
    }

    #[test]
    fn a_variable_without_a_name_or_with_a_nul_byte_is_refused_by_name() {
        for bad in ["=x", "novalue", "A=\0"] {
            let error = environment(&[bad.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with("process.env"), "{bad}: {error}");
        }
    }
}
