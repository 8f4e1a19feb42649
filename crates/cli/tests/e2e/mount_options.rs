//! Every option of a mount, as the kernel shows it inside.

use std::fs;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Kind, Output, Runtime, TempDir, known};

use crate::mountinfo::{Mount, at, inside, parse};
use crate::runtime;

/// Runs in a mount namespace that stands for the host's, after `prepare`.
fn prepared(runtime: &Runtime, bundle: &Bundle, prepare: &str) -> Output {
    let container = runtime.container(bundle);
    let script = format!("set -e; {prepare}; exec \"$@\"");
    let private = "exec unshare --mount --propagation private \"$@\"";
    container.verb("run").arg(container.id()).through_shell(&script).through_shell(private).run()
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

const MOUNTINFO: [&str; 2] = ["cat", "/proc/self/mountinfo"];

/// Whether the options of the mount are these, as for `relatime` the absence of others.
#[track_caller]
fn shows(mount: &Mount, option: &str) {
    let has = |name: &str| mount.options.iter().any(|known| known == name);
    match option {
        "strictatime" => assert!(!has("relatime") && !has("noatime"), "{mount:?}"),
        "suid" | "dev" | "exec" | "diratime" | "symfollow" => assert!(!has(&format!("no{option}")), "{mount:?}"),
        "atime" | "nostrictatime" | "norelatime" => assert!(has("relatime"), "{option}: {mount:?}"),
        _ => assert!(has(option), "{option}: {mount:?}"),
    }
}

#[test]
fn each_flag_is_set_on_binds_and_on_new_file_systems() {
    let runtime = runtime();
    let mut flags = vec![
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "noatime",
        "strictatime",
        "relatime",
        "nodiratime",
    ];
    if runtime.is_tare() {
        flags.extend(["nosymfollow", "symfollow", "diratime", "atime", "nostrictatime", "norelatime"]);
    }
    let source = TempDir::new("source");
    let mut bundle = Bundle::new().args(MOUNTINFO);
    for flag in &flags {
        bundle = bundle
            .bind(source.path(), &format!("/bind-{flag}"), &["bind", flag])
            .mount(tmpfs(&format!("/tmpfs-{flag}"), &[flag]));
    }
    let mounts = parse(&prepared(&runtime, &bundle, "true").ok().stdout);
    for flag in &flags {
        shows(at(&mounts, &format!("/tmpfs-{flag}")), flag);
        shows(at(&mounts, &format!("/bind-{flag}")), flag);
    }
}

#[test]
fn the_opposite_of_a_flag_takes_it_from_the_source_of_a_bind() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 remounts for flags alone, not for their opposites", Crun: "1.8.1 drops all flags of the source");
    let source = TempDir::new("source");
    let prepare = format!("mount -t tmpfs -o ro,nosuid,nodev,noexec,noatime,nodiratime t {}", source.path().display());
    let bundle = Bundle::new()
        .args(MOUNTINFO)
        .bind(source.path(), "/kept", &["bind"])
        .bind(source.path(), "/one", &["bind", "exec"])
        .bind(source.path(), "/all", &["bind", "rw", "suid", "dev", "exec", "relatime", "diratime"]);
    let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
    let all = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    assert_eq!(at(&mounts, "/kept").options, all);
    assert_eq!(at(&mounts, "/one").options, ["ro", "nosuid", "nodev", "noatime", "nodiratime"]);
    assert_eq!(at(&mounts, "/all").options, ["rw", "relatime"]);
}

#[test]
fn recursive_attributes_reach_the_mounts_below_and_plain_ones_do_not() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 gives the kernel a wrong access time mode");
    let source = TempDir::new("source");
    fs::create_dir(source.join("sub")).unwrap();
    let mut flags = vec!["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "strictatime"];
    if runtime.is_tare() {
        flags.push("nosymfollow");
    }
    let mut bundle = Bundle::new().args(MOUNTINFO);
    for flag in &flags {
        bundle = bundle.bind(source.path(), &format!("/r-{flag}"), &["rbind", &format!("r{flag}")]).bind(
            source.path(),
            &format!("/p-{flag}"),
            &["rbind", flag],
        );
    }
    let prepare = format!("mount -t tmpfs t {0}; mkdir {0}/sub; mount -t tmpfs t {0}/sub", source.path().display());
    let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
    for flag in &flags {
        shows(at(&mounts, &format!("/r-{flag}")), flag);
        shows(at(&mounts, &format!("/r-{flag}/sub")), flag);
        shows(at(&mounts, &format!("/p-{flag}")), flag);
        assert_eq!(at(&mounts, &format!("/p-{flag}/sub")).options, ["rw", "relatime"], "{flag}");
    }
}

