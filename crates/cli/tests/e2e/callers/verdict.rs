//! What each caller makes of a failure: its own rules, on the text it looks at.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tare_testkit::Output;

/// containerd: an error is all that the command has written; `process.checkKillError` and its kin.
pub(super) fn containerd(output: &Output) -> &'static str {
    let text = output.stdout.clone() + &output.stderr;
    if text.contains("os: process already finished")
        || text.contains("container not running")
        || text.to_lowercase().contains("no such process")
    {
        "process already finished"
    } else if text.contains("does not exist") {
        "no such container"
    } else {
        ""
    }
}

/// containerd: the last entry of the log with level "error", of a stream of JSON objects of which none may be broken.
pub(super) fn last_error(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let entries = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let entries: Vec<Value> = entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}: {text}"))).collect();
    for entry in &entries {
        let time = entry["time"].as_str().unwrap_or_default();
        let valid = time.len() >= 20 && time.as_bytes()[10] == b'T' && (time.ends_with('Z') || time.contains('+'));
        assert!(valid, "RFC 3339: {text}");
    }
    let last = entries.iter().rev().find(|entry| entry["level"] == "error");
    last.and_then(|entry| entry["msg"].as_str()).unwrap_or_else(|| panic!("no error in {text:?}")).to_owned()
}

/// podman: the log is one JSON object, and the exit code of `podman run` and `podman exec` depends on its message.
pub(super) fn podman(log: &Path) -> i32 {
    let text = fs::read_to_string(log).unwrap();
    let entry: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("one object: {error}: {text}"));
    let message = entry["msg"].as_str().unwrap().to_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| message.contains(needle));
    if has(&["permission denied", "operation not permitted"]) {
        126
    } else if has(&["executable file not found in", "no such file or directory", "open executable"]) {
        127
    } else {
        125
    }
}

/// CRI-O: what stderr says, as it is written.
pub(super) fn crio(output: &Output) -> &'static str {
    let known = ["no such process", "container not running", "invalid process"];
    if known.iter().any(|text| output.stderr.contains(text)) { "not found" } else { "" }
}
