//! `check`: what is wrong with a bundle, what would be ignored, what would be done. Nothing is done.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Kind, Output, known};

use crate::runtime;

/// `check ARGS BUNDLE`; None for a runtime without the verb.
fn check(bundle: &Bundle, args: &[&str]) -> Option<Output> {
    let runtime = runtime();
    if runtime.kind() != Kind::Tare {
        tare_testkit::record_known(runtime.kind(), "has no such verb");
        return None;
    }
    // The plans are those of the cgroupfs driver.
    Some(runtime.bare().arg("check").args(args).arg(bundle.path()).run())
}

macro_rules! check {
    ($bundle:expr, $($arg:expr),*) => {
        match check(&$bundle, &[$($arg),*]) {
            Some(output) => output,
            None => return,
        }
    };
}

#[test]
fn a_good_bundle_has_nothing_said_about_it() {
    let bundle = Bundle::new();
    bundle.write();
    let output = check!(bundle,).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    let document = check!(bundle, "--format", "json").ok().json();
    assert_eq!((&document["errors"], &document["warnings"]), (&json!([]), &json!([])));
    assert_eq!(document.get("plan"), None);
}

#[test]
fn a_slip_is_a_warning_with_its_place_and_the_code_is_0() {
    let bundle = Bundle::new().set("/process/argz", json!([])).set("/linux/maskedpaths", json!([]));
    bundle.write();
    let output = check!(bundle,).ok();
    let path = bundle.path().join("config.json");
    let line_of = |name: &str| {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().position(|line| line.contains(name)).unwrap() + 1
    };
    let path = path.display();
    for (name, expected) in [
        ("argz", "/process/argz: unknown field, ignored, did you mean \"args\"?"),
        ("maskedpaths", "/linux/maskedpaths: unknown field, ignored, did you mean \"maskedPaths\"?"),
    ] {
        let start = format!("{path}:{}:", line_of(name));
        let found = output.lines().into_iter().any(|line| line.starts_with(&start) && line.ends_with(expected));
        assert!(found, "{start} {expected}\n{output}");
    }
    assert_eq!(output.lines().len(), 2, "{output}");
    // And it runs, as the specification wants.
    runtime().run(&bundle).ok();
}

#[test]
fn every_error_is_told_and_the_code_is_1() {
    let bundle = Bundle::new()
        .set("/process/cwd", json!("tmp"))
        .set("/process/oomScoreAdj", json!(5000))
        .set("/linux/sysctl", json!({"kernel.core_pattern": "x"}))
        .set("/root/path", json!("nowhere"));
    bundle.write();
    let output = check!(bundle,).exits(1);
    for pointer in ["/process/cwd", "/process/oomScoreAdj", "/linux/sysctl/kernel.core_pattern", "/root/path"] {
        assert!(output.stdout.contains(&format!(": error: {pointer}: ")), "{pointer}: {output}");
    }
    assert_eq!(output.lines().len(), 4, "{output}");
    let document = check!(bundle, "--format", "json").exits(1).json();
    assert_eq!(document["errors"].as_array().unwrap().len(), 4);
    assert!(document["errors"][0]["line"].as_u64().unwrap() > 1);
}

#[test]
fn what_the_plan_refuses_is_an_error_with_its_place_too() {
    let bundle = Bundle::new().bind("/tmp", "/mnt", &["bind", "tmpcopyup"]);
    bundle.write();
    let output = check!(bundle,).exits(1);
    let expected = ": error: /mounts/7/options: tmpcopyup is for type tmpfs alone";
    assert!(output.stdout.contains(expected), "{output}");
    let bundle = Bundle::new().resource("unified", json!({"memory.max": "1"}));
    bundle.write();
    assert_eq!(check!(bundle, "--cgroup-version", "v2").ok().stdout, "");
    let output = check!(bundle, "--cgroup-version", "v1").exits(1);
    assert!(output.stdout.contains(": error: /linux/resources/unified: "), "{output}");
}

#[test]
fn limits_that_the_version_of_cgroups_has_not_are_warnings() {
    let bundle = Bundle::new().resource("memory", json!({"swappiness": 10, "kernel": 5}));
    bundle.write();
    let output = check!(bundle, "--cgroup-version", "v1").ok();
    assert_eq!(output.lines().len(), 1, "{output}");
    let output = check!(bundle, "--cgroup-version", "v2").ok();
    let expected = ": warning: /linux/resources/memory/swappiness: ignored: cgroup v2 has nothing that does this";
    assert!(output.stdout.contains(expected), "{output}");
    assert_eq!(output.lines().len(), 2, "{output}");
    assert_eq!(output.stderr, "");
}

#[test]
fn a_file_that_is_no_document_is_an_error_and_none_at_all_too() {
    let bundle = Bundle::new();
    for text in ["", "{", "null", "[]", "7"] {
        fs::write(bundle.path().join("config.json"), text).unwrap();
        let output = check!(bundle,).exits(1);
        assert!(output.stdout.contains(": error: ") && output.stderr.is_empty(), "{text}: {output}");
    }
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    check!(bundle,).fails(&["no such file or directory"]);
    check!(bundle, "--format", "xml").fails(&["--format"]);
    check!(bundle, "--cgroup-version", "v3").fails(&["--cgroup-version"]);
}

