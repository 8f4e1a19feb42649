//! Class: /proc is not what it seems, and what the runtime writes there (labels, sysctls, read-only remounts) goes
//! elsewhere.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::{Bundle, TempDir, known};

use crate::runtime;

/// CVE-2015-3630: files of /proc that tell about the host or change it are open to the container. `spec` closes them.
#[test]
fn cve_2015_3630_what_spec_writes_masks_proc() {
    let runtime = runtime();
    let script = "for f in /proc/asound /proc/timer_stats /proc/latency_stats /proc/kcore /proc/keys; do \
         test -e $f || continue; test -d $f && ls -A $f || cat $f; done; \
         (: >> /proc/sys/kernel/panic) 2>&1 | grep -o 'Read-only file system'";
    let bundle = Bundle::new();
    runtime.bare().args(["spec", "--bundle"]).arg(bundle.path()).run().ok();
    let written: Value = serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap();
    let list = |name: &str| written["linux"][name].as_array().unwrap().clone();
    for path in ["/proc/asound", "/proc/timer_stats", "/proc/latency_stats"] {
        assert!(list("maskedPaths").contains(&json!(path)), "{path}");
    }
    assert!(list("readonlyPaths").contains(&json!("/proc/fs")));
    let bundle = bundle.edit(|config| *config = written.clone());
    let bundle = bundle.set("/process/terminal", json!(false)).args(["sh", "-c", script]);
    assert_eq!(runtime.run(&bundle).ok().lines(), ["Read-only file system"]);
}

/// CVE-2015-3631, CVE-2019-16884: a volume on or below /proc catches what is written there, and a label is not in force.
#[test]
fn cve_2015_3631_and_cve_2019_16884_volumes_on_and_below_proc_are_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "tolerates them, and writes through a procfs of its own");
    let source = TempDir::new("source");
    for destination in ["/proc", "/proc/sys/kernel", "/proc/self/status"] {
        let bundle = Bundle::script("echo ran").bind(source.path(), destination, &["bind"]);
        let output = runtime.run(&bundle).fails(&["proc"]);
        assert_eq!(output.stdout, "");
    }
}

/// CVE-2019-16884 by a tmpfs.
#[test]
fn cve_2019_16884_a_tmpfs_below_proc_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "lets it through", Crun: "tolerates it");
    let mount = json!({"destination": "/proc/self/attr", "type": "tmpfs", "source": "t"});
    let output = runtime.run(&Bundle::script("echo ran").mount(mount)).fails(&["proc"]);
    assert_eq!(output.stdout, "");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc or /sys of the image is a link, and masks and
/// labels land where it leads.
#[test]
fn cve_2019_19921_cve_2023_27561_cve_2023_28642_and_cve_2025_54867_proc_must_be_a_directory_of_the_rootfs() {
    let runtime = runtime();
    for name in ["proc", "sys"] {
        for target in ["/elsewhere", "elsewhere", "/", "/missing"] {
            let bundle = Bundle::script("echo ran").dir("elsewhere").symlink(name, target);
            let output = runtime.run(&bundle).fails(&[]);
            assert_eq!(output.stdout, "", "{name} -> {target}");
        }
    }
}

/// CVE-2026-115521: read-only remounts that go through the image's /proc/self/fd miss.
#[test]
fn cve_2026_115521_a_rootfs_with_a_fake_proc_is_still_read_only() {
    let runtime = runtime();
    let mut bundle = Bundle::script("touch /x && echo written; true").readonly().dir("decoy").dir("proc/self/fd");
    for fd in 3..=60 {
        bundle = bundle.symlink(&format!("proc/self/fd/{fd}"), "/decoy");
    }
    let bundle = bundle.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Paths"));
    });
    let output = runtime.run(&bundle);
    assert!(!output.stdout.contains("written"), "{output}");
    assert!(!bundle.rootfs().join("x").exists());
}
