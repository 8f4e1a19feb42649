//! What a container finds in its root: devices, links, masks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;
use tare_testkit::{Bundle, Kind, TempDir, skip};

use crate::advisories::names;
use crate::mountinfo::{at, inside};
use crate::runtime;

#[test]
fn the_root_is_the_bundles_rootfs_and_the_only_one() {
    let runtime = runtime();
    let output =
        runtime.run(&Bundle::script("cat /marker; ls /proc/1/root/; ls -d /../marker").file("marker", "mine\n")).ok();
    assert_eq!(output.lines()[0], "mine");
    assert!(output.lines().contains(&"marker"), "{output}");
    let mounts = inside(&runtime, Bundle::new());
    assert_eq!(mounts.iter().filter(|mount| mount.point == "/").count(), 1, "the host's root is gone: {mounts:#?}");
}

#[test]
fn the_default_devices_exist() {
    let runtime = runtime();
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty";
    let output = runtime.run(&Bundle::script(script)).ok();
    let expected = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)]
        .map(|(name, minor)| format!("/dev/{name} character special file 1:{minor} 666 0:0"));
    assert_eq!(output.lines()[..5], expected);
    assert_eq!(output.lines()[5], "/dev/tty character special file 5:0 666 0:0");
}

#[test]
fn the_default_devices_work() {
    let runtime = runtime();
    let script = "set -e; echo x > /dev/null; test \"$(head -c 3 /dev/zero | xxd -p)\" = 000000; \
         head -c 1 /dev/urandom > /dev/null; ! echo x > /dev/full; test -z \"$(cat /dev/null)\"; echo fine";
    let output = runtime.run(&Bundle::script(script)).ok();
    assert_eq!(output.text(), "fine");
}

#[test]
fn the_default_devices_belong_to_a_user_namespaces_host_or_root_and_work() {
    let runtime = runtime();
    let script = "set -e; echo x > /dev/null; head -c 1 /dev/urandom > /dev/null; stat -c '%t:%T' /dev/null";
    let output = runtime.run(&Bundle::script(script).user_namespace(100_000, 65536)).ok();
    assert_eq!(output.text(), "1:3");
}

#[test]
fn the_dev_links_exist() {
    let runtime = runtime();
    let output =
        runtime.run(&Bundle::script("cd /dev; for n in fd stdin stdout stderr ptmx; do readlink $n; done")).ok();
    let lines = output.lines();
    assert_eq!(lines[..4], ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]);
    assert!(["pts/ptmx", "/dev/pts/ptmx"].contains(&lines[4]), "{output}");
}

#[test]
fn devices_of_the_config_are_made() {
    let runtime = runtime();
    let devices = json!([
        {"path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/a/b/two", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600, "uid": 0, "gid": 0},
        {"path": "/dev/three", "type": "p", "fileMode": 0o622, "uid": 0, "gid": 0},
    ]);
    let script = "stat -c '%F %t:%T %a %u:%g' /dev/one /dev/a/b/two; stat -c '%F %a' /dev/three";
    let output = runtime.run(&Bundle::script(script).set("/linux/devices", devices)).ok();
    let expected = ["character special file 1:3 640 7:8", "block special file 7:c8 600 0:0", "fifo 622"];
    assert_eq!(output.lines(), expected);
}

#[test]
fn masked_paths_cannot_be_read() {
    let runtime = runtime();
    let bundle = Bundle::script(
        "cat /secret; ls -A /secrets; cat /secrets/inner; cat /proc/kcore | wc -c; \
             ls -A /sys/firmware",
    )
    .file("secret", "read me")
    .file("secrets/inner", "read me")
    .edit(|config| {
        let masked = config["linux"]["maskedPaths"].as_array_mut().unwrap();
        masked.extend(["/secret", "/secrets", "/does/not/exist", "/secret"].map(|path| json!(path)));
    });
    let output = runtime.run(&bundle).ok();
    assert!(!output.stdout.contains("read me"), "{output}");
    assert_eq!(output.text(), "0");
}

#[test]
fn masked_paths_cannot_be_written_nor_unmasked() {
    let runtime = runtime();
    let bundle = Bundle::script("touch /secrets/new && echo written; umount /secrets && echo unmasked; true")
        .dir("secrets")
        .set("/linux/maskedPaths", json!(["/secrets"]));
    assert_eq!(runtime.run(&bundle).ok().text(), "");
}

#[test]
fn readonly_paths_can_be_read_and_not_written() {
    let runtime = runtime();
    let bundle = Bundle::script(
        "cat /fixed/file; echo x > /fixed/file || echo no; touch /fixed/new || echo no; \
         echo x > /plain || echo no; touch /free && echo yes",
    )
    .file("fixed/file", "contents\n")
    .file("plain", "")
    .set("/linux/readonlyPaths", json!(["/fixed", "/plain", "/does/not/exist"]));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["contents", "no", "no", "no", "yes"]);
    assert!(output.stderr.contains("Read-only file system"), "{output}");
}

