//! Class: something in the configuration is taken for something else on its way.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Output, Runtime, TempDir, host, known};

use crate::runtime;

/// Tells the namespaces of the container.
const NAMESPACES: &str = "for n in mnt pid net ipc uts user; do readlink /proc/self/ns/$n; done";

/// A clean refusal, or a container that has every namespace that was asked for.
#[track_caller]
fn assert_refused_or_jailed(runtime: &Runtime, bundle: &Bundle) -> Output {
    let output = runtime.run(bundle);
    if output.stdout.is_empty() {
        return output.fails(&[]);
    }
    let asked = bundle.config()["linux"]["namespaces"].as_array().unwrap().clone();
    for (line, kind) in output.lines().iter().zip(["mnt", "pid", "net", "ipc", "uts", "user"]) {
        let spelled = match kind {
            "mnt" => "mount",
            "net" => "network",
            other => other,
        };
        let own = asked.iter().any(|namespace| namespace["type"] == spelled);
        assert_eq!(host::namespace(kind).to_str().unwrap() != *line, own, "{kind}: {output}");
    }
    output
}

/// CVE-2021-43784: an attribute of more than 64 KiB in what runc's processes tell each other wraps round, and what comes
/// after overrides the namespaces. Mappings and paths are what may be long.
#[test]
fn cve_2021_43784_what_is_too_long_does_not_override_the_namespaces() {
    let runtime = runtime();
    let map: Vec<Value> =
        (0..5000).map(|id| json!({"containerID": id, "hostID": 100_000 + 2 * id, "size": 1})).collect();
    let mapped = Bundle::script(NAMESPACES)
        .user_namespace(100_000, 1)
        .set("/linux/uidMappings", json!(map))
        .set("/linux/gidMappings", json!(map));
    assert_refused_or_jailed(&runtime, &mapped);
    let deep = format!("/{}", "x".repeat(70_000));
    assert_refused_or_jailed(&runtime, &Bundle::script(NAMESPACES).cgroups_path(&deep));
    let steps = format!("/{}{}", runtime.tag(), "/x".repeat(35_000));
    assert_refused_or_jailed(&runtime, &Bundle::script(NAMESPACES).cgroups_path(&steps));
    let joined = Bundle::script(NAMESPACES).join_namespace("network", &deep);
    assert_refused_or_jailed(&runtime, &joined);
    let long = "y".repeat(70_000);
    assert_refused_or_jailed(&runtime, &Bundle::script(NAMESPACES).env(&format!("LONG={long}")));
    assert_refused_or_jailed(&runtime, &Bundle::script(NAMESPACES).set("/hostname", json!(long)));
}

/// The control of the test itself: an ordinary configuration with a user namespace is jailed.
#[test]
fn cve_2021_43784_an_ordinary_container_has_every_namespace() {
    let runtime = runtime();
    let bundle = Bundle::script(NAMESPACES).user_namespace(100_000, 65_536);
    let output = assert_refused_or_jailed(&runtime, &bundle);
    assert_eq!(output.lines().len(), 6, "{output}");
}

/// CVE-2024-3154, GHSA-c5pj-mqfh-rvc3: an annotation sets any property of the systemd unit (ExecStartPre). That a runtime
/// does so has to be told to the engines, which know whom an annotation comes from. What it does with each is in the tests
/// of systemd.
#[test]
fn cve_2024_3154_features_tells_that_annotations_are_properties_of_the_unit() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "has no such list", Crun "1.8.": "has no `features`");
    let features = runtime.bare().arg("features").run().ok().json();
    let unsafe_ones = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    assert!(unsafe_ones.contains(&json!("org.systemd.property.")), "{features}");
}

/// CVE-2025-23266: a hook in the container's mount namespace has the container's environment, and with it the image's
/// LD_PRELOAD.
#[test]
fn cve_2025_23266_hooks_do_not_get_the_images_environment() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "passes it");
    let dir = TempDir::new("hook");
    let script = format!("env > {}", dir.join("env").display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let bundle = Bundle::new().env("LD_PRELOAD=/evil.so").hook("createContainer", hook);
    runtime.run(&bundle).ok();
    assert!(!fs::read_to_string(dir.join("env")).unwrap().contains("LD_PRELOAD"));
}