#[test]
fn recursive_opposites_take_the_flags_from_the_mounts_below() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 gives the kernel a wrong access time mode");
    let source = TempDir::new("source");
    let prepare = format!(
        "mount -t tmpfs t {0}; mkdir {0}/sub; mount -t tmpfs -o ro,nosuid,nodev,noexec,noatime,nodiratime t {0}/sub",
        source.path().display()
    );
    let all = ["rrw", "rsuid", "rdev", "rexec", "rrelatime", "rdiratime"];
    let bundle = Bundle::new()
        .args(MOUNTINFO)
        .bind(source.path(), "/all", &[&["rbind"], &all[..]].concat())
        // The plain form is for the top mount, whatever the recursive one says.
        .bind(source.path(), "/two", &["rbind", "rro", "nosuid"]);
    let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
    assert_eq!(at(&mounts, "/all/sub").options, ["rw", "relatime"]);
    assert_eq!(at(&mounts, "/two").options, ["ro", "nosuid", "relatime"]);
}

#[test]
fn nosymfollow_follows_no_link() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 ignores it on binds");
    let source = TempDir::new("source");
    fs::write(source.join("file"), "read\n").unwrap();
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    for (option, expected) in [("nosymfollow", "read no"), ("rnosymfollow", "read no"), ("symfollow", "read read")] {
        let bundle = Bundle::script("cat /v/file; cat /v/link || echo no").bind(source.path(), "/v", &["bind", option]);
        assert_eq!(runtime.run(&bundle).ok().lines().join(" "), expected, "{option}");
    }
}

#[test]
fn superblock_flags_are_set_and_taken_back() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 gives `defaults` to the file system", Crun: "1.8.1 gives it some of them");
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&["sync"], &["sync"], &[]),
        (&["dirsync"], &["dirsync"], &[]),
        (&["lazytime"], &["lazytime"], &[]),
        (&["sync", "async", "lazytime", "nolazytime"], &[], &["sync", "lazytime"]),
        // What the kernel shows nothing of.
        (&["silent", "loud", "silent", "iversion", "noiversion", "iversion", "mand"], &[], &["sync"]),
        (&["nomand", "mand", "nomand", "defaults", "loud"], &[], &["mand"]),
    ];
    // Made by mount(2), and detached by fsopen(2): a propagation, a read-only one.
    for more in [&[][..], &["rprivate"], &["ro"], &["tmpcopyup"]] {
        let mut bundle = Bundle::new();
        for (index, (options, ..)) in cases.iter().enumerate() {
            bundle = bundle.mount(tmpfs(&format!("/m{index}"), &[options, more].concat()));
        }
        let mounts = inside(&runtime, bundle);
        for (index, (options, present, absent)) in cases.iter().enumerate() {
            let shown = &at(&mounts, &format!("/m{index}")).super_options;
            assert!(present.iter().all(|option| shown.iter().any(|one| one == option)), "{options:?}: {shown:?}");
            assert!(!absent.iter().any(|option| shown.iter().any(|one| one == option)), "{options:?}: {shown:?}");
        }
    }
}

#[test]
fn tmpcopyup_brings_what_the_directory_held() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 leaves tmpfs its 1777");
    let script = "cd /t; cat file sub/inner; readlink link; stat -c %a .; touch new; ls | wc -l";
    for options in [&["tmpcopyup"][..], &["tmpcopyup", "mode=755", "size=1m"]] {
        let bundle = Bundle::script(script)
            .file("t/file", "copied\n")
            .file("t/sub/inner", "too\n")
            .symlink("t/link", "/anywhere")
            .mount(tmpfs("/t", options));
        let output = runtime.run(&bundle).ok();
        assert_eq!(output.lines(), ["copied", "too", "/anywhere", "755", "4"], "{options:?}");
        assert!(!bundle.rootfs().join("t/new").exists());
    }
    if runtime.kind() == Kind::Tare {
        let bundle = Bundle::script("cat /t/file; touch /t/x || echo no")
            .file("t/file", "copied\n")
            .mount(tmpfs("/t", &["tmpcopyup", "ro"]));
        assert_eq!(runtime.run(&bundle).ok().lines(), ["copied", "no"]);
        runtime.run(&Bundle::new().bind("/etc", "/t", &["bind", "tmpcopyup"])).fails(&["tmpcopyup"]);
    }
}

