//! Idmapped bind mounts.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::{Value, json};
use tare_testkit::{Bundle, Runtime, TempDir, known};

use crate::runtime;

const RUNC: &str = "1.1.5 has no idmapped mounts";

/// A volume with a file of 0:0 and one of 5:7.
fn volume() -> TempDir {
    let volume = TempDir::new("volume");
    for (name, uid, gid) in [("root", 0, 0), ("five", 5, 7)] {
        fs::write(volume.join(name), name).unwrap();
        chown(volume.join(name), Some(uid), Some(gid)).unwrap();
    }
    volume
}

fn maps(host_uid: u32, host_gid: u32) -> (Value, Value) {
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1000}]);
    (map(host_uid), map(host_gid))
}

fn mount(volume: &TempDir, destination: &str, options: &[&str], maps: Option<(Value, Value)>) -> Value {
    let mut mount = json!({"destination": destination, "type": "bind", "source": volume.path(), "options": options});
    if let Some((uids, gids)) = maps {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    mount
}

const OWNERS: &str = "cd /v; stat -c '%n %u:%g' root five";

#[test]
fn the_mappings_of_a_mount_give_its_files_other_owners() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    for option in ["idmap", "ridmap"] {
        let mount = mount(&volume, "/v", &["rbind", option], Some(maps(20_000, 30_000)));
        let script = "touch /v/made && chown 20001:30002 /v/made; cd /v; stat -c '%n %u:%g' root five made";
        let bundle = Bundle::script(script).mount(mount).capabilities(&["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        let output = runtime.run(&bundle);
        // Whose ids are not mapped makes no files: root of the host is nobody on this mount.
        let lines = output.lines().into_iter().take(2).collect::<Vec<_>>();
        assert_eq!(lines, ["root 20000:30000", "five 20005:30007"], "{option}: {output}");
    }
    let owner = fs::metadata(volume.join("five")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (5, 7), "the source is as it was");
}

/// An option of crun's, which podman passes on.
#[test]
fn an_option_may_hold_the_mappings() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let option = "idmap=uids=0-20000-5#5-40000-1;gids=0-30000-1000";
    let bundle = Bundle::script(OWNERS).dir("v").mount(mount(&volume, "/v", &["bind", option], None));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["root 20000:30000", "five 40000:30007"]);
    // Relative to the container: its root is 100000 of the host, which it sees as 0 again.
    let option = "idmap=uids=@0-0-1000;gids=@0-7-1000";
    let bundle = Bundle::script(OWNERS).dir("v").mount(mount(&volume, "/v", &["bind", option], None));
    let output = runtime.run(&bundle.user_namespace(100_000, 65_536)).ok();
    assert_eq!(output.lines(), ["root 0:7", "five 5:14"]);
    if runtime.is_tare() {
        let bundle = Bundle::script(OWNERS).mount(mount(&volume, "/v", &["bind", "idmap=uids=0-0"], None));
        runtime.run(&bundle).fails(&["mounts[7].options: idmap: \"0-0\" is not id-id-count"]);
    }
}

#[test]
fn what_is_made_on_an_idmapped_mount_has_the_sources_ids() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    chown(volume.path(), Some(3), Some(4)).unwrap();
    let bundle = Bundle::script("echo x > /v/made && stat -c %u:%g /v/made").user(20_003, 30_004).mount(mount(
        &volume,
        "/v",
        &["bind", "idmap"],
        Some(maps(20_000, 30_000)),
    ));
    assert_eq!(runtime.run(&bundle).ok().text(), "20003:30004");
    let made = fs::metadata(volume.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (3, 4));
}

#[test]
fn mappings_alone_ask_for_an_idmapped_mount() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let bundle = Bundle::script(OWNERS).dir("v").mount(mount(&volume, "/v", &["bind"], Some(maps(20_000, 30_000))));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["root 20000:30000", "five 20005:30007"]);
}

#[test]
fn the_option_alone_means_the_mappings_of_a_new_user_namespace() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let script = "cd /v; stat -c '%n %u:%g' root five; echo x > made; stat -c %u:%g made";
    let bundle = Bundle::script(script)
        .dir("v")
        .dir("plain")
        .user_namespace(100_000, 65_536)
        .mount(mount(&volume, "/v", &["bind", "idmap"], None))
        .mount(mount(&volume, "/plain", &["bind"], None));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["root 0:0", "five 5:7", "0:0"]);
    let made = fs::metadata(volume.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    let plain = bundle.args(["stat", "-c", "%u:%g", "/plain/root"]);
    assert_eq!(runtime.run(&plain).ok().text(), "65534:65534");
}

#[test]
fn a_mount_in_a_user_namespace_may_have_mappings_of_its_own() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let bundle = Bundle::script(OWNERS).dir("v").user_namespace(100_000, 65_536).mount(mount(
        &volume,
        "/v",
        &["bind", "ridmap"],
        Some(maps(100_010, 100_020)),
    ));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["root 10:20", "five 15:27"]);
}

