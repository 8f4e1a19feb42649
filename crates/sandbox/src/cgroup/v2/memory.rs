//! `linux.resources.memory` as the files of cgroup v2, and the lowering of a limit under processes that are at work.

use nix::errno::Errno;
use oci_spec::runtime::LinuxMemory;

use super::limit::set;
use crate::cgroup::convert::{Swap, max_or, swap_of_memsw};
use crate::cgroup::field::asked;
use crate::cgroup::files::{Files, Occupancy};
use crate::error::Context;
use crate::{Error, Result};

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";

pub(super) fn apply(dir: &impl Files, memory: &LinuxMemory, occupancy: Occupancy) -> Result<()> {
    let (limit, swap) = (asked(memory.limit()), memory.swap().unwrap_or(0));
    // An update may name swap alone: it is meant above the limit that is in force.
    let base = match limit {
        Some(limit) => limit,
        None if swap > 0 => limit_in_force(&dir.look("memory.max").during(|| SWAP)?),
        None => 0,
    };
    let swap_max = match swap_of_memsw(swap, base)? {
        Swap::Unset => None,
        Swap::Unlimited => Some("max".to_owned()),
        Swap::Bytes(bytes) => Some(bytes.to_string()),
    };
    let squeezed = match occupancy {
        Occupancy::Empty => None,
        Occupancy::InUse => lower(dir, memory, limit, swap)?,
    };
    if let Some(value) = swap_max {
        match dir.attempt(SWAP, "memory.swap.max", &value) {
            // A kernel without swap has no such file, and no swap to limit: "no swap" and "unlimited" are so already.
            Err(Errno::ENOENT) if value == "max" || value == "0" => {}
            Ok(()) => {}
            Err(_) => set(dir, SWAP, "memory.swap.max", &value)?,
        }
    }
    if let Some(limit) = limit {
        set(dir, LIMIT, "memory.max", &max_or(limit))?;
    }
    if let Some(high) = squeezed {
        set(dir, LIMIT, "memory.high", high.trim())?;
    }
    if let Some(reservation) = asked(memory.reservation()) {
        set(dir, "linux.resources.memory.reservation", "memory.low", &max_or(reservation))?;
    }
    Ok(())
}

fn limit_in_force(memory_max: &str) -> i64 {
    memory_max.trim().parse().unwrap_or(-1)
}

fn usage(dir: &impl Files) -> Result<i64> {
    let text = dir.look("memory.current").during(|| LIMIT)?;
    text.trim().parse().map_err(|_| Error::Refused(format!("{LIMIT}: memory.current is {:?}", text.trim())))
}

/// Makes room below a limit that is less than what is in use: the kernel, told so by `memory.max` at once, kills what
/// it cannot reclaim in time. `memory.high` keeps use from growing meanwhile, so that what is read is still true when
/// `memory.max` is written. What `memory.high` was is returned, to be written again once `memory.max` holds; after an
/// error the journal does that.
///
/// # Errors
/// With `checkBeforeUpdate`: more is in use than the new limits, whatever was reclaimed.
fn lower(dir: &impl Files, memory: &LinuxMemory, limit: Option<i64>, swap: i64) -> Result<Option<String>> {
    let check = memory.check_before_update() == Some(true);
    let mut squeezed = None;
    if dir.peek("memory.current").is_err() {
        // No memory controller: the write of the limit says so.
        return Ok(None);
    }
    if let Some(limit @ 0..) = limit {
        let before = usage(dir)?;
        if before > limit {
            squeezed = reclaim(dir, limit, before)?;
        }
        let left = usage(dir)?;
        if check && left > limit {
            return Err(Error::Refused(format!(
                "{LIMIT}: rejecting memory limit {limit}: {left} bytes are in use (memory.checkBeforeUpdate is set)"
            )));
        }
        if left > limit {
            tracing::warn!(
                "{LIMIT}: {left} bytes are in use and cannot be reclaimed: the kernel may kill to reach {limit}"
            );
        }
    }
    if check && swap > 0 {
        let swapped = dir.peek("memory.swap.current").ok().and_then(|text| text.trim().parse::<i64>().ok());
        let left = usage(dir)?.saturating_add(swapped.unwrap_or(0));
        if left > swap {
            return Err(Error::Refused(format!(
                "{SWAP}: rejecting memory+swap limit {swap}: {left} bytes are in use (memory.checkBeforeUpdate is set)"
            )));
        }
    }
    Ok(squeezed)
}

/// How often `memory.reclaim` is asked. One request may fall short of what it was asked for (EAGAIN) and the next one
/// find more, as when pages had to be written back first; the kernel itself tries 16 times (MAX_RECLAIM_RETRIES) inside
/// each.
const REQUESTS: usize = 4;

/// Reclaims down to `limit`, as far as it goes. None if nothing was changed: no `memory.high` (a root cgroup).
fn reclaim(dir: &impl Files, limit: i64, mut used: i64) -> Result<Option<String>> {
    let Ok(high) = dir.peek("memory.high") else { return Ok(None) };
    // This write reclaims too, in its own way: it is all there is before Linux 5.19.
    set(dir, LIMIT, "memory.high", &limit.to_string())?;
    for _ in 0..REQUESTS {
        let now = usage(dir)?;
        if now <= limit {
            break;
        }
        used = used.min(now);
        match dir.attempt(LIMIT, "memory.reclaim", &(now - limit).to_string()) {
            // EAGAIN: less than that; EINTR: a signal of ours.
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => break,
        }
        if usage(dir)? >= used {
            break;
        }
    }
    Ok(Some(high))
}
