//! Devices of the configuration, and what closes parts of the root: masks and read-only paths.

use std::path::Path;

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Kind, known, skip};

use crate::mountinfo::{at, inside};
use crate::runtime;
use crate::update::{needs_cgroups, update};

fn device(path: &str, kind: &str, major: i64, minor: i64) -> Value {
    json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o640, "uid": 7, "gid": 8})
}

#[test]
fn each_type_of_device_is_made_with_its_number_mode_and_owner() {
    let runtime = runtime();
    let devices = json!([
        device("/dev/tare-c", "c", 1, 5),
        device("/dev/tare-u", "u", 1, 5),
        device("/dev/tare-b", "b", 7, 200),
        device("/dev/deep/er/tare", "c", 1, 3),
        device("/other/tare", "c", 1, 3),
        json!({"path": "/dev/tare-p", "type": "p", "fileMode": 0o640, "uid": 7, "gid": 8}),
    ]);
    let script = "stat -c '%F %t:%T %a %u:%g' /dev/tare-c /dev/tare-u /dev/tare-b /dev/deep/er/tare /other/tare; \
         stat -c '%F %a %u:%g' /dev/tare-p";
    let output = runtime.run(&Bundle::script(script).set("/linux/devices", devices)).ok();
    let expected = [
        "character special file 1:5 640 7:8",
        "character special file 1:5 640 7:8",
        "block special file 7:c8 640 7:8",
        "character special file 1:3 640 7:8",
        "character special file 1:3 640 7:8",
        "fifo 640 7:8",
    ];
    assert_eq!(output.lines(), expected);
}

#[test]
fn a_device_of_the_config_wins_over_a_default_one() {
    let runtime = runtime();
    let devices =
        json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 3, "gid": 4}]);
    let bundle = Bundle::script("stat -c '%t:%T %a %u:%g' /dev/full /dev/zero").set("/linux/devices", devices);
    assert_eq!(runtime.run(&bundle).ok().lines(), ["1:7 600 3:4", "1:5 666 0:0"]);
}

/// docker run --device /dev/full:/dev/full:r: the default rule, which allows all, was there besides, and stays there after an update.
#[test]
fn of_a_device_of_the_config_in_the_place_of_a_default_one_the_rules_of_the_config_speak() {
    needs_cgroups!();
    let runtime = crate::limits::runtime();
    known!(runtime, Crun: "1.8.1 leaves the default rule beside it: it can be written to");
    let rule =
        |minor: i64, access: &str| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": access});
    let rules = json!([{"allow": false, "access": "rwm"}, rule(7, "r")]);
    let devices =
        json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666, "uid": 0, "gid": 0}]);
    let bundle = Bundle::sleeper().set("/linux/devices", devices).resource("devices", rules);
    let container = runtime.container(&bundle);
    container.up();
    let attempt = || {
        let script = "exec 2>/dev/null; (: </dev/full) && echo read; (: >/dev/full) && echo written; (: >/dev/zero) && echo another";
        container.exec(["sh", "-c", script]).ok().lines().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(attempt(), ["read", "another"]);
    if runtime.is_tare() {
        update(&container, &json!({"devices": [rule(7, "r"), rule(11, "r")]})).ok();
        assert_eq!(attempt(), ["read", "another"]);
        update(&container, &json!({"devices": [rule(7, "rw")]})).ok();
        assert_eq!(attempt(), ["read", "written", "another"]);
    }
}