#[test]
fn the_option_alone_means_the_mappings_of_a_joined_user_namespace() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let first = Bundle::sleeper().user_namespace(100_000, 65_536);
    let first = runtime.container(&first);
    first.up();
    let bundle = Bundle::script(OWNERS)
        .dir("v")
        .join_namespace("user", format!("/proc/{}/ns/user", first.pid()))
        .mount(mount(&volume, "/v", &["bind", "idmap"], None));
    assert_eq!(runtime.run(&bundle).ok().lines(), ["root 0:0", "five 5:7"]);
}

#[test]
fn ridmap_is_for_the_mounts_below_too_and_idmap_is_not() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC, Crun: "1.8.1 leaves the mounts below out with idmap");
    if tare_testkit::host::kernel() < (6, 3) {
        tare_testkit::skip!("a tmpfs can be mounted with other ids since Linux 6.3");
    }
    let volume = volume();
    fs::create_dir(volume.join("below")).unwrap();
    let prepare =
        format!("mount -t tmpfs none {0}/below && touch {0}/below/file && exec \"$@\"", volume.path().display());
    for (option, below) in [("ridmap", "20000:30000"), ("idmap", "0:0")] {
        let mount = mount(&volume, "/v", &["rbind", option], Some(maps(20_000, 30_000)));
        let bundle = Bundle::script("stat -c %u:%g /v/root /v/below/file").mount(mount);
        let container = runtime.container(&bundle);
        let private = "exec unshare --mount --propagation private \"$@\"";
        let output =
            container.verb("run").arg(container.id()).through_shell(&prepare).through_shell(private).run().ok();
        assert_eq!(output.lines(), ["20000:30000", below], "{option}");
    }
}

#[test]
fn several_mounts_each_have_their_own_mappings_and_attributes() {
    let runtime = runtime();
    known!(runtime, Runc: RUNC);
    let volume = volume();
    let mut bundle = Bundle::script("stat -c %u:%g /a/root /b/root /c/root /d/root; touch /b/x || echo no");
    for (destination, options, maps) in [
        ("/a", &["bind", "idmap"][..], Some(maps(20_000, 30_000))),
        ("/b", &["bind", "idmap", "ro"], Some(maps(40_000, 50_000))),
        ("/c", &["bind", "idmap"], Some(maps(20_000, 30_000))),
        ("/d", &["bind"], None),
    ] {
        bundle = bundle.mount(mount(&volume, destination, options, maps));
    }
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["20000:30000", "40000:50000", "20000:30000", "0:0", "no"]);
    assert!(output.stderr.contains("Read-only"), "{output}");
}

#[test]
fn a_file_system_that_cannot_be_idmapped_is_refused_by_the_name_of_the_mount() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 ignores the option");
    let mount = json!({"destination": "/v", "type": "bind", "source": "/proc/sys", "options": ["bind", "idmap"],
        "uidMappings": maps(20_000, 30_000).0, "gidMappings": maps(20_000, 30_000).1});
    let output = runtime.run(&Bundle::script("echo ran").mount(mount)).fails(&[]);
    assert_eq!(output.stdout, "");
    if runtime.is_tare() {
        let wanted = "mount \"/proc/sys\" on \"/v\": mount_setattr(MOUNT_ATTR_IDMAP): the file system does not support \
             idmapped mounts: invalid argument (EINVAL)";
        assert!(output.stderr.contains(wanted), "{output}");
    }
}

#[test]
fn what_cannot_be_mapped_is_refused_by_the_name_of_its_field() {
    let runtime = runtime();
    if !runtime.is_tare() {
        tare_testkit::skip!("the words are ours");
    }
    let volume = volume();
    let table = [
        (mount(&volume, "/v", &["bind", "idmap"], None), "/mounts/7/options/1: needs uidMappings and gidMappings"),
        (
            json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["idmap"],
                "uidMappings": maps(1, 1).0, "gidMappings": maps(1, 1).1}),
            "mounts[7].options: idmap is for bind mounts alone",
        ),
        (
            mount(
                &volume,
                "/v",
                &["bind", "idmap"],
                Some((
                    json!([
                        {"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 5, "hostID": 2000, "size": 10},
                    ]),
                    maps(1, 1).1,
                )),
            ),
            "/mounts/7/uidMappings/1: overlaps with /mounts/7/uidMappings/0",
        ),
    ];
    for (mount, wanted) in table {
        let output = runtime.run(&Bundle::new().mount(mount)).fails(&[]);
        assert!(output.stderr.contains(wanted), "{wanted}: {output}");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
}

#[test]
fn features_announces_idmapped_mounts() {
    let runtime: Runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no such field", Crun: "1.8.1 has no such verb");
    let features = runtime.bare().arg("features").run().ok().json();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.contains(&json!("idmap")) && options.contains(&json!("ridmap")), "{options:?}");
}