#[test]
fn each_propagation_is_as_asked() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes plain options for recursive ones");
    let source = TempDir::new("source");
    let prepare = format!(
        "mount -t tmpfs t {0}; mkdir {0}/sub; mount -t tmpfs t {0}/sub; mount --make-rshared {0}",
        source.path().display()
    );
    let kinds = ["private", "shared", "slave", "unbindable"];
    let mut bundle = Bundle::new().args(MOUNTINFO).set("/linux/rootfsPropagation", json!("rslave"));
    for kind in kinds {
        bundle = bundle
            .bind(source.path(), &format!("/{kind}"), &["rbind", kind])
            .bind(source.path(), &format!("/r{kind}"), &["rbind", &format!("r{kind}")])
            .mount(tmpfs(&format!("/t-{kind}"), &[kind]));
    }
    let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
    let first =
        |point: &str| at(&mounts, point).propagation.first().map(|tag| tag.split(':').next().unwrap().to_owned());
    for (kind, top) in kinds.into_iter().zip([None, Some("shared"), Some("master"), Some("unbindable")]) {
        let top = top.map(str::to_owned);
        assert_eq!(first(&format!("/{kind}")), top, "{kind}: {mounts:#?}");
        assert_eq!(first(&format!("/r{kind}")), top, "r{kind}");
        assert_eq!(first(&format!("/r{kind}/sub")), top, "r{kind}/sub");
        // The container's namespace is a slave of the host's, and so is what the plain option has left.
        assert_eq!(first(&format!("/{kind}/sub")), Some("master".to_owned()), "{kind}/sub: {mounts:#?}");
        // Of nobody: there is no peer for a new file system.
        assert_eq!(first(&format!("/t-{kind}")), top.filter(|tag| tag != "master"), "tmpfs {kind}");
    }
}

#[test]
fn each_root_propagation_is_as_asked() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 sets it on the old root, before the new one is made", Crun: "1.8.1 makes the root no slave");
    for (asked, root, below) in [
        ("private", None, None),
        ("rprivate", None, None),
        ("slave", Some("master"), None),
        ("rslave", Some("master"), None),
        ("shared", Some("shared"), None),
        ("rshared", Some("shared"), Some("shared")),
        ("unbindable", Some("unbindable"), None),
        ("runbindable", Some("unbindable"), Some("unbindable")),
    ] {
        let bundle = Bundle::new().args(MOUNTINFO).set("/linux/rootfsPropagation", json!(asked));
        let mounts = parse(&prepared(&runtime, &bundle, "mount --make-rshared /").ok().stdout);
        let first = |point| at(&mounts, point).propagation.first().map(|tag| tag.split(':').next().unwrap().to_owned());
        assert_eq!(first("/").as_deref(), root, "{asked}");
        assert_eq!(first("/proc").as_deref(), below, "{asked}");
    }
    runtime.run(&Bundle::new().set("/linux/rootfsPropagation", json!("everywhere"))).fails(&["rootfsPropagation"]);
}

#[test]
fn typed_mounts_take_their_data() {
    let runtime = runtime();
    let dir = TempDir::new("layers");
    for name in ["lower", "upper", "work"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("lower/file"), "from below\n").unwrap();
    let path = dir.path().display();
    let overlay = json!({"destination": "/o", "type": "overlay", "source": "overlay", "options": [
        format!("lowerdir={path}/lower"), format!("upperdir={path}/upper"), format!("workdir={path}/work"), "nodev"]});
    let bundle = Bundle::script("cat /o/file; echo up > /o/file; cat /proc/self/mountinfo")
        .mount(overlay)
        .mount(tmpfs("/t", &["nr_inodes=100", "size=64k", "mode=0700", "uid=5", "gid=6"]))
        .mount(json!({"destination": "/r", "type": "ramfs", "source": "name", "options": ["mode=0711"]}))
        .mount(json!({"destination": "/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0600", "max=7", "noexec"]}));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines()[0], "from below");
    assert_eq!(fs::read_to_string(dir.join("upper/file")).unwrap(), "up\n");
    let mounts = parse(&output.stdout);
    assert!(at(&mounts, "/o").has("nodev") && at(&mounts, "/o").kind == "overlay");
    for option in ["nr_inodes=100", "size=64k", "mode=700", "uid=5", "gid=6"] {
        assert!(at(&mounts, "/t").has(option), "{option}: {:?}", at(&mounts, "/t"));
    }
    assert!(at(&mounts, "/r").has("mode=711"));
    assert!(at(&mounts, "/pts").has("ptmxmode=600") && at(&mounts, "/pts").has("max=7"));
}

