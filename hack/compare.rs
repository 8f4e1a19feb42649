//! Times commands side by side: `compare RUNS`, then one line of standard input per command, NAME and the arguments
//! separated by tabs. In every round each command runs once, the order turning by one from round to round, so that a noisy
//! machine slows all alike. A line whose name starts with `-` runs in its place but is not timed (setting up, clearing away).
//! Lines of one group (up to an empty line) stay in order; the groups are what turns. `{}` stands for the number of the round.
//! Prints NAME, median, minimum and 90th percentile in microseconds, separated by tabs.

use std::collections::BTreeMap;
use std::io::{BufRead, Error, ErrorKind};
use std::process::{Command, Stdio};
use std::time::Instant;

struct Line {
    name: String,
    argv: Vec<String>,
}

/// Runs one command to its end and gives the time it took in microseconds.
fn time(line: &Line, round: usize) -> std::io::Result<u128> {
    let argv: Vec<String> = line.argv.iter().map(|arg| arg.replace("{}", &round.to_string())).collect();
    let mut command = Command::new(&argv[0]);
    // No pipe to read: a container that stays would keep it open.
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status()?;
    let taken = begin.elapsed().as_micros();
    if status.success() { Ok(taken) } else { Err(Error::other(format!("{}: {argv:?}: {status}", line.name))) }
}

fn main() -> std::io::Result<()> {
    let runs: usize = std::env::args()
        .nth(1)
        .and_then(|runs| runs.parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "usage: compare RUNS <commands"))?;
    let mut groups: Vec<Vec<Line>> = vec![Vec::new()];
    for text in std::io::stdin().lock().lines() {
        let text = text?;
        let mut words = text.split('\t').map(str::to_owned);
        match words.next() {
            Some(name) if !name.is_empty() => {
                if let Some(group) = groups.last_mut() {
                    group.push(Line { name, argv: words.collect() });
                }
            }
            _ => groups.push(Vec::new()),
        }
    }
    groups.retain(|group| !group.is_empty());

    let mut taken: BTreeMap<&str, Vec<u128>> = BTreeMap::new();
    // The first round warms the caches and is not counted.
    for round in 0..=runs {
        for turn in 0..groups.len() {
            for line in &groups[(turn + round) % groups.len()] {
                let micros = time(line, round)?;
                if round > 0 && !line.name.starts_with('-') {
                    taken.entry(&line.name).or_default().push(micros);
                }
            }
        }
    }
    for (name, mut times) in taken {
        times.sort_unstable();
        println!("{name}\t{}\t{}\t{}", times[times.len() / 2], times[0], times[times.len() * 9 / 10]);
    }
    Ok(())
}
