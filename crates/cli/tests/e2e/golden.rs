//! What is printed, beside the real output of a newer runc: tests/golden/README.md says how the files were made.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Container, Kind, Runtime, TempDir, host, known, record_known};

use crate::{is_old_runc, runtime};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares with a golden file, or writes it: `TARE_RECORD_GOLDEN=1`, with runc alone.
#[track_caller]
fn is_golden(runtime: &Runtime, name: &str, actual: &str) {
    if std::env::var_os("TARE_RECORD_GOLDEN").is_some() {
        assert_eq!(runtime.kind(), Kind::Runc, "golden files are runc's output");
        return fs::write(path(name), actual).unwrap();
    }
    let expected = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(actual, expected, "{name}");
}

/// Whether the runtime is not one that prints what the golden files say.
fn is_another(runtime: &Runtime) -> bool {
    is_old_runc(runtime) && record_known(runtime.kind(), "the golden files are of 1.5.2")
}

/// The text without what differs from one run to the next.
fn stable(container: &Container<'_>, text: &str) -> String {
    let state = container.state();
    let mut text = text.replace(container.id(), "ID").replace(container.bundle().to_str().unwrap(), "BUNDLE");
    text = text.replace(state["created"].as_str().unwrap(), "CREATED");
    if state["pid"] != 0 {
        text = text.replace(&state["pid"].to_string(), "PID");
    }
    // The same string: Go's encoder escapes what could end a script in HTML.
    text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
}

/// A table without its column widths.
fn narrow(table: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    table.lines().map(line).collect()
}

fn bundle() -> Bundle {
    Bundle::script("sleep 1000")
        .set("/ociVersion", json!("1.3.0"))
        .set("/annotations", json!({"org.example.b": "<&> \"ü\"", "org.example.a": ""}))
}

#[test]
fn state_and_list_are_runcs() {
    let runtime = runtime();
    known!(runtime, Crun: "other fields");
    if is_another(&runtime) {
        return;
    }
    let bundle = bundle();
    let container = runtime.container(&bundle);
    let state = |name: &str| {
        let output = container.call("state", &[]).ok();
        is_golden(&runtime, name, &stable(&container, &output.stdout));
    };
    container.create().ok();
    state("state-created");
    container.start().ok();
    state("state-running");
    for (arguments, name) in [(["--format", "json"].as_slice(), "list-json"), (&["-q"], "list-quiet")] {
        let output = runtime.list(arguments).ok();
        is_golden(&runtime, name, &stable(&container, &output.stdout));
    }
    let table = runtime.list(&[]).ok();
    is_golden(&runtime, "list-table", &narrow(&stable(&container, &table.stdout)));
    let json = container.call("ps", &["--format", "json"]).ok();
    is_golden(&runtime, "ps-json", &stable(&container, &json.stdout));
    let table = container.verb("ps").args([container.id(), "-o", "pid,comm"]).run().ok();
    is_golden(&runtime, "ps-table", &narrow(&stable(&container, &table.stdout)));
    container.call("pause", &[]).ok();
    state("state-paused");
    container.call("resume", &[]).ok();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    state("state-stopped");
    let json = container.call("ps", &["--format", "json"]).ok();
    is_golden(&runtime, "ps-json-of-none", &json.stdout);
    container.delete().ok();
    is_golden(&runtime, "list-json-of-none", &runtime.list(&["--format=json"]).ok().stdout);
    is_golden(&runtime, "list-table-of-none", &runtime.list(&[]).ok().stdout);
    is_golden(&runtime, "list-quiet-of-none", &runtime.list(&["--quiet"]).ok().stdout);
}

#[test]
fn log_lines_are_runcs() {
    let runtime = runtime();
    known!(runtime, Crun: "another format");
    let dir = TempDir::new("log");
    for (format, name) in [("text", "log-text"), ("json", "log-json")] {
        let log = dir.join(name);
        let line = ["--log", log.to_str().unwrap(), "--log-format", format, "state", "nobody"];
        runtime.raw().args(line).run().fails(&[]);
        let text = fs::read_to_string(&log).unwrap();
        // The time, 20 characters after the word, and of the message what callers look for.
        let at = text.find("20").expect("a year");
        let text = text.replacen(&text[at..at + 20], "TIME", 1);
        let text = text.replace("state \\\"nobody\\\": ", "");
        is_golden(&runtime, name, &text);
    }
}

