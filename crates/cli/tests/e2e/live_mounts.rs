//! `mounts add` and `mounts remove`: mounts of a container that runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tare_testkit::{Bundle, Container, Output, TempDir, known};

/// The runtime, if it has the verb.
macro_rules! with_mounts {
    () => {{
        let runtime = crate::runtime();
        known!(runtime, Runc: "has no such verb", Crun: "1.8.1 has no such verb");
        runtime
    }};
}

/// `mounts ACTION ID FILE`, with the file in `dir`.
fn mounts(container: &Container<'_>, dir: &TempDir, action: &str, document: &Value) -> Output {
    let file = dir.join("mounts.json");
    fs::write(&file, document.to_string()).unwrap();
    container.verb("mounts").args([action, container.id()]).arg(&file).run()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"type": "bind", "source": source, "destination": destination, "options": options})
}

/// A directory with a file in it that says `host`.
fn source() -> (TempDir, PathBuf) {
    let dir = TempDir::new("source");
    let path = dir.join("data");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "host\n").unwrap();
    (dir, path)
}

#[test]
fn mounts_are_added_and_removed_while_the_container_runs() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let list = json!([
        bind(&data, "/new/dir", &["bind", "ro"]),
        bind(&data.join("file"), "/new/file", &["bind"]),
        {"type": "tmpfs", "source": "tmpfs", "destination": "/mnt", "options": ["nosuid", "mode=700", "ro"]},
    ]);
    let output = mounts(&container, &dir, "add", &list).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!(container.shell("cat /new/dir/file /new/file; stat -c %a /mnt"), "host\nhost\n700");
    for place in ["/new/dir/x", "/mnt/x"] {
        container.exec(["touch", place]).fails(&["read-only file system"]);
    }
    container.shell("echo changed > /new/file");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "changed\n");
    // On the host there is nothing but the place.
    assert!(!bundle.rootfs().join("new/dir/file").exists());
    assert_eq!(fs::read_to_string(bundle.rootfs().join("new/file")).unwrap(), "");

    mounts(&container, &dir, "remove", &json!({"mounts": list})).ok();
    assert_eq!(container.shell("ls /new/dir; cat /new/file; grep -c -e /new -e /mnt /proc/mounts; true"), "0");
    let again = mounts(&container, &dir, "remove", &json!([{"destination": "/mnt"}]));
    again.fails(&["unmount \"/mnt\": nothing is mounted there"]);
    container.is("running");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "changed\n");
}

#[test]
fn mounts_are_added_in_a_user_namespace() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let bundle = Bundle::sleeper().user_namespace(100_000, 65536);
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let container = runtime.container(&bundle);
    container.up();
    let list = json!([
        bind(&data, "/made", &["rbind", "ro"]),
        {"type": "tmpfs", "destination": "/tmp", "options": ["mode=1777"]},
    ]);
    mounts(&container, &dir, "add", &list).ok();
    assert_eq!(container.shell("cat /made/file; touch /tmp/x && stat -c %u /tmp/x"), "host\n0");
    // The place was made by the container's root, not by the host's.
    let metadata = fs::metadata(bundle.rootfs().join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 100_000);
    mounts(&container, &dir, "remove", &list).ok();
    assert_eq!(container.shell("ls /made; ls /tmp"), "");
}

#[test]
fn a_created_or_paused_container_takes_mounts_and_a_stopped_one_does_not() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let bundle = Bundle::script("trap 'exit 0' TERM; cat /made/file; sleep 1000 & wait");
    let container = runtime.container(&bundle);
    let create = container.verb("create").arg(container.id()).spawn();
    container.wait_for("created");
    mounts(&container, &dir, "add", &json!([bind(&data, "/made", &["bind"])])).ok();
    container.start().ok();
    tare_testkit::wait_until("it has read", || create.stdout_so_far() == "host\n");
    create.wait().ok();
    container.call("pause", &[]).ok();
    mounts(&container, &dir, "add", &json!([bind(&data, "/more", &["bind"])])).ok();
    container.call("resume", &[]).ok();
    assert_eq!(container.shell("cat /more/file"), "host");
    container.kill("KILL").ok();
    container.wait_for("stopped");
    mounts(&container, &dir, "add", &json!([bind(&data, "/late", &["bind"])])).fails(&["container not running"]);
    mounts(&container, &dir, "remove", &json!([{"destination": "/made"}])).fails(&["container not running"]);
}

/// The container's links lead no mount to the host.
#[test]
fn links_of_the_container_stay_inside() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let outside = TempDir::new("outside");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let target = outside.path().to_str().unwrap();
    container
        .shell(&format!("ln -s {target} /absolute; ln -s ../../../../../..{target} /up; ln -s /proc/1/root /magic"));
    for link in ["/absolute", "/up"] {
        mounts(&container, &dir, "add", &json!([bind(&data, link, &["bind"])])).ok();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{link}");
        assert_eq!(container.shell(&format!("cat {target}/file")), "host", "{link}");
        mounts(&container, &dir, "remove", &json!([{"destination": target}])).ok();
    }
    mounts(&container, &dir, "add", &json!([bind(&data, "/magic/x", &["bind"])])).fails(&["/magic/x"]);
    for (place, words) in
        [("/", "root itself"), ("/proc/sys", "/proc"), ("/proc/1", "/proc"), ("/dev/../proc/self", "/proc")]
    {
        mounts(&container, &dir, "add", &json!([bind(&data, place, &["bind"])])).fails(&[words]);
    }
    mounts(&container, &dir, "remove", &json!([{"destination": "/"}])).fails(&["root itself"]);
}

#[test]
fn of_several_mounts_all_are_added_or_none() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let before = container.proc("mountinfo");
    for (bad, words) in [
        (bind(&data, "/bin/busybox/x", &["bind"]), "not a directory"),
        (bind(Path::new("/no/such/source"), "/b", &["bind"]), "no such file"),
        (json!({"type": "mqueue", "source": "mqueue", "destination": "/b"}), "mounts[1]: only bind mounts and tmpfs"),
        (json!({"type": "cgroup", "source": "cgroup", "destination": "/b"}), "mounts[1]: cgroup"),
    ] {
        mounts(&container, &dir, "add", &json!([bind(&data, "/a", &["bind"]), bad])).fails(&[words]);
        assert_eq!(container.proc("mountinfo"), before, "{words}");
    }
    let file = dir.join("mounts.json");
    for text in ["", "{}", "[{}]", "{\"mounts\": 1}", "null"] {
        fs::write(&file, text).unwrap();
        container.verb("mounts").args(["add", container.id()]).arg(&file).run().fails(&["mounts.json"]);
    }
    container.verb("mounts").args(["replace", container.id()]).arg(&file).run().fails(&["add or remove"]);
    container.verb("mounts").args(["add", "nobody"]).arg(&file).run().fails(&[]);
}

#[test]
fn without_a_mount_namespace_of_its_own_the_hosts_mounts_are_left_alone() {
    let runtime = with_mounts!();
    let (dir, data) = source();
    let bundle = Bundle::sleeper().without_namespace("mount").edit(|config| {
        config["mounts"] = json!([]);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    let container = runtime.container(&bundle);
    container.up();
    let output = mounts(&container, &dir, "add", &json!([bind(&data, "/a", &["bind"])]));
    output.fails(&["no mount namespace of its own"]);
}
