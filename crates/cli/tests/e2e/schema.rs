//! What is printed, against the JSON schemas of the runtime specification (`tests/schema`).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Kind, known};

use crate::runtime;

/// The documents by name.
fn schemas() -> BTreeMap<&'static str, Value> {
    macro_rules! document {
        ($name:literal) => {
            ($name, serde_json::from_str(include_str!(concat!("../schema/", $name))).unwrap())
        };
    }
    BTreeMap::from([
        document!("features-schema.json"),
        document!("features-linux.json"),
        document!("state-schema.json"),
        document!("defs.json"),
        document!("defs-linux.json"),
    ])
}

/// The part of JSON Schema (draft 4) that these documents use. A keyword that it does not know is a failure of the test
/// itself: nothing passes unchecked.
struct Validator {
    documents: BTreeMap<&'static str, Value>,
    faults: Vec<String>,
}

impl Validator {
    fn faults(document: &str, value: &Value) -> Vec<String> {
        let documents = schemas();
        let schema = documents[document].clone();
        let mut validator = Self { documents, faults: Vec::new() };
        validator.check(document, &schema, value, "");
        validator.faults
    }

    fn check(&mut self, document: &str, schema: &Value, value: &Value, at: &str) {
        if let Some(reference) = schema.get("$ref") {
            let (file, pointer) = reference.as_str().unwrap().split_once('#').unwrap();
            let file = if file.is_empty() { document.to_owned() } else { file.to_owned() };
            let target = self.documents[file.as_str()].pointer(&format!("/{}", pointer.trim_start_matches('/')));
            let target = target.unwrap_or_else(|| panic!("{reference}")).clone();
            return self.check(&file, &target, value, at);
        }
        for (keyword, rule) in schema.as_object().unwrap() {
            let good = match keyword.as_str() {
                "description" | "$schema" | "definitions" => true,
                "type" => match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("type {other}"),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "maximum" => value.as_f64() <= rule.as_f64(),
                "required" => rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
                "pattern" => match rule.as_str().unwrap() {
                    "^CAP_[A-Z_]+$" => value.as_str().is_some_and(|name| {
                        let rest = name.strip_prefix("CAP_").unwrap_or_default();
                        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
                    }),
                    other => panic!("pattern {other}"),
                },
                "items" => {
                    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(document, rule, element, &format!("{at}/{index}"));
                    }
                    true
                }
                "properties" => {
                    for (name, rule) in rule.as_object().unwrap() {
                        if let Some(member) = value.get(name) {
                            self.check(document, rule, member, &format!("{at}/{name}"));
                        }
                    }
                    true
                }
                "patternProperties" => {
                    // Of these documents: `.{1,}`, any name.
                    let rule = &rule[".{1,}"];
                    for (name, member) in value.as_object().into_iter().flatten() {
                        self.check(document, rule, member, &format!("{at}/{name}"));
                    }
                    true
                }
                other => panic!("the keyword {other} is not known to this validator"),
            };
            if !good {
                self.faults.push(format!("{at}: {keyword} {rule}: {value}"));
            }
        }
    }
}

#[test]
fn the_validator_finds_faults() {
    let good = json!({"ociVersion": "1.0.0", "id": "a", "status": "running", "bundle": "/"});
    assert_eq!(Validator::faults("state-schema.json", &good), Vec::<String>::new());
    for (name, bad) in [
        ("status", json!("paused")),
        ("id", json!(7)),
        ("pid", json!(-1)),
        ("annotations", json!({"a": 1})),
        ("ociVersion", Value::Null),
    ] {
        let mut document = good.clone();
        document[name] = bad;
        assert_eq!(Validator::faults("state-schema.json", &document).len(), 1, "{name}");
    }
    assert_eq!(Validator::faults("state-schema.json", &json!({})).len(), 1);
    let bad =
        json!({"ociVersionMin": "1", "ociVersionMax": "2", "linux": {"capabilities": ["CHOWN"], "namespaces": ["x"]}});
    assert_eq!(Validator::faults("features-schema.json", &bad).len(), 2);
}

#[test]
fn features_are_those_of_the_schema() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no features");
    let document = runtime.bare().arg("features").run().ok().json();
    assert_eq!(Validator::faults("features-schema.json", &document), Vec::<String>::new());
    for pointer in ["/hooks", "/mountOptions", "/linux/namespaces", "/linux/capabilities"] {
        assert!(document.pointer(pointer).and_then(Value::as_array).is_some_and(|list| list.len() > 4), "{pointer}");
    }
    if runtime.kind() == Kind::Tare {
        // Complete: a member that is not there means "unknown" to the specification, and we know.
        for pointer in [
            "/potentiallyUnsafeConfigAnnotations",
            "/linux/cgroup/v1",
            "/linux/cgroup/v2",
            "/linux/cgroup/systemd",
            "/linux/cgroup/systemdUser",
            "/linux/cgroup/rdma",
            "/linux/seccomp/enabled",
            "/linux/apparmor/enabled",
            "/linux/selinux/enabled",
            "/linux/intelRdt/enabled",
            "/linux/intelRdt/schemata",
            "/linux/intelRdt/monitoring",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
            "/linux/mountExtensions/idmap/enabled",
            "/linux/netDevices/enabled",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}

#[test]
fn every_mount_option_that_is_announced_is_taken() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 has no features", Runc: "1.1.5 announces options that this kernel refuses on tmpfs");
    let document = runtime.bare().arg("features").run().ok().json();
    for option in document["mountOptions"].as_array().unwrap() {
        let option = option.as_str().unwrap();
        // remount wants a mount to be there, mand is gone since Linux 5.15, a bind needs a source of its own.
        if matches!(option, "remount" | "mand" | "idmap" | "ridmap") {
            continue;
        }
        let bind = matches!(option, "bind" | "rbind" | "copy-symlink" | "src-nofollow" | "dest-nofollow");
        let (kind, source) = if bind { ("bind", "/tmp") } else { ("tmpfs", "tmpfs") };
        let bundle = Bundle::new()
            .args(["/bin/true"])
            .mount(json!({"destination": "/mnt", "type": kind, "source": source, "options": [option]}));
        let output = runtime.run(&bundle);
        assert!(output.success(), "{option}: {output}");
    }
}

#[test]
fn states_are_those_of_the_schema() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().set("/annotations", json!({"org.example": "x"}));
    let container = runtime.container(&bundle);
    let valid = |status: &str| {
        let state = container.state();
        assert_eq!(state["status"], status);
        assert_eq!(Validator::faults("state-schema.json", &state), Vec::<String>::new(), "{state}");
    };
    container.create().ok();
    valid("created");
    container.start().ok();
    valid("running");
    container.kill("KILL").ok();
    container.wait_for("stopped");
    valid("stopped");
}