/// docker run -v /dev/zero:/dev/null, and --device of what a -v brings along: the host's nodes were given the container's owner.
#[test]
fn what_a_mount_put_in_the_place_of_a_device_is_left_as_it_is() {
    use std::os::unix::fs::MetadataExt;
    let runtime = runtime();
    let bundle = Bundle::script("stat -c '%n %t:%T %a %u:%g' /dev/null /dev/mine/full");
    let host = bundle.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let full = host.join("full");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o640);
    let made = nix::sys::stat::mknod(&full, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 7));
    made.unwrap();
    std::os::unix::fs::chown(&full, Some(5), Some(6)).unwrap();
    let devices =
        json!([{"path": "/dev/mine/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666, "uid": 0, "gid": 0}]);
    let bundle =
        bundle.bind(&host, "/dev/mine", &["rbind"]).bind(&full, "/dev/null", &["bind"]).set("/linux/devices", devices);
    let output = runtime.run(&bundle);
    let after = std::fs::metadata(&full).unwrap();
    assert_eq!((after.mode() & 0o7777, after.uid(), after.gid()), (0o640, 5, 6));
    assert_eq!(output.ok().lines(), ["/dev/null 1:7 640 5:6", "/dev/mine/full 1:7 640 5:6"]);
}

#[test]
fn of_two_devices_on_one_path_that_differ_the_second_is_refused() {
    let runtime = runtime();
    if !runtime.is_tare() {
        skip!("the words are ours");
    }
    let bundle =
        Bundle::new().set("/linux/devices", json!([device("/dev/tare", "c", 1, 3), device("/dev/tare", "c", 1, 5)]));
    runtime.run(&bundle).fails(&["device \"/dev/tare\": what is there is not the device 1:5"]);
}

#[test]
fn in_a_user_namespace_the_hosts_devices_are_bound() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 leaves out a device that the host does not have");
    if !Path::new("/dev/fuse").exists() {
        skip!("no /dev/fuse here");
    }
    let fuse = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229});
    let mut devices = vec![fuse];
    let mut script = "stat -c '%F %t:%T' /dev/fuse /dev/zero; head -c 1 /dev/zero | wc -c".to_owned();
    if runtime.is_tare() {
        // Nothing of the host: a fifo is made by whoever may make files.
        devices.push(json!({"path": "/dev/tare-p", "type": "p", "fileMode": 0o640, "uid": 0, "gid": 5}));
        script += "; stat -c '%F %a %u:%g' /dev/tare-p";
    }
    let bundle = Bundle::script(&script).user_namespace(100_000, 65536).set("/linux/devices", json!(devices));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines()[..3], ["character special file a:e5", "character special file 1:5", "1"]);
    if runtime.is_tare() {
        assert_eq!(output.lines()[3..], ["fifo 640 0:5"]);
    }
    let missing = json!([{"path": "/dev/tare-none", "type": "c", "major": 1, "minor": 5}]);
    let bundle = Bundle::new().user_namespace(100_000, 65536).set("/linux/devices", missing);
    runtime.run(&bundle).fails(&["/dev/tare-none"]);
}

#[test]
fn a_masked_path_of_any_kind_is_closed() {
    let runtime = runtime();
    let mut masked = vec!["/file", "/dir", "/dev/zero", "/link", "/dir-link", "/missing/path", "/file", "/dir/"];
    if runtime.is_tare() {
        // What lies below a file is as missing as anything; runc 1.1.5 and crun 1.8.1 stop there.
        masked.push("/file/below");
    }
    let script = "cat /file /real; ls -A /dir /real-dir; head -c 1 /dev/zero | wc -c; echo x > /file; echo x > /dir/x; \
         ls /file/below 2>/dev/null; echo done";
    let bundle = Bundle::script(script)
        .file("file", "secret\n")
        .file("real", "secret\n")
        .file("dir/inner", "")
        .file("real-dir/inner", "")
        .symlink("link", "/real")
        .symlink("dir-link", "real-dir")
        .set("/linux/maskedPaths", json!(masked));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["/dir:", "", "/real-dir:", "0", "done"], "{output}");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("file")).unwrap(), "secret\n");
}

#[test]
fn a_read_only_path_leaves_the_mounts_below_it_as_they_are() {
    let runtime = runtime();
    let tmpfs = |destination: &str| json!({"destination": destination, "type": "tmpfs", "source": "t"});
    let script = "touch /m/x || echo no; touch /m/sub/x && echo yes; touch /dir/x || echo no; cat /dir/file";
    let bundle = Bundle::script(script)
        .file("dir/file", "read\n")
        .symlink("link", "dir")
        .mount(tmpfs("/m"))
        .mount(tmpfs("/m/sub"))
        .set("/linux/readonlyPaths", json!(["/m", "/link", "/link", "/missing"]));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["no", "yes", "no", "read"], "{output}");
    if runtime.kind() == Kind::Tare {
        let mounts = inside(&runtime, bundle);
        assert!(at(&mounts, "/m").has("ro") && !at(&mounts, "/m/sub").options.contains(&"ro".to_owned()));
    }
}
