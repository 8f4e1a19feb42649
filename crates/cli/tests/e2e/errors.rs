//! What a caller is told: logs, exit codes, and configurations that are refused.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Kind, TempDir, known};

use crate::runtime;

#[test]
fn a_json_log_has_exactly_one_line_for_an_error() {
    let runtime = runtime();
    let dir = TempDir::new("log");
    let log = dir.join("log.json");
    let bundle = Bundle::new().args(["no-such-program"]);
    let container = runtime.container(&bundle);
    bundle.write();
    let output = runtime.raw().arg("--log").arg(&log).args(["--log-format", "json", "create", "--bundle"]);
    let output = output.arg(bundle.path()).arg(container.id()).run().fails(&["executable file"]);
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let entry: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().unwrap();
    assert!(message.contains("executable file"), "{entry}");
    let time = entry["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && (time.ends_with('Z') || time.contains('+')), "{time}");
    assert_eq!(output.stdout, "");
}

#[test]
fn the_error_is_on_stderr_too_when_there_is_a_log() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 writes to the log alone");
    let dir = TempDir::new("log");
    let output = runtime.raw().arg("--log").arg(dir.join("log")).args(["state", "no-such-container"]).run();
    output.fails(&["does not exist"]);
}

#[test]
fn a_text_log_has_level_and_message() {
    let runtime = runtime();
    known!(runtime, Crun: "another format");
    let dir = TempDir::new("log");
    let log = dir.join("log");
    runtime.raw().arg("--log").arg(&log).args(["--log-format", "text", "state", "no-such-container"]).run().fails(&[]);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("time=\"") && text.contains("level=error msg="), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_log_is_appended_to() {
    let runtime = runtime();
    let dir = TempDir::new("log");
    let log = dir.join("log");
    fs::write(&log, "earlier\n").unwrap();
    runtime.raw().arg("--log").arg(&log).args(["state", "no-such-container"]).run().fails(&[]);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("earlier\n") && text.len() > 8, "{text}");
}

#[test]
fn success_logs_nothing() {
    let runtime = runtime();
    let dir = TempDir::new("log");
    let log = dir.join("log.json");
    let bundle = Bundle::new();
    bundle.write();
    let run = runtime.raw().arg("--log").arg(&log).args(["--log-format", "json", "run", "--bundle"]);
    let output = run.arg(bundle.path()).arg(runtime.id("c")).run().ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
    assert_eq!(output.stderr, "");
}

#[test]
fn debug_logs_more_and_only_to_the_log() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no debug messages on this path");
    let dir = TempDir::new("log");
    let log = dir.join("log.json");
    let bundle = Bundle::new();
    bundle.write();
    let run = runtime.raw().arg("--debug").arg("--log").arg(&log).args(["--log-format", "json", "run", "--bundle"]);
    let output = run.arg(bundle.path()).arg(runtime.id("c")).run().ok();
    let text = fs::read_to_string(&log).unwrap();
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(entries.iter().any(|entry| entry["level"] == "debug"), "{text}");
    assert_eq!(output.stderr, "");
}

#[test]
fn an_unknown_log_format_is_refused() {
    let runtime = runtime();
    runtime.raw().args(["--log-format", "xml", "list"]).run().fails(&[]);
}

#[test]
fn an_unknown_verb_or_flag_is_refused() {
    let runtime = runtime();
    runtime.verb(["no-such-verb"]).fails(&[]);
    runtime.verb(["run", "--no-such-flag", "x"]).fails(&[]);
    runtime.verb(["--no-such-flag"]).fails(&[]);
}

#[test]
fn a_verb_without_its_id_is_refused() {
    let runtime = runtime();
    for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "pause", "resume", "ps", "update"] {
        runtime.verb([verb]).fails(&[]);
    }
    runtime.verb(["state", "a", "b"]).fails(&[]);
}

#[test]
fn the_version_is_told() {
    let runtime = runtime();
    let output = runtime.bare().arg("--version").run().ok();
    let lines = output.lines();
    assert!(lines[0].contains("version"), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("commit:")), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("spec:")), "{output}");
}

