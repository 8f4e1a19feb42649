//! CRIU's log: its own words for what went wrong.

use std::path::Path;

/// How many lines are quoted. The first are the cause, those after it what came of it.
const QUOTED: usize = 5;

/// What CRIU calls an error and goes on after: it wants more descriptors than it needs.
const SURVIVED: &str = "rlimit: Can't setup RLIMIT_NOFILE for self";

/// The errors in the log at `path`, the first ones, in one line; None if it has none or cannot be read.
pub fn errors(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    quote(&String::from_utf8_lossy(&bytes))
}

/// A line is `(00.012345) Error (criu/mount.c:123): mnt: text`, with the pid of a task before `Error` if one says it.
fn quote(text: &str) -> Option<String> {
    let is_error = |line: &&str| line.contains("Error (");
    let strip = |line: &str| {
        line.split_once("Error (").and_then(|(_, rest)| rest.split_once("): ")).map(|(_, text)| text.trim().to_owned())
    };
    let mut quoted: Vec<String> = Vec::new();
    for line in text.lines().filter(is_error).filter_map(strip) {
        if !quoted.contains(&line) && quoted.len() < QUOTED && !line.starts_with(SURVIVED) {
            quoted.push(line);
        }
    }
    if quoted.is_empty() { None } else { Some(quoted.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_are_quoted_once_each_without_time_and_place() {
        let text = "(00.000029) Version: 4.2.1\n(00.1) Error (criu/u.c:9): rlimit: Can't setup RLIMIT_NOFILE for self: no\n(00.1) Error (criu/a.c:1): sk unix: Can't dump\n(00.1)     42: Error (criu/b.c:2): two\n\
                    (00.1) Warn  (criu/c.c:1): no\n(00.1) Error (criu/a.c:1): sk unix: Can't dump\n(00.2) Error (criu/d.c:4): three: 3\n\
                    (00.2) Error (criu/e.c:5): four\n";
        assert_eq!(quote(text).unwrap(), "sk unix: Can't dump; two; three: 3");
        assert_eq!(quote("(00.1) Warn  (criu/c.c:1): no\n"), None);
        assert_eq!(quote("Error ("), None);
    }
}
