//! Durations, as Go's `time.ParseDuration` reads them.

use std::time::Duration;

/// `5s`, `500ms`, `1h30m`, `1.5s`, `0`: numbers with ns, us, ms, s, m or h, added up. None for a negative one.
///
/// # Errors
/// One line that quotes the word.
pub(crate) fn parse(word: &str) -> Result<Option<Duration>, String> {
    let invalid = || format!("{word:?} is not a duration (500ms, 5s, 1m30s)");
    let (negative, mut rest) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: u128 = match unit {
            "ns" => 1,
            // Two letters that look alike: the micro sign and the Greek mu.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        let part = parse_number(number, unit).ok_or_else(invalid)?;
        nanoseconds = nanoseconds.saturating_add(part);
        rest = tail;
    }
    // Go's limit, some 292 years.
    let nanoseconds = i64::try_from(nanoseconds).map_err(|_| invalid())?.unsigned_abs();
    Ok((!negative || nanoseconds == 0).then(|| Duration::from_nanos(nanoseconds)))
}

/// `1`, `1.5`, `.5` or `1.` units.
fn parse_number(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Fifteen digits are more than an hour has nanoseconds.
    let fraction = fraction.get(..15).unwrap_or(fraction);
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole.checked_mul(unit)?.saturating_add(fraction * unit / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (word, nanoseconds) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("500ms", 500_000_000),
            ("1m", 60_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100us", 100_000),
            ("100\u{b5}s", 100_000),
            ("3ns", 3),
            ("1m0.000000001s", 60_000_000_001),
        ] {
            assert_eq!(parse(word), Ok(Some(Duration::from_nanos(nanoseconds))), "{word}");
        }
        for word in ["-1s", "-5ms", "-1h0m"] {
            assert_eq!(parse(word), Ok(None), "{word}");
        }
        let long = "9".repeat(60) + "h";
        for word in ["", "5", "s", "5 s", "5sec", "5s ", "1..5s", ".s", "+", "-", "5s3", "x", "5d", "1e3s", &long] {
            assert!(parse(word).is_err(), "{word}: {:?}", parse(word));
        }
    }
}
