//! Pressure stall information: how long tasks waited for what they lack.
//!
//! <https://docs.kernel.org/accounting/psi.html>

use serde::Serialize;

use super::optional;
use crate::Result;
use crate::cgroup::dir::Dir;

/// What one `*.pressure` file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// While at least one task waited.
    pub some: Share,
    /// While all waited. For CPU since kernel 5.13, 0 before.
    pub full: Share,
}

/// A share of the time in percent, over three windows, and the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Share {
    /// Over ten seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

/// Reads a `*.pressure` file. None without one: before kernel 4.20, and where PSI is switched off (`psi=0`,
/// `cgroup.pressure`).
pub(super) fn read(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    Ok(optional(dir, file)?.map(|text| parse(&text)))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line that begins with `full`.
fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let share = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => share.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => share.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => share.avg300 = value.parse().unwrap_or(0.0),
                "total" => share.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_one_alone_is_enough() {
        let text = "some avg10=12.50 avg60=3.25 avg300=0.75 total=5934045\n";
        let some = Share { avg10: 12.5, avg60: 3.25, avg300: 0.75, total: 5_934_045 };
        assert_eq!(parse(text), Pressure { some, full: Share::default() });
        let both = format!("{text}full avg10=1.00 avg60=0.00 avg300=0.00 total=9\n");
        assert_eq!(parse(&both), Pressure { some, full: Share { avg10: 1.0, total: 9, ..Share::default() } });
        assert_eq!(parse("what\n"), Pressure::default());
    }
}
