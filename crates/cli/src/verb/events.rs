//! `events`.

use std::time::Instant;

use serde::Serialize;
use tare_sandbox::container::{Happening, Runtime, Usage, Watch};

use super::print;
use crate::args::Events;
use crate::duration;
use crate::report::Cause;

/// One line, in the shape of `runc events` (types/events.go).
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Usage>,
}

/// Prints statistics once, or at each interval with what happens in between, until the container ends.
///
/// # Errors
/// A container that is not running, an interval that is none, a stdout that nobody reads.
pub(super) fn write(runtime: &Runtime, events: &Events) -> Result<(), Cause> {
    let interval = duration::parse(&events.interval).map_err(|cause| format!("--interval: {cause}"))?;
    let interval = interval.filter(|interval| !interval.is_zero());
    let interval = interval.ok_or("--interval: duration interval must be greater than 0")?;
    let mut watch = runtime.watch(&events.id)?;
    if events.stats {
        return print_stats(&events.id, watch.usage()?);
    }
    let mut next = Instant::now() + interval;
    loop {
        match watch.wait(next)? {
            Happening::OutOfMemory => print_event(&Event { kind: "oom", id: &events.id, data: None })?,
            Happening::Ended => return Ok(()),
            Happening::Late => {
                next = (next + interval).max(Instant::now());
                match watch.usage() {
                    Ok(usage) => print_stats(&events.id, usage)?,
                    // Its cgroup can go while it is read.
                    Err(_) if has_ended(&mut watch)? => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

fn has_ended(watch: &mut Watch) -> Result<bool, Cause> {
    Ok(watch.wait(Instant::now())? == Happening::Ended)
}

fn print_stats(id: &str, usage: Usage) -> Result<(), Cause> {
    print_event(&Event { kind: "stats", id, data: Some(usage) })
}

fn print_event(event: &Event<'_>) -> Result<(), Cause> {
    let line = serde_json::to_string(event).map_err(|error| error.to_string())?;
    Ok(print(&(line + "\n"))?)
}
