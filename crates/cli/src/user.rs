//! Users and groups as numbers. A name would have to be looked up in a file of the image (CVE-2016-3697).

/// `UID[:GID]`.
///
/// # Errors
/// One line that quotes the word.
pub(crate) fn parse(word: &str) -> Result<(u32, Option<u32>), String> {
    let (user, group) = match word.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (word, None),
    };
    let failed = |cause: String| format!("--user {word:?}: {cause}");
    let group = group.map(id).transpose().map_err(failed)?;
    Ok((id(user).map_err(failed)?, group))
}

/// One id. Parsed as what it is, 32 bits without a sign: 4294967296 must not become 0, nor -1 "leave as it is".
///
/// # Errors
/// One line that quotes the word.
pub(crate) fn id(word: &str) -> Result<u32, String> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    match word.parse() {
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ if digits => Err(format!("{word} is out of range, ids go to 4294967294")),
        _ => Err(format!("{word:?} is not a number; names are not looked up")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let cases = [
            ("0", (0, None)),
            ("1", (1, None)),
            ("1000:1000", (1000, Some(1000))),
            ("1000:0", (1000, Some(0))),
            ("4294967294:7", (4_294_967_294, Some(7))),
            ("007", (7, None)),
        ];
        for (word, expected) in cases {
            assert_eq!(parse(word), Ok(expected), "{word}");
        }
        for word in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "1:-1",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "root",
            "root:root",
            "1:1:1",
            "1 ",
            " 1",
            "0x1",
            "1.0",
            "١",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