#[test]
fn a_remount_changes_what_is_mounted() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 wants a source to be there", Crun: "1.8.1 does too");
    let bind = |options: Value| json!({"destination": "/b", "type": "bind", "source": "/nothing", "options": options});
    let bundle = Bundle::new()
        .mount(tmpfs("/t", &["size=4k", "nosuid"]))
        .mount(tmpfs("/t", &["remount", "size=8k", "ro"]))
        .mount(tmpfs("/b", &["nosuid"]))
        .mount(bind(json!(["bind", "remount", "ro", "noexec"])));
    let mounts = inside(&runtime, bundle);
    assert!(at(&mounts, "/t").has("size=8k") && at(&mounts, "/t").has("ro"), "{:?}", at(&mounts, "/t"));
    assert_eq!(at(&mounts, "/b").options, ["ro", "nosuid", "noexec", "relatime"]);
    assert_eq!(mounts.iter().filter(|mount| ["/t", "/b"].contains(&mount.point.as_str())).count(), 2);
    let nothing = Bundle::new().dir("b").mount(bind(json!(["bind", "remount", "ro"])));
    runtime.run(&nothing).fails(&["remount \"/b\": nothing is mounted there"]);
}

#[test]
fn a_bind_in_a_user_namespace_keeps_the_flags_of_its_source() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 is refused by the kernel: it drops them", Crun: "1.8.1 drops them");
    let source = TempDir::new("source");
    let prepare = format!("mount -t tmpfs -o nosuid,nodev,noexec,noatime,mode=755 t {}", source.path().display());
    let bundle = Bundle::new()
        .args(MOUNTINFO)
        .user_namespace(100_000, 65536)
        .dir("a")
        .dir("b")
        .bind(source.path(), "/a", &["bind"])
        .bind(source.path(), "/b", &["rbind", "ro"]);
    let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
    assert_eq!(at(&mounts, "/a").options, ["rw", "nosuid", "nodev", "noexec", "noatime"]);
    assert_eq!(at(&mounts, "/b").options, ["ro", "nosuid", "nodev", "noexec", "noatime"]);
    if runtime.is_tare() {
        let bundle = bundle.mount(json!({"destination": "/a", "type": "bind", "options": ["bind", "remount", "ro"]}));
        let mounts = parse(&prepared(&runtime, &bundle, &prepare).ok().stdout);
        assert_eq!(at(&mounts, "/a").options, ["ro", "nosuid", "nodev", "noexec", "noatime"]);
    }
}

#[test]
fn a_relative_destination_is_taken_from_the_root() {
    let runtime = runtime();
    let bundle = Bundle::new().mount(tmpfs("made/here", &["nosuid"])).set("/process/cwd", json!("/tmp"));
    assert!(at(&inside(&runtime, bundle), "/made/here").has("nosuid"));
}

#[test]
fn of_two_mounts_on_one_place_the_later_is_on_top() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::write(source.join("file"), "second\n").unwrap();
    let bundle = Bundle::script("cat /v/file; cat /proc/self/mountinfo")
        .dir("v")
        .mount(tmpfs("/v", &["noexec"]))
        .bind(source.path(), "/v", &["bind"])
        .mount(tmpfs("/w", &[]))
        .bind(source.path(), "//w/./", &["bind"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines()[0], "second");
    let mounts = parse(&output.stdout);
    assert_eq!(mounts.iter().filter(|mount| mount.point == "/v").count(), 2);
    assert_ne!(at(&mounts, "/v").kind, "tmpfs");
    assert_ne!(at(&mounts, "/w").kind, "tmpfs");
}

#[test]
fn a_later_mount_covers_what_an_earlier_one_made() {
    let runtime = runtime();
    let source = TempDir::new("source");
    let bundle = Bundle::script("ls /a; ls /a/b 2>/dev/null || echo covered").mount(tmpfs("/a/b/c", &[])).bind(
        source.path(),
        "/a",
        &["bind"],
    );
    assert_eq!(runtime.run(&bundle).ok().text(), "covered");
}

#[test]
fn an_option_of_a_file_system_has_no_effect_on_a_bind() {
    let runtime = runtime();
    let source = TempDir::new("source");
    let bundle = Bundle::script("ls -d /v").bind(source.path(), "/v", &["bind", "mode=700"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.text(), "/v");
    if runtime.is_tare() {
        // Said only in the log of --debug: clients take a line on stderr for an error.
        assert_eq!(output.stderr, "");
    }
}
