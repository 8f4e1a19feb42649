//! What `tare --timings FILE` has written, over many runs, as a chart: for each phase of each process the median of its begin after the
//! command's and of its length, in microseconds, and a bar where it lies.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

const WIDE: u64 = 60;

#[derive(Default)]
struct Phase {
    begins: Vec<u64>,
    lengths: Vec<u64>,
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chart FILE")?;
    let time =
        |span: &Value, field: &str| span[field].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let mut begin = 0;
    // In the order of the first run: `mount` comes after `session` in every process.
    let mut order: Vec<(String, String)> = Vec::new();
    let mut phases: BTreeMap<(String, String), Phase> = BTreeMap::new();
    for line in std::fs::read_to_string(&path)?.lines() {
        let span: Value = serde_json::from_str(line)?;
        let name = span["name"].as_str().unwrap_or_default().to_owned();
        let root = name.starts_with("tare ");
        if root {
            begin = time(&span, "startTimeUnixNano");
        }
        let process =
            if root { "command" } else { span["attributes"][0]["value"]["stringValue"].as_str().unwrap_or_default() };
        let key = (process.to_owned(), name);
        let phase = phases.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            Phase::default()
        });
        let since = time(&span, "startTimeUnixNano");
        phase.begins.push(since.saturating_sub(begin) / 1000);
        phase.lengths.push(time(&span, "endTimeUnixNano").saturating_sub(since) / 1000);
    }
    let whole = order.first().and_then(|key| phases.get_mut(key)).map_or(1, |phase| median(&mut phase.lengths)).max(1);
    let mut text = format!("{:<9} {:<16} {:>7} {:>7}\n", "process", "phase", "from us", "for us");
    for key in &order {
        let Some(phase) = phases.get_mut(key) else { continue };
        let (from, length) = (median(&mut phase.begins), median(&mut phase.lengths));
        let at = |time: u64| usize::try_from((time * WIDE / whole).min(WIDE)).unwrap_or_default();
        let bar = "#".repeat((at(from + length) - at(from)).max(1));
        text.push_str(&format!("{:<9} {:<16} {from:>7} {length:>7}  {}{bar}\n", key.0, key.1, " ".repeat(at(from))));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
