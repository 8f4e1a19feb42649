//! A container without a mount namespace mounts in its caller's, and takes everything away again.

use serde_json::json;
use tare_testkit::{Bundle, Runtime, TempDir, known};

use crate::{RUNTIME, runtime};

const RUNC: &str = "1.1.5 leaves its mounts on the host";
const CRUN: &str = "1.8.1 makes a mount namespace all the same";

/// Everything happens in a mount namespace that stands for the host's: what a failure leaves there goes with it. Its mounts
/// are shared with another one, as systemd has it. `before` and `after` are its mounts, without those of other tests, which
/// come in a copy and go with the directories below them; `runtime` runs it with its `--root`.
fn on_host(runtime: &Runtime, bundle: &Bundle, script: &str) -> String {
    let (own, all) = (bundle.path().display(), bundle.path().parent().unwrap().display());
    let shot =
        format!("sed \"\\,{all}/,{{\\,{own}/,b; /{}/!d}}\" /proc/self/mountinfo | cut -d\" \" -f3-6", runtime.tag());
    let compare = format!("shot() {{ {shot}; }}; {RUNTIME}; mount --make-rshared /; before=$(shot)");
    let host = format!("{compare}; {script}; after=$(shot); [ \"$before\" = \"$after\" ] || {{ echo LEFT; shot; }}");
    format!("exec unshare --mount --propagation private sh -c '{host}' sh \"$@\"")
}

fn bundle(script: &str) -> Bundle {
    Bundle::script(script)
        .without_namespace("mount")
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
}

fn run(runtime: &Runtime, bundle: &Bundle, verb: &str, script: &str) -> tare_testkit::Output {
    let container = runtime.container(bundle);
    let script = on_host(runtime, bundle, &script.replace("ID", container.id()));
    container.verb(verb).arg(container.id()).through_shell(&script).run()
}

#[test]
fn it_inherits_the_namespace_and_sees_its_mounts() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC, Crun: CRUN);
    let bundle = bundle("readlink /proc/self/ns/mnt; ls /t; cat /marker; ls -d /../marker")
        .file("marker", "mine\n")
        .mount(json!({"destination": "/t", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/t/in", "type": "tmpfs", "source": "t", "options": ["ro"]}));
    let output = run(&runtime, &bundle, "run", "readlink /proc/self/ns/mnt; \"$@\"").ok();
    let lines = output.lines();
    assert_eq!(lines.len(), 5, "{output}");
    assert_eq!(lines[0], lines[1], "{output}");
    assert_eq!(lines[2..], ["in", "mine", "/../marker"]);
}

#[test]
fn delete_takes_its_mounts_away() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC, Crun: CRUN);
    let volume = TempDir::new("volume");
    let bundle = bundle("true").bind(volume.path(), "/v", &["rbind", "rshared"]);
    for end in ["runtime start ID; sleep 0.5; runtime delete ID", "runtime delete --force ID"] {
        let script =
            format!("\"$@\" || exit 1; grep -c {}/proc /proc/self/mountinfo; {end}", bundle.rootfs().display());
        let output = run(&runtime, &bundle, "create", &script).ok();
        assert_eq!(output.lines(), ["1"], "{end}: {output}");
    }
}

#[test]
fn a_rootfs_that_is_a_mount_of_the_caller_stays() {
    let runtime = runtime();
    let bundle = bundle("touch /made; mount | wc -l");
    // Twice, one on the other: both are the caller's.
    let root = bundle.rootfs();
    let script = format!(
        "mount --bind {0} {0}; mount --bind {0} {0}; before=$(shot); \"$@\"; ls {0}/made > /dev/null",
        root.display()
    );
    run(&runtime, &bundle, "run", &script).ok();
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let bundle = bundle("true").mount(json!({"destination": "/t", "type": "nosuchfs", "source": "t"}));
    let output = run(&runtime, &bundle, "create", "\"$@\" && echo created");
    assert_eq!(output.stdout, "", "{output}");
    let missing = self::bundle("/no/such/program").args(["/no/such/program"]);
    let output = run(&runtime, &missing, "run", "\"$@\" && echo ran");
    assert_eq!(output.stdout, "", "{output}");
}

#[test]
fn a_create_that_is_killed_leaves_what_delete_takes_away() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC, Crun: "1.8.1 leaves the cgroup of a killed create");
    let bundle = bundle("true").hook_script("prestart", "kill -9 $PPID; sleep 1");
    let script = "\"$@\"; runtime delete --force ID; runtime delete --force ID";
    let output = run(&runtime, &bundle, "create", script);
    assert!(!output.stdout.contains("LEFT"), "{output}");
}

#[test]
fn what_restricts_mounts_needs_a_mount_namespace() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 makes a mount namespace for them");
    for (pointer, value) in
        [("/linux/maskedPaths", json!(["/proc/kcore"])), ("/linux/readonlyPaths", json!(["/proc/sys"]))]
    {
        runtime.run(&bundle("true").set(pointer, value)).fails(&[]);
    }
}
