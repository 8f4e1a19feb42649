//! The processes of a container that has no cgroup: by what the process table says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::Result;
use crate::cgroup::describe_processes;
use crate::error::CallContext;

/// init, what is in its pid namespace if that is not ours, and the descendants of all these, sorted. What is in a pid
/// namespace of the container's own making is a descendant.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn of(init: Pid) -> Result<Vec<i32>> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = namespace(&init.to_string()).filter(|theirs: &PathBuf| namespace("self").as_ref() != Some(theirs));
    let mut parents = BTreeMap::new();
    let mut family = BTreeSet::from([init.as_raw()]);
    for entry in std::fs::read_dir("/proc").call(|| "open(\"/proc\")")? {
        let name = entry.call(|| "getdents64(\"/proc\")")?.file_name();
        let Some((name, pid)) = name.to_str().and_then(|name| Some((name, name.parse::<i32>().ok()?))) else {
            continue;
        };
        // One that has ended meanwhile has neither.
        if theirs.is_some() && namespace(name) == theirs {
            family.insert(pid);
        }
        if let Some(parent) = parent_of(name) {
            parents.insert(pid, parent);
        }
    }
    loop {
        let count = family.len();
        family.extend(
            parents.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if family.len() == count {
            return Ok(family.into_iter().collect());
        }
    }
}

/// As [`of`], in words for an error: what each of the first does. A stage has another process table than the one that its
/// pids are in, and names `init` alone.
pub(crate) fn describe(init: Pid) -> String {
    let ours = std::fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == Pid::this().to_string().as_str());
    if !ours {
        return format!("pid {init} in the container");
    }
    let all = of(init).unwrap_or_default().into_iter().map(Pid::from_raw).collect::<Vec<_>>();
    describe_processes(if all.is_empty() { std::slice::from_ref(&init) } else { &all })
}

/// Field 4 of `/proc/<pid>/stat`.
fn parent_of(pid: &str) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is numbers.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn descendants_are_family_and_others_are_not() {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "sleep 60 & echo; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let family = of(Pid::from_raw(pid)).unwrap();
        assert_eq!(family.len(), 2, "{family:?}");
        assert!(family.contains(&pid) && !family.contains(&1));
        for member in family.iter().rev() {
            nix::sys::signal::kill(Pid::from_raw(*member), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }
}
