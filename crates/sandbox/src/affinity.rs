//! On which CPUs a process runs: `process.execCPUAffinity`, and the affinity that a container does not inherit.

use nix::unistd::Pid;
use oci_spec::runtime::Process;

use crate::error::{CallContext, Context};
use crate::sys::sched::sched_setaffinity;
use crate::{Error, Result};

/// More CPUs than any kernel is built for (`NR_CPUS` ends at 8192).
const CPUS: u32 = 8192;

/// The affinity of a process that is executed in a container. Not for init, says the specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// For the runtime itself, before it enters the container's cgroup: what must not run on the container's CPUs
    /// while it is not yet limited to them.
    pub initial: Option<Vec<u64>>,
    /// For the process, once it is in the cgroup.
    pub last: Option<Vec<u64>>,
}

impl ExecAffinity {
    /// From the configuration.
    ///
    /// # Errors
    /// What is no list of CPUs.
    pub fn new(process: &Process) -> Result<Self> {
        let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Self::default()) };
        let mask = |field: &str, list: &Option<String>| {
            let list = list.as_deref().filter(|list| !list.is_empty());
            let mask = list.map(|list| mask_of(list, CPUS)).transpose().map_err(Error::Refused);
            mask.during(|| format!("process.execCPUAffinity.{field}"))
        };
        Ok(Self { initial: mask("initial", affinity.initial())?, last: mask("final", affinity.cpu_affinity_final())? })
    }

    /// Sets the first affinity on the caller, if there is one: in the runtime, whose children inherit it.
    ///
    /// # Errors
    /// None of the CPUs exists.
    pub fn begin(&self) -> Result<()> {
        self.initial.as_deref().map_or(Ok(()), |mask| set(mask).during(|| "process.execCPUAffinity.initial"))
    }

    /// Sets the last affinity on the caller, which is in the cgroup by now. Without one the kernel's choice stands after
    /// an initial one, as the specification wants; without either all CPUs are free. Returns a line for the log.
    ///
    /// # Errors
    /// None of the CPUs exists and is the cgroup's.
    pub fn finish(&self) -> Result<Option<String>> {
        match (&self.last, &self.initial) {
            (Some(mask), _) => set(mask).during(|| "process.execCPUAffinity.final").map(|()| None),
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(reset()),
        }
    }
}

/// Frees the caller from the affinity of whoever called the runtime: systemd's `CPUAffinity`, taskset(1). The kernel takes
/// from the mask what the cpuset cgroup does not have. Since Linux 6.2 (da019032819a, "sched: Enforce user requested
/// affinity") it would otherwise remember the caller's for good; before, entering a cpuset cgroup reset it.
///
/// Returns a line for the log if it could not: the container works without.
pub fn reset() -> Option<String> {
    let result = set(&[u64::MAX; CPUS as usize / 64]);
    result.err().map(|error| format!("the container may inherit the caller's CPU affinity: {error}"))
}

fn set(mask: &[u64]) -> Result<()> {
    sched_setaffinity(Pid::from_raw(0), mask).call(|| "sched_setaffinity()")
}

/// The bit mask of a list of numbers below `limit`.
///
/// # Errors
/// What is no list, or a number that is too large.
pub fn mask_of(list: &str, limit: u32) -> std::result::Result<Vec<u64>, String> {
    let ranges = tare_spec::number_list::parse(list)?;
    let mut mask = Vec::new();
    for range in ranges {
        if *range.end() >= limit {
            return Err(format!("{} is above {}", range.end(), limit - 1));
        }
        for number in range {
            let word = number as usize / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_mask() {
        assert_eq!(mask_of("0-3,7", CPUS), Ok(vec![0x8f]));
        assert_eq!(mask_of("64,1", CPUS), Ok(vec![2, 1]));
        assert_eq!(mask_of("8191", CPUS).unwrap().len(), 128);
        assert!(mask_of("8192", CPUS).is_err());
        assert!(mask_of("0-4294967295", CPUS).is_err());
    }

    #[test]
    fn the_callers_affinity_is_left_behind() {
        // A thread of its own: the affinity is a thread's.
        std::thread::spawn(|| {
            let allowed = || {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                let line = status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap();
                line.split_whitespace().nth(1).unwrap().to_owned()
            };
            assert_eq!(reset(), None);
            let all = allowed();
            let one = ExecAffinity { initial: Some(vec![1]), last: None };
            one.begin().unwrap();
            assert_eq!(u128::from_str_radix(&allowed().replace(',', ""), 16).unwrap(), 1);
            assert_eq!(one.finish().unwrap(), None);
            assert_eq!(u128::from_str_radix(&allowed().replace(',', ""), 16).unwrap(), 1);
            assert_eq!(ExecAffinity::default().finish().unwrap(), None);
            assert_eq!(allowed(), all);
            let none = ExecAffinity { initial: None, last: Some(vec![0; 127].into_iter().chain([1 << 63]).collect()) };
            let error = none.finish().unwrap_err().to_string();
            assert!(error.starts_with("process.execCPUAffinity.final: sched_setaffinity(): invalid"), "{error}");
        })
        .join()
        .unwrap();
    }
}
