//! Runs container runtimes side by side and says how long they take: see hack/bench/run, which prepares all it needs.
//!
//! Every figure is from one run of this program, in which the runtimes take turns, so that a noisy machine slows all alike; the order
//! turns from round to round.

#![forbid(unsafe_code)]

use std::path::PathBuf;

mod command;
mod measure;
mod report;
mod scale;

use command::{Bench, Done, Runtime};

/// Where a figure stands: what was measured, and of whom.
struct Row {
    what: &'static str,
    runtime: String,
    /// Sorted, of the unit.
    values: Vec<f64>,
    unit: &'static str,
    /// How often the runtime failed, and why it did last.
    failures: usize,
    reason: String,
}

impl Row {
    fn new(what: &'static str, runtime: &str, values: Vec<f64>, unit: &'static str) -> Self {
        Self { what, runtime: runtime.to_owned(), values, unit, failures: 0, reason: String::new() }
    }

    fn at(&self, share: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (last as f64 * share).round() as usize;
        self.values.get(index).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.at(0.5)
    }
}

fn main() -> Done {
    let mut words = std::env::args().skip(1);
    let usage = "usage: tare-bench DIRECTORY ROUNDS CONTAINERS RESULTS FLOOR RUNTIME...; see hack/bench/run";
    let mut word = || words.next().ok_or(usage);
    let directory = PathBuf::from(word()?);
    let rounds: usize = word()?.parse()?;
    let containers: usize = word()?.parse()?;
    let results = PathBuf::from(word()?);
    let floor = PathBuf::from(word()?);
    let runtimes = words.map(|path| Runtime::new(path.into(), &directory)).collect::<Result<Vec<_>, _>>()?;
    let bench = Bench { directory, rounds, floor, runtimes };

    let mut rows = Vec::new();
    let measured = measure::life(&bench, &mut rows)
        .and_then(|()| measure::weight(&bench, &mut rows))
        .and_then(|()| measure::at_once(&bench, &mut rows))
        .and_then(|()| scale::many_containers(&bench, containers, &mut rows))
        .and_then(|()| measure::many_mounts(&bench, &mut rows));
    bench.clear_away();
    measured?;
    report::print(&bench, &rows)?;
    report::write_json(&bench, &rows, &results)?;
    report::write_svg(&bench, &rows, &results.with_extension("svg"))
}
