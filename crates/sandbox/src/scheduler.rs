//! `process.scheduler`.

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxSchedulerFlag, LinuxSchedulerPolicy, Scheduler};

use crate::Result;
use crate::error::{CallContext, Context};
use crate::sys::sched::{SchedAttr, sched_setattr};

/// The attributes for sched_setattr(2). What the configuration leaves out is 0, as it says.
pub fn attributes(scheduler: &Scheduler) -> SchedAttr {
    SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).expect("56 bytes"),
        policy: policy(*scheduler.policy()),
        flags: scheduler.flags().iter().flatten().fold(0, |flags, name| flags | flag(*name)),
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(scheduler.priority().unwrap_or(0)).unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedAttr::default()
    }
}

/// Sets them on process `pid`; 0 is the caller.
///
/// # Errors
/// As [`sched_setattr`].
pub fn set(pid: Pid, attributes: &SchedAttr) -> Result<()> {
    let SchedAttr { policy, nice, priority, .. } = attributes;
    sched_setattr(pid, attributes)
        .call(|| format!("sched_setattr(policy {policy}, nice {nice}, priority {priority})"))
        .during(|| "process.scheduler")
}

/// sched(7). SCHED_ISO is a number that no kernel has taken yet.
fn policy(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

fn flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> SchedAttr {
        attributes(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn each_policy_and_flag_has_its_number() {
        for (name, number) in [
            ("SCHED_OTHER", 0),
            ("SCHED_FIFO", 1),
            ("SCHED_RR", 2),
            ("SCHED_BATCH", 3),
            ("SCHED_ISO", 4),
            ("SCHED_IDLE", 5),
            ("SCHED_DEADLINE", 6),
        ] {
            let attr = parse(&format!("{{\"policy\": \"{name}\"}}"));
            assert_eq!(attr, SchedAttr { size: 56, policy: number, ..SchedAttr::default() }, "{name}");
        }
        let all = r#"{"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": [
            "SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_D_L_OVERRUN", "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"]}"#;
        let attr = parse(all);
        assert_eq!((attr.flags, attr.runtime, attr.deadline, attr.period), (0x7f, 1, 2, 3));
        let attr = parse(r#"{"policy": "SCHED_RR", "nice": -5, "priority": 99}"#);
        assert_eq!((attr.policy, attr.nice, attr.priority), (2, -5, 99));
    }

    #[test]
    fn the_kernel_takes_them_and_names_what_it_refuses() {
        // A thread of its own: the attributes are a thread's.
        std::thread::spawn(|| {
            set(Pid::from_raw(0), &parse(r#"{"policy": "SCHED_BATCH", "nice": 5}"#)).unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            // Fields 19 (nice) and 41 (policy), proc_pid_stat(5), counted from the third.
            assert_eq!((fields[16], fields[38]), ("5", "3"));
            let error = set(Pid::from_raw(0), &parse(r#"{"policy": "SCHED_ISO"}"#)).unwrap_err().to_string();
            assert_eq!(
                error,
                "process.scheduler: sched_setattr(policy 4, nice 0, priority 0): invalid argument (EINVAL)"
            );
        })
        .join()
        .unwrap();
    }
}
