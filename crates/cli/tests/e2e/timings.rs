//! `--timings`: a line of JSON for each phase, with OpenTelemetry's names.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tare_testkit::{Bundle, Container, known};

macro_rules! runtime {
    () => {{
        let runtime = crate::runtime();
        known!(runtime, Runc: "has no such flag", Crun: "the same", Youki: "the same");
        runtime
    }};
}

fn spans(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn nanoseconds(span: &Value, field: &str) -> u64 {
    span[field].as_str().unwrap().parse().unwrap()
}

/// The phases of the command, as `process: phase`; each is within the command, and those of one process follow one another.
fn phases(spans: &[Value], command: &str) -> BTreeSet<String> {
    let root = spans.iter().find(|span| span["name"] == command).unwrap_or_else(|| panic!("no {command}: {spans:?}"));
    let of = |span: &&Value| span["parentSpanId"] == root["spanId"];
    let ids: BTreeSet<&str> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    let mut last = std::collections::BTreeMap::new();
    spans
        .iter()
        .filter(of)
        .map(|span| {
            let (begin, end) = (nanoseconds(span, "startTimeUnixNano"), nanoseconds(span, "endTimeUnixNano"));
            assert!(begin >= nanoseconds(root, "startTimeUnixNano") && begin <= end, "{span} {root}");
            assert!(end <= nanoseconds(root, "endTimeUnixNano"), "{span} {root}");
            assert_eq!(span["traceId"], root["traceId"]);
            let process = span["attributes"][0]["value"]["stringValue"].as_str().unwrap();
            let before = last.insert(process, end).unwrap_or_default();
            assert!(begin >= before, "{span} begins before {before}");
            format!("{process}: {}", span["name"].as_str().unwrap())
        })
        .collect()
}

#[track_caller]
fn has(phases: &BTreeSet<String>, expected: &[&str]) {
    for phase in expected {
        assert!(phases.contains(*phase), "{phase} is not among {phases:?}");
    }
}

fn timed(container: &Container<'_>, file: &Path, verb: &str, arguments: &[&str]) {
    container.verb_with(&["--timings", file.to_str().unwrap()], verb).args(arguments).run().ok();
}

#[test]
fn every_phase_is_a_line_within_its_command() {
    let runtime = runtime!();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    let file = runtime.dir().join("timings");
    let id = container.id();
    timed(&container, &file, "create", &[id]);
    timed(&container, &file, "start", &[id]);
    timed(&container, &file, "exec", &[id, "true"]);
    timed(&container, &file, "delete", &["--force", id]);
    let spans = spans(&file);
    let create = phases(&spans, "tare create");
    has(&create, &["parent: plan", "parent: claim", "parent: make cgroup", "parent: fork", "parent: await init"]);
    has(&create, &["stage 1: enter cgroup", "stage 1: join namespaces", "stage 2: session", "stage 2: mount"]);
    has(&create, &["stage 2: devices", "stage 2: enter root", "stage 2: seal root", "stage 2: credentials"]);
    has(&phases(&spans, "tare start"), &["parent: plan", "parent: await start"]);
    has(
        &phases(&spans, "tare exec"),
        &["stage 1: join namespaces", "stage 2: session", "parent: exec", "parent: wait"],
    );
    has(&phases(&spans, "tare delete"), &["parent: remove"]);
    for span in spans.iter().filter(|span| span["name"].as_str().unwrap().starts_with("tare ")) {
        assert_eq!((&span["parentSpanId"], &span["attributes"][0]["value"]["stringValue"]), (&"".into(), &id.into()));
        assert_eq!(span["status"]["code"], 1);
    }
}

#[test]
fn a_command_that_fails_says_so_and_a_file_that_cannot_be_opened_is_an_error() {
    let runtime = runtime!();
    let bundle = Bundle::new().args(["/not/there"]);
    let container = runtime.container(&bundle);
    let file = runtime.dir().join("timings");
    let flags = |file: &Path| ["--timings", &file.to_string_lossy()].map(str::to_owned);
    let run = |file: &Path| {
        let flags = flags(file);
        container.verb_with(&flags.each_ref().map(String::as_str), "run").arg(container.id()).run()
    };
    run(&file).fails(&["/not/there"]);
    let spans = spans(&file);
    let root = spans.iter().find(|span| span["name"] == "tare run").unwrap();
    assert_eq!(root["status"]["code"], 2);
    has(&phases(&spans, "tare run"), &["parent: plan", "parent: fork"]);
    let nowhere = runtime.dir().join("no/such/directory");
    run(&nowhere).fails(&["--timings: open", "no/such/directory", "(ENOENT)"]);
    container.is("none");
}

#[test]
fn hooks_are_part_of_the_callers_trace() {
    let runtime = runtime!();
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let told = runtime.dir().join("told");
    let script = format!("echo $TRACEPARENT >> {}", told.display());
    let bundle = Bundle::sleeper().hook_script("createRuntime", &script).hook_script("poststart", &script);
    let container = runtime.container(&bundle);
    let file = runtime.dir().join("timings");
    let flags = ["--timings", file.to_str().unwrap()];
    let run = container.verb_with(&flags, "run").args(["--detach", container.id()]);
    run.env("TRACEPARENT", format!("00-{trace}-{span}-01")).run().ok();
    let spans = spans(&file);
    let root = spans.iter().find(|span| span["name"] == "tare run").unwrap();
    assert_eq!((root["traceId"].as_str(), root["parentSpanId"].as_str()), (Some(trace), Some(span)));
    has(&phases(&spans, "tare run"), &["parent: createRuntime", "parent: poststart"]);
    let told = std::fs::read_to_string(&told).unwrap();
    let expected = format!("00-{trace}-{}-01", root["spanId"].as_str().unwrap());
    assert_eq!(told.lines().collect::<Vec<_>>(), [&expected, &expected]);
    // Who asks for no timings is told of no trace.
    let other = runtime.container(&bundle);
    other.verb("run").args(["--detach", other.id()]).run().ok();
    assert_eq!(std::fs::read_to_string(runtime.dir().join("told")).unwrap().lines().nth(2), Some(""));
}
