//! Sizes in bytes with units, as Docker's go-units reads them.

/// `-1` (no limit), bytes, or a number with k, m, g, t or p (powers of 1024), optionally followed by `b` or `ib`.
///
/// # Errors
/// One line that quotes the word.
pub(crate) fn parse(word: &str) -> Result<i64, String> {
    if word == "-1" {
        return Ok(-1);
    }
    let invalid = || format!("{word:?} is not a size (bytes, or a number with k, m, g, t or p)");
    let digits = word.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = word.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(invalid()),
    };
    if !matches!(unit.trim_start_matches(['k', 'm', 'g', 't', 'p']), "" | "b" | "i" | "ib") {
        return Err(invalid());
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(fraction) || number.ends_with('.') {
        return Err(invalid());
    }
    let too_large = || format!("{word:?} is too large");
    let whole: i128 = whole.parse().map_err(|_| too_large())?;
    // Nine digits after the point are more than a petabyte needs to be exact to a megabyte.
    let fraction: i128 = format!("{fraction:0<9}").get(..9).and_then(|nine| nine.parse().ok()).unwrap_or_default();
    let bytes = whole.checked_mul(1 << shift).ok_or_else(too_large)? + (fraction << shift) / 1_000_000_000;
    i64::try_from(bytes).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("-1", -1),
            ("0", 0),
            ("1024", 1024),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("7b", 7),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
            ("2 g", 2 << 30),
            ("1t", 1 << 40),
            ("4p", 4 << 50),
            ("9223372036854775807", i64::MAX),
        ];
        for (word, bytes) in cases {
            assert_eq!(parse(word), Ok(bytes), "{word}");
        }
        for word in [
            "",
            "-2",
            "m",
            "1x",
            "1mm",
            "1bb",
            "1ii",
            "1i",
            "1.",
            ".5k",
            "1..5",
            "1.5.5",
            "9223372036854775808",
            "8192p",
            "1e3",
            "0x10",
            "+1",
            "1  k",
            "99999999999999999999999999999999999999999999p",
        ] {
            assert!(parse(word).is_err(), "{word}: {:?}", parse(word));
        }
    }
}
