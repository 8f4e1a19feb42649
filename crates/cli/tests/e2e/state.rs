//! state and list.

use serde_json::{Value, json};
use tare_testkit::{Bundle, known};

use crate::runtime;

#[test]
fn state_has_the_fields_of_the_specification() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().set("/annotations", json!({"org.example.key": "a value"}));
    let container = runtime.container(&bundle);
    container.create().ok();
    let state = container.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], container.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.key": "a value"}));
    assert!(state["pid"].as_i64().unwrap() > 1);
    container.start().ok();
    let running = container.state();
    assert_eq!(running["status"], "running");
    assert_eq!(running["pid"], state["pid"]);
    assert_eq!(running["created"], state["created"]);
}

#[test]
fn state_has_runcs_fields_too() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has root.path as it is in config.json");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let state = container.state();
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().unwrap());
    assert!(state["owner"].is_string());
    assert_rfc3339(state["created"].as_str().unwrap());
}

#[test]
fn state_without_annotations_omits_them() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    assert_eq!(container.state().get("annotations"), None);
}

#[test]
fn state_of_a_stopped_container_has_no_pid() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    let state = container.state();
    assert_eq!(state["pid"].as_i64().unwrap_or(0), 0);
    assert_eq!(state["status"], "stopped");
}

#[test]
fn state_of_a_paused_container_is_paused() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    container.call("pause", &[]).ok();
    container.is("paused");
    container.call("resume", &[]).ok();
    container.is("running");
}

#[test]
fn the_bundle_in_the_state_is_absolute() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    bundle.write();
    runtime.raw().args(["create", "--bundle", ".", container.id()]).cwd(bundle.path()).run().ok();
    assert_eq!(container.state()["bundle"], bundle.path().to_str().unwrap());
}

#[test]
fn list_has_a_line_for_each_container() {
    let runtime = runtime();
    known!(runtime, Crun: "another header");
    let bundle = Bundle::sleeper();
    let (first, second) = (runtime.container(&bundle), runtime.container(&bundle));
    first.create().ok();
    second.up();
    let output = runtime.list(&[]).ok();
    let lines = output.lines();
    let header: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for (container, status) in [(&first, "created"), (&second, "running")] {
        let line = lines.iter().find(|line| line.starts_with(container.id())).expect("a line");
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1], container.pid().to_string());
        assert_eq!(fields[2], status);
        assert_eq!(fields[3], bundle.path().to_str().unwrap());
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn list_quiet_has_the_ids_alone() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let (first, second) = (runtime.container(&bundle), runtime.container(&bundle));
    first.create().ok();
    second.create().ok();
    for flag in ["-q", "--quiet"] {
        let output = runtime.list(&[flag]).ok();
        let mut ids = output.lines();
        ids.sort_unstable();
        let mut expected = [first.id(), second.id()];
        expected.sort_unstable();
        assert_eq!(ids, expected);
    }
}

#[test]
fn list_json_has_what_state_has() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let list = runtime.list(&["--format", "json"]).ok().json();
    let state = container.state();
    let entry = &list.as_array().unwrap()[0];
    for field in ["id", "pid", "status", "bundle", "created"] {
        assert_eq!(entry[field], state[field], "{field}");
    }
    assert_eq!(entry["owner"], "root");
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn list_json_of_none_is_null() {
    let runtime = runtime();
    known!(runtime, Crun: "writes an empty array");
    let bundle = Bundle::new();
    runtime.run(&bundle).ok();
    assert_eq!(runtime.list(&["--format", "json"]).ok().json(), Value::Null);
}

#[test]
fn list_of_a_root_that_is_named_and_not_there_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 makes it", Crun: "makes it");
    for flags in [&[][..], &["-q"], &["--format", "json"]] {
        runtime.list(flags).fails(&["no such file or directory"]);
    }
    assert!(!runtime.root().exists());
    // The default is nobody's claim that there is one.
    runtime.bare().arg("list").env("XDG_RUNTIME_DIR", runtime.dir().path()).run().ok();
}

#[test]
fn list_of_none_is_a_header() {
    let runtime = runtime();
    known!(runtime, Crun: "another header");
    runtime.run(&Bundle::new()).ok();
    let output = runtime.list(&[]).ok();
    assert_eq!(output.stdout, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    assert_eq!(runtime.list(&["-q"]).ok().stdout, "");
}

#[test]
fn ps_of_a_stopped_container_is_empty_and_no_error() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 dies of SIGSEGV");
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.up().wait_for("stopped");
    assert_eq!(container.call("ps", &["--format", "json"]).ok().stdout, "null\n");
    let table = container.call("ps", &[]).ok();
    assert_eq!(table.lines().len(), 1, "{table}");
    assert!(table.lines()[0].split_whitespace().any(|column| column == "PID"), "{table}");
}

#[test]
fn ps_json_is_one_line_of_pids() {
    let runtime = runtime();
    known!(runtime, Crun: "writes a line for each");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let output = container.call("ps", &["--format", "json"]).ok();
    assert_eq!(output.stdout, format!("[{}]\n", container.pid()));
    container.call("ps", &["--format", "yaml"]).fails(&[]);
}

#[test]
fn list_with_an_unknown_format_is_refused() {
    let runtime = runtime();
    runtime.run(&Bundle::new()).ok();
    runtime.list(&["--format", "yaml"]).fails(&[]);
}

fn assert_rfc3339(time: &str) {
    let pattern = "0000-00-00T00:00:00";
    let shape: String = time.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, pattern, "{time}");
    assert!(time.ends_with('Z'), "{time} is not UTC");
}
