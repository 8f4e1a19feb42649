//! Which CPUs and memory nodes, and the flags of v1: cpuset(7).

use super::{Cpuset, optional};
use crate::Result;
use crate::cgroup::dir::Dir;

pub(super) fn v1(dir: &Dir) -> Result<Cpuset> {
    let text = |name: &str| -> Result<String> { Ok(optional(dir, &format!("cpuset.{name}"))?.unwrap_or_default()) };
    let flag = |name: &str| -> Result<u64> { Ok(text(name)?.trim().parse().unwrap_or(0)) };
    Ok(Cpuset {
        cpus: parse_list(&text("cpus")?),
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: parse_list(&text("mems")?),
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: text("sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

/// What is in effect: `cpuset.cpus` itself is empty as long as nobody limits it.
pub(super) fn v2(dir: &Dir) -> Result<Cpuset> {
    let list = |file: &str| -> Result<Vec<u16>> { Ok(parse_list(&optional(dir, file)?.unwrap_or_default())) };
    Ok(Cpuset { cpus: list("cpuset.cpus.effective")?, mems: list("cpuset.mems.effective")?, ..Cpuset::default() })
}

/// `0-3,7`, as the kernel writes it.
fn parse_list(text: &str) -> Vec<u16> {
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart() {
        assert_eq!(parse_list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(parse_list("5\n"), [5]);
        assert_eq!(parse_list("\n"), Vec::<u16>::new());
    }
}
