//! "did you mean": the known word that is nearest to an unknown one.

/// The nearest of `known`, if it is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let simple = |word: &str| word.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase();
    let meant = simple(word);
    // One letter in three may be wrong; of a very short word none, or everything would be near.
    let most = (meant.chars().count() + 1) / 3;
    let candidates = known.into_iter().map(|known| (distance(&meant, &simple(known)), known));
    candidates.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// serde's message about an unknown word of an enumeration, with the one that may be meant.
pub(super) fn word(cause: String) -> String {
    let Some(rest) = cause.strip_prefix("unknown variant `") else { return cause };
    let mut words = rest.split('`').step_by(2);
    let Some(unknown) = words.next() else { return cause };
    match nearest(unknown, rest.split('`').skip(2).step_by(2)) {
        Some(meant) => format!("unknown word {unknown:?}, did you mean {meant:?}?"),
        None => cause,
    }
}

/// Levenshtein's, with a transposition as one step. Words longer than a field's name are far from all.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != other);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == b[j - 1] && a[i - 1] == *other {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let known = ["args", "cwd", "env", "maskedPaths", "noNewPrivileges", "readonlyPaths", "execCPUAffinity"];
        for (word, meant) in [
            ("argz", Some("args")),
            ("Args", Some("args")),
            ("masked_paths", Some("maskedPaths")),
            ("maskedPahts", Some("maskedPaths")),
            ("noNewPrivilege", Some("noNewPrivileges")),
            ("readOnlyPath", Some("readonlyPaths")),
            ("execCpuAffinity", Some("execCPUAffinity")),
            ("ENV", Some("env")),
            ("evn", Some("env")),
            ("xyz", None),
            ("a", None),
            ("", None),
            ("somethingElseAltogether", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        let long = "x".repeat(100_000);
        assert_eq!(nearest(&long, known), None);
    }

    #[test]
    fn a_word_of_an_enumeration_is_suggested() {
        let cause =
            |unknown: &str| word(format!("unknown variant `{unknown}`, expected one of `mount`, `network`, `ipc`"));
        assert_eq!(cause("netwrok"), "unknown word \"netwrok\", did you mean \"network\"?");
        assert!(cause("magic").starts_with("unknown variant `magic`, expected one of"));
        assert_eq!(word("invalid type".into()), "invalid type");
    }
}
