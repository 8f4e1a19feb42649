//! What only the text can tell. A quick look decides whether the text must be parsed again; it hardly ever must.

use serde_json::Value;

use super::{Finding, Result};
use crate::decode::escape;

/// Members that are objects. serde also takes an array for a struct, member by member: `"linux": []` would be a
/// container without namespaces.
const OBJECTS: &[&str] = &[
    "process",
    "user",
    "capabilities",
    "consoleSize",
    "root",
    "hooks",
    "linux",
    "resources",
    "memory",
    "cpu",
    "pids",
    "blockIO",
    "network",
    "seccomp",
    "personality",
    "intelRdt",
    "memoryPolicy",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
];

/// Refuses NUL bytes, which end a string for the kernel (`/bin/sh\u0000x` would run `/bin/sh`), and arrays where
/// objects belong.
///
/// # Errors
/// The pointer of the first of either.
pub fn check(text: &[u8]) -> Result {
    if !may_have_nul(text) && !may_have_misplaced_array(text) {
        return Ok(());
    }
    let document = serde_json::from_slice::<Value>(text).unwrap_or_default();
    all(&document).into_iter().next().map_or(Ok(()), Err)
}

/// Every one of them.
pub(crate) fn all(document: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found
}

/// JSON can write a NUL byte in one way only.
fn may_have_nul(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.contains("\\u0000"))
}

/// Whether a `[` follows the name of an object. Strings may look so too.
fn may_have_misplaced_array(text: &[u8]) -> bool {
    let brackets = text.iter().enumerate().filter(|(_, byte)| **byte == b'[').map(|(index, _)| index);
    brackets.into_iter().any(|bracket| {
        let before = text[..bracket].trim_ascii_end();
        let name = before.strip_suffix(b":").and_then(|before| before.trim_ascii_end().strip_suffix(b"\""));
        name.is_some_and(|before| OBJECTS.iter().any(|object| before.ends_with(object.as_bytes())))
    })
}

fn walk(value: &Value, pointer: &str, found: &mut Vec<Finding>) {
    match value {
        Value::String(string) if string.contains('\0') => found.push(Finding::new(pointer, "contains a NUL byte")),
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                walk(element, &format!("{pointer}/{index}"), found);
            }
        }
        // Nobody hands an annotation to the kernel, and its names are free.
        Value::Object(_) if pointer == "/annotations" => {}
        Value::Object(members) => {
            for (key, member) in members {
                if key.contains('\0') {
                    found.push(Finding::new(pointer, "contains a name with a NUL byte"));
                    continue;
                }
                let pointer = format!("{pointer}/{}", escape(key));
                if member.is_array() && OBJECTS.contains(&key.as_str()) {
                    found.push(Finding::new(pointer, "invalid type: array, expected an object"));
                } else {
                    walk(member, &pointer, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_look_misses_nothing_and_the_second_is_exact() {
        let cases = [
            (r#"{"linux": {"namespaces": []}}"#, None),
            (r#"{"linux": []}"#, Some("/linux")),
            ("{\"linux\"\n :\t\n[]}", Some("/linux")),
            (r#"{"linux": {"resources": {"memory": [1]}}}"#, Some("/linux/resources/memory")),
            (r#"{"process": {"env": ["X=\"linux\":[", "Y=\"pids\" : []"]}}"#, None),
            (r#"{"annotations": {"a": "\u0000"}}"#, None),
            (r#"{"a": "\\u0000"}"#, None),
            (r#"{"a": {"b/c": ["\u0000"]}}"#, Some("/a/b~1c/0")),
            (r#"{"a": {"b\u0000": 1}}"#, Some("/a")),
            ("", None),
            ("[", None),
        ];
        for (text, expected) in cases {
            let found = check(text.as_bytes()).map_err(|finding| finding.pointer);
            assert_eq!(found.err().as_deref(), expected, "{text}");
        }
    }
}
