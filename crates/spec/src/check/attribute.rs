//! The attributes of a process that are numbers to the kernel, and the devices and classes of linux that are names.

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSchedulerPolicy, Process, Scheduler};

use super::{Finding, Result, has};
use crate::decode::escape;
use crate::number_list;

/// Checks scheduler, ioPriority and execCPUAffinity of the process at `at`.
pub(super) fn process(at: &str, process: &Process) -> Result {
    if let Some(given) = process.scheduler() {
        scheduler(&format!("{at}/scheduler"), given)?;
    }
    if let Some(given) = process.io_priority()
        && !(0..=7).contains(&given.priority())
    {
        let cause = format!("{} is outside 0..7", given.priority());
        return Err(Finding::new(format!("{at}/ioPriority/priority"), cause));
    }
    if let Some(given) = process.exec_cpu_affinity() {
        for (field, list) in [("initial", given.initial()), ("final", given.cpu_affinity_final())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                numbers(&format!("{at}/execCPUAffinity/{field}"), list)?;
            }
        }
    }
    Ok(())
}

/// Refuses what one policy has no use for: the kernel would drop it without a word.
fn scheduler(at: &str, given: &Scheduler) -> Result {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
    if let Some(nice) = given.nice().filter(|nice| !(-20..=19).contains(nice)) {
        return Err(Finding::new(format!("{at}/nice"), format!("{nice} is outside -20..19")));
    }
    let policy = *given.policy();
    let real_time = matches!(policy, SchedFifo | SchedRr);
    match given.priority().unwrap_or(0) {
        0 => {}
        _ if !real_time => {
            return Err(Finding::new(format!("{at}/priority"), format!("means nothing to {policy}")));
        }
        // sched(7): the range of both policies.
        priority if !(1..=99).contains(&priority) => {
            return Err(Finding::new(format!("{at}/priority"), format!("{priority} is outside 1..99")));
        }
        _ => {}
    }
    for (field, value) in [("runtime", given.runtime()), ("deadline", given.deadline()), ("period", given.period())] {
        if value.is_some_and(|value| value != 0) && policy != SchedDeadline {
            return Err(Finding::new(format!("{at}/{field}"), format!("means nothing to {policy}")));
        }
    }
    Ok(())
}

/// Checks personality, memoryPolicy, netDevices and intelRdt.
pub(super) fn linux(linux: &Linux) -> Result {
    let flags = linux.personality().as_ref().and_then(|personality| personality.flags().as_ref());
    if let Some(flag) = flags.and_then(|flags| flags.first()) {
        let cause = format!("unknown flag {flag:?}: the specification has none");
        return Err(Finding::new("/linux/personality/flags/0", cause));
    }
    let nodes = linux.memory_policy().as_ref().and_then(|policy| policy.nodes().as_ref());
    if let Some(nodes) = nodes.filter(|nodes| !nodes.is_empty()) {
        numbers("/linux/memoryPolicy/nodes", nodes)?;
    }
    net_devices(linux)?;
    intel_rdt(linux)
}

fn numbers(pointer: &str, list: &str) -> Result {
    number_list::parse(list).map(drop).map_err(|cause| Finding::new(pointer, cause))
}

fn net_devices(linux: &Linux) -> Result {
    let mut targets: HashMap<&str, &str> = HashMap::new();
    for (host_name, device) in linux.net_devices().iter().flatten() {
        let pointer = format!("/linux/netDevices/{}", escape(host_name));
        if !has(linux, LinuxNamespaceType::Network) {
            return Err(Finding::new("/linux/netDevices", "needs a network namespace in /linux/namespaces"));
        }
        if !is_device_name(host_name) {
            return Err(Finding::new(pointer, "is not the name of a network device"));
        }
        let name = device.name().as_deref().filter(|name| !name.is_empty());
        if name.is_some_and(|name| !is_device_name(name)) {
            return Err(Finding::new(format!("{pointer}/name"), "is not a name for a network device"));
        }
        let name = name.unwrap_or(host_name);
        // A template gets a number that is free.
        if !name.contains("%d")
            && let Some(other) = targets.insert(name, host_name)
        {
            return Err(Finding::new(pointer, format!("{name:?} is the name of {other:?} already")));
        }
    }
    Ok(())
}

/// `dev_valid_name` of the kernel: shorter than IFNAMSIZ, and nothing that a path or an address would trip over.
fn is_device_name(name: &str) -> bool {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0x0b;
    !matches!(name, "" | "." | "..")
        && name.len() < 16
        && !name.bytes().any(forbidden)
        && matches!(name.matches('%').count(), 0 | 1)
        && name.contains('%') == name.contains("%d")
}

fn intel_rdt(linux: &Linux) -> Result {
    let Some(rdt) = linux.intel_rdt() else { return Ok(()) };
    if let Some(clos_id) = rdt.clos_id() {
        // Directories that resctrl has beside those of the classes.
        let own = matches!(clos_id.as_str(), "" | "." | ".." | "info" | "mon_groups" | "mon_data");
        if own || (clos_id.contains(['/', '\n']) && clos_id != "/") {
            return Err(Finding::new("/linux/intelRdt/closID", format!("{clos_id:?} is not the name of a class")));
        }
    }
    let lines = [("l3CacheSchema", rdt.l3_cache_schema()), ("memBwSchema", rdt.mem_bw_schema())];
    let lines = lines.iter().filter_map(|(field, line)| Some(((*field).to_owned(), line.as_ref()?)));
    let schemata = rdt.schemata().iter().flatten().enumerate().map(|(index, line)| (format!("schemata/{index}"), line));
    for (field, line) in lines.chain(schemata) {
        let pointer = format!("/linux/intelRdt/{field}");
        if line.contains('\n') {
            return Err(Finding::new(pointer, "must be one line"));
        }
        if field == "memBwSchema" && !line.trim_start().starts_with("MB:") {
            return Err(Finding::new(pointer, "must start with MB:"));
        }
    }
    Ok(())
}