#[test]
fn a_missing_bundle_or_config_is_refused() {
    let runtime = runtime();
    let dir = TempDir::new("empty");
    let run = |bundle: &str| runtime.raw().args(["run", "--bundle", bundle, &runtime.id("c")]).run();
    run("/no/such/bundle").fails(&["no such file or directory"]);
    run(dir.path().to_str().unwrap()).fails(&["config.json", "specification"]);
    fs::create_dir(dir.join("config.json")).unwrap();
    run(dir.path().to_str().unwrap()).fails(&[]);
}

/// Runs a bundle whose config.json is this text.
fn with_config(text: &str) -> tare_testkit::Output {
    let runtime = runtime();
    let bundle = Bundle::new();
    fs::write(bundle.path().join("config.json"), text).unwrap();
    runtime.raw().arg("run").arg("--bundle").arg(bundle.path()).arg(runtime.id("c")).run()
}

#[test]
fn configs_that_are_none_are_refused() {
    let runtime = runtime();
    let deep = "[".repeat(200_000);
    for text in ["", "null", "[]", "42", "{", "{\"process\":", "{}", "\u{fe}", "{\"ociVersion\":{}}", &deep] {
        // runc 1.1.5 panics.
        if text == "null" && runtime.kind() == Kind::Runc {
            continue;
        }
        let output = with_config(text).fails(&[]);
        assert_eq!(output.stdout, "");
    }
}

#[test]
fn a_wrong_type_is_refused() {
    let runtime = runtime();
    for (pointer, value) in [
        ("/process/args", json!("true")),
        ("/process/user/uid", json!("0")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(4_294_967_296u64)),
        ("/mounts", json!({})),
    ] {
        let bundle = Bundle::script("echo ran").set(pointer, value.clone());
        let output = runtime.run(&bundle);
        if runtime.kind() == Kind::Crun && output.success() {
            tare_testkit::record_known(runtime.kind(), "1.8.1 takes some wrong types");
            return;
        }
        assert_eq!(output.fails(&[]).stdout, "", "{pointer} {value}");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let runtime = runtime();
    let bundle = Bundle::script("echo ran").set("/x-future", json!({"a": [1]})).set("/linux/x-future", json!(null));
    assert_eq!(runtime.run(&bundle).ok().text(), "ran");
}

#[test]
fn an_unsupported_oci_version_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 does not look");
    for version in ["", "2.0.0", "junk"] {
        runtime.run(&Bundle::new().set("/ociVersion", json!(version))).fails(&["version"]);
    }
}

#[test]
fn a_large_config_works() {
    let runtime = runtime();
    let filler = "x".repeat(1000);
    let annotations: serde_json::Map<_, _> = (0..3000).map(|n| (format!("org.example.{n}"), json!(filler))).collect();
    let bundle = Bundle::script("echo ran").set("/annotations", Value::Object(annotations));
    assert_eq!(runtime.run(&bundle).ok().text(), "ran");
}

#[test]
fn spec_writes_a_bundle_that_runs_and_refuses_to_overwrite_it() {
    let runtime = runtime();
    let bundle = Bundle::new();
    runtime.bare().arg("spec").cwd(bundle.path()).run().ok();
    let path = bundle.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    runtime.bare().arg("spec").cwd(bundle.path()).run().fails(&["exist"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let mut config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["process"]["capabilities"].get("inheritable").unwrap_or(&json!([])), &json!([]));
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "ran"]);
    fs::write(&path, config.to_string()).unwrap();
    let output = runtime.raw().args(["run", "--bundle"]).arg(bundle.path()).arg(runtime.id("c")).run().ok();
    assert_eq!(output.text(), "ran");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let dir = TempDir::new("stderr");
    let stderr = dir.join("stderr");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let stdio = [fs::File::open("/dev/null").unwrap().into(), writer.into(), fs::File::create(&stderr).unwrap().into()];
    container.verb("state").arg(container.id()).stdio(stdio).run();
    assert_eq!(fs::read_to_string(stderr).unwrap(), "");
    container.delete_force().ok();
}