/// The template may differ in what docs/cli.md says: the hostname, the newline at the end, one more masked path.
#[test]
fn the_specs_are_runcs() {
    let runtime = runtime();
    known!(runtime, Crun: "another template");
    if is_another(&runtime) {
        return;
    }
    if host::cgroup_mode() == host::CgroupMode::V2 {
        tare_testkit::skip!("the template was recorded on a host with cgroup v1");
    }
    for (arguments, name) in [([].as_slice(), "spec"), (&["--rootless"], "spec-rootless")] {
        let dir = TempDir::new("spec");
        runtime.bare().arg("spec").args(arguments).arg("--bundle").arg(dir.path()).run().ok();
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        let text = text.replace("\"hostname\": \"tare\"", "\"hostname\": \"runc\"");
        let text = text.replace(",\n\t\t\t\"/sys/devices/virtual/tpm\"", "");
        is_golden(&runtime, name, text.trim_end());
    }
}

#[test]
fn the_version_has_runcs_lines() {
    let runtime = runtime();
    known!(runtime, Crun: "another format");
    let golden = "version";
    let text = runtime.bare().arg("--version").run().ok().stdout;
    if std::env::var_os("TARE_RECORD_GOLDEN").is_some() {
        return is_golden(&runtime, golden, &text);
    }
    // Of each line what comes before the number; the lines of what runc is linked with are its own.
    let heads = |text: &str| text.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>();
    let expected = heads(&fs::read_to_string(path(golden)).unwrap());
    let actual = heads(&text);
    let own = runtime.program().file_name().unwrap().to_str().unwrap();
    assert_eq!(actual[0].replace(own, "runc"), expected[0]);
    assert!(actual.contains(&"spec:".to_owned()) && expected.contains(&"spec:".to_owned()), "{text}");
}

/// All that runc can, and in its words; more is no harm.
#[test]
fn the_features_are_at_least_runcs() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no features");
    if is_another(&runtime) {
        return;
    }
    let output = runtime.bare().arg("features").run().ok();
    if std::env::var_os("TARE_RECORD_GOLDEN").is_some() {
        return is_golden(&runtime, "features", &output.stdout);
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(path("features")).unwrap()).unwrap();
    let mut missing = Vec::new();
    compare("", &expected, &output.json(), &mut missing);
    // What runc is built of, and what is announced when it is there: systemd, CRIU.
    let own = ["/annotations", "/potentiallyUnsafeConfigAnnotations", "/linux/cgroup/systemd"];
    missing.retain(|place| !own.iter().any(|start| place.starts_with(start)));
    assert_eq!(missing, [""; 0], "{output}");
}

/// Each field that runc tells, and each a value of the same kind; more is no harm. Lists have what happened meanwhile, or not.
#[test]
fn the_stats_have_runcs_fields() {
    let runtime = runtime();
    known!(runtime, Crun: "has no events");
    if is_another(&runtime) {
        return;
    }
    if host::cgroup_mode() == host::CgroupMode::V2 {
        tare_testkit::skip!("the statistics were recorded on a host with cgroup v1");
    }
    let bundle = Bundle::sleeper().resource("memory", json!({"limit": 1 << 26})).resource("pids", json!({"limit": 50}));
    let container = runtime.container(&bundle);
    container.up();
    let output = container.call("events", &["--stats"]).ok();
    let shape = serde_json::to_string_pretty(&shape(&output.json())).unwrap() + "\n";
    if std::env::var_os("TARE_RECORD_GOLDEN").is_some() {
        return is_golden(&runtime, "events-stats", &shape);
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(path("events-stats")).unwrap()).unwrap();
    let mut missing = Vec::new();
    compare("", &expected, &serde_json::from_str(&shape).unwrap(), &mut missing);
    assert_eq!(missing, [""; 0], "{output}");
}

/// The kind of each value in place of the value; nothing of a list.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(_) => json!([]),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Bool(_) => json!("boolean"),
        Value::Null => Value::Null,
    }
}

fn compare(place: &str, expected: &Value, actual: &Value, missing: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (name, value) in expected {
                compare(&format!("{place}/{name}"), value, actual.get(name).unwrap_or(&Value::Null), missing);
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            let lost = expected.iter().filter(|value| !actual.contains(value));
            missing.extend(lost.map(|value| format!("{place} {value}")));
        }
        (expected, actual) if expected == actual => {}
        (expected, actual) => missing.push(format!("{place}: {actual} for {expected}")),
    }
}