#[test]
fn the_default_readonly_paths_hold() {
    let runtime = runtime();
    let script = "echo x > /proc/sys/kernel/hostname; echo 1 > /proc/irq/default_smp_affinity; true";
    let output = runtime.run(&Bundle::script(script)).ok();
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output}");
    let mounts = inside(&runtime, Bundle::new());
    assert!(at(&mounts, "/proc/sys").has("ro"));
    assert!(at(&mounts, "/proc/irq").has("ro"));
}

#[test]
fn a_readonly_root_refuses_writes_below_it_but_not_to_mounts() {
    let runtime = runtime();
    let bundle =
        Bundle::script("touch /x || echo no; touch /etc/x || echo no; touch /dev/shm/x && echo yes").readonly();
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["no", "no", "yes"]);
    assert!(!bundle.rootfs().join("x").exists());
    assert!(at(&inside(&runtime, Bundle::new().readonly()), "/").options.contains(&"ro".to_owned()));
}

#[test]
fn a_readonly_root_still_gets_its_mount_points() {
    let runtime = runtime();
    let bundle = Bundle::script("echo x > /made/here/file && cat /made/here/file")
        .readonly()
        .mount(json!({"destination": "/made/here", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(runtime.run(&bundle).ok().text(), "x");
}

#[test]
fn a_writable_root_keeps_what_is_written() {
    let runtime = runtime();
    let bundle = Bundle::script("echo kept > /kept");
    runtime.run(&bundle).ok();
    assert_eq!(fs::read_to_string(bundle.rootfs().join("kept")).unwrap(), "kept\n");
}

#[test]
fn a_rootfs_elsewhere_is_found() {
    let runtime = runtime();
    let other = Bundle::new().file("marker", "other");
    for path in [
        other.rootfs().to_str().unwrap().to_owned(),
        "../".to_owned() + other.path().file_name().unwrap().to_str().unwrap() + "/rootfs",
    ] {
        let bundle = Bundle::script("cat /marker").set("/root/path", json!(path));
        assert_eq!(runtime.run(&bundle).ok().text(), "other");
    }
}

#[test]
fn a_rootfs_that_is_missing_or_a_file_is_refused() {
    let runtime = runtime();
    runtime.run(&Bundle::new().set("/root/path", json!("nonexistent"))).fails(&["nonexistent"]);
    let bundle = Bundle::new().set("/root/path", json!("config.json"));
    runtime.run(&bundle).fails(&[]);
}

#[test]
fn no_pivot_gives_the_same_root() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /marker; ls -d /../marker; cat /proc/self/mountinfo | wc -l; hostname")
        .file("marker", "mine\n");
    let container = runtime.container(&bundle);
    let output = container.call("run", &["--no-pivot"]).ok();
    assert_eq!(output.lines()[..2], ["mine", "/../marker"]);
    assert_eq!(output.lines()[3], "tare-test");

    let bundle = Bundle::script("{ cat /marker; ls -d /../marker; } > /seen").file("marker", "mine\n");
    let container = runtime.container(&bundle);
    container.call("create", &["--no-pivot"]).ok();
    container.start().ok();
    container.wait_for("stopped");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("seen")).unwrap(), "mine\n/../marker\n");
}

#[test]
fn a_tmp_dev_has_the_mode_of_its_options() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("stat -c '%a' /dev /dev/shm /dev/pts")).ok();
    assert_eq!(output.lines(), ["755", "1777", "755"]);
}

#[test]
fn a_relative_link_with_many_dots_does_not_leave_the_rootfs() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    let target = PathBuf::from("../".repeat(40)).join(outside.path().strip_prefix("/").unwrap());
    let bundle =
        Bundle::new().symlink("vol", target).mount(json!({"destination": "/vol/new", "type": "tmpfs", "source": "t"}));
    let _ = runtime.run(&bundle);
    assert_eq!(names(outside.path()), [""; 0]);
}

/// The host's /dev/null never changes its owner or mode.
#[test]
fn dev_null_of_the_host_is_not_chowned() {
    let runtime = runtime();
    if runtime.kind() == Kind::Crun {
        skip!("crun 1.8.1 does it, and the host would keep it");
    }
    let before = fs::metadata("/dev/null").unwrap();
    let bundle = Bundle::new().user(1000, 1000);
    // A refusal would not be seen below.
    runtime.run(&bundle).ok();
    let container = runtime.container(&bundle);
    container.verb("run").arg(container.id()).through_shell("exec \"$@\" >/dev/null 2>/dev/null").run().ok();
    let after = fs::metadata("/dev/null").unwrap();
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}