/// A bundle with something of everything.
fn rich() -> Bundle {
    Bundle::script("true")
        .user_namespace(100_000, 65_536)
        .namespace("cgroup")
        .namespace("time")
        .join_namespace("network", "/proc/1/ns/net")
        .cgroups_path("/tare-golden")
        .set("/linux/timeOffsets", json!({"boottime": {"secs": 7, "nanosecs": 5}}))
        .set("/linux/sysctl", json!({"kernel.msgmax": "65536"}))
        .set("/linux/devices", json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]))
        .resource("cpu", json!({"shares": 512, "quota": 50_000, "period": 100_000}))
        .resource("memory", json!({"limit": 1_048_576, "swap": 3_145_728, "reservation": 524_288}))
        .resource("pids", json!({"limit": 100}))
        .resource("blockIO", json!({"weight": 500}))
        .set("/process/oomScoreAdj", json!(100))
        .set("/process/user/additionalGids", json!([5, 6]))
        .set("/domainname", json!("example"))
        .hook("createRuntime", json!({"path": "/bin/hook", "args": ["hook", "a b"], "timeout": 5}))
        .hook("poststop", json!({"path": "/bin/hook"}))
        .readonly()
}

/// Compares with `tests/golden/NAME`; `TARE_WRITE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str, bundle: &Bundle) {
    let text = text.replace(&bundle.path().display().to_string(), "BUNDLE");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TARE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

#[test]
fn the_plan_is_every_step_in_order_for_either_version_of_cgroups() {
    let bundle = rich();
    bundle.write();
    // What the host has differs: the usual places of the version that it does not have are the same everywhere.
    for version in ["v1", "v2"] {
        let output = check!(bundle, "--plan", "--cgroup-version", version).ok();
        if version == "v2" {
            golden("plan-v2.txt", &output.stdout, &bundle);
        }
        let document = check!(bundle, "--plan", "--format", "json", "--cgroup-version", version).ok().json();
        let plan = document["plan"].as_array().unwrap();
        let has = |field: &str, words: &str| {
            let found = plan
                .iter()
                .any(|action| action["field"] == field && action["action"].as_str().unwrap().contains(words));
            assert!(found, "{field} {words}: {plan:#?}");
        };
        let shares = if version == "v1" { ("\"512\"", "cpu.shares") } else { ("\"59\"", "cpu.weight") };
        has("/linux/resources/cpu/shares", shares.0);
        has("/linux/resources/cpu/shares", shares.1);
        has("/linux/uidMappings/0", "map 65536 from 0 in the container to 100000 on the host");
        has("/mounts/0", "mount proc (proc) on \"/proc\"");
        has("/hooks/createRuntime/0", "run \"/bin/hook\" [\"hook\", \"a b\"], killed after 5 s");
        has("/process/capabilities/ambient", "ambient: none");
    }
}

const MOUNTS: &str = "/proc/self/mountinfo";

#[test]
fn a_plan_changes_nothing_and_runs_nothing() {
    let dir = tare_testkit::TempDir::new("plan");
    let mark = dir.join("mark");
    let bundle = rich().hook_script("prestart", &format!("touch {}", mark.display()));
    bundle.write();
    let runtime = runtime();
    known!(runtime, Runc: "has no such verb", Crun: "has no such verb");
    // Where nobody else mounts anything meanwhile: a mount only goes, when somebody removes the directory it is on.
    let script = format!("cat {MOUNTS} >{0}/before; \"$@\" && cat {MOUNTS} >{0}/after", dir.path().display());
    let check = runtime.bare().arg("--root").arg(runtime.root()).args(["check", "--plan"]).arg(bundle.path());
    let output =
        check.through_shell(&script).through_shell("exec unshare --mount --propagation private \"$@\"").run().ok();
    assert!(output.stdout.contains("touch"), "{output}");
    assert!(!mark.exists() && !runtime.root().exists());
    assert!(
        !Path::new("/sys/fs/cgroup/pids/tare-golden").exists() && !Path::new("/sys/fs/cgroup/tare-golden").exists()
    );
    let [before, after] = ["before", "after"].map(|name| fs::read_to_string(dir.join(name)).unwrap());
    assert!(after.contains(" / "));
    let added: Vec<&str> = after.lines().filter(|line| before.lines().all(|other| other != *line)).collect();
    assert_eq!(added, [""; 0]);
}

#[test]
fn warnings_of_the_config_are_told_before_the_plan() {
    let bundle = Bundle::new().set("/windows", json!({})).set("/process/consoleSize", json!({"height": 1, "width": 1}));
    bundle.write();
    let document = check!(bundle, "--plan", "--format", "json").ok().json();
    let pointers: Vec<&Value> = document["warnings"].as_array().unwrap().iter().map(|one| &one["pointer"]).collect();
    assert_eq!(pointers, ["/process/consoleSize", "/windows"]);
    assert!(document["plan"].as_array().unwrap().len() > 30);
}

/// A user has no cgroup and may make none, unless somebody has given them one.
#[test]
fn the_plan_of_a_user_goes_without_a_cgroup_unless_told_otherwise() {
    let runtime = runtime();
    if runtime.kind() != Kind::Tare {
        tare_testkit::record_known(runtime.kind(), "has no such verb");
        return;
    }
    const UID: u32 = 12345;
    let bundle = Bundle::new().rootless(UID);
    bundle.write();
    let runtime = runtime.as_user(UID);
    let plan = |flags: &[&str]| {
        let output = runtime.bare().arg("--root").arg(runtime.root()).args(flags).args(["check", "--plan"]);
        output.arg(bundle.path()).run().ok().stdout
    };
    const WITHOUT: &str = "stay in the caller's cgroup, without limits";
    for (flags, without) in [(&[][..], true), (&["--rootless", "true"], true), (&["--rootless", "false"], false)] {
        let plan = plan(flags);
        assert_eq!(plan.contains(WITHOUT), without, "{flags:?}: {plan}");
        assert_eq!(plan.contains("mkdir \"/sys/fs/cgroup"), !without, "{flags:?}: {plan}");
    }
}
