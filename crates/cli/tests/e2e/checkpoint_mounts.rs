//! `checkpoint` and `restore` of what is mounted, and of namespaces, where paths of the image have a say.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;
use tare_testkit::{Bundle, Criu, TempDir, host, known, skip};

use crate::checkpoint::{COUNTER, Saved, count, run, wait_for_count, with_criu};
use crate::runtime;

/// A directory of the host with a file, and another file system below it.
fn source(name: &str) -> TempDir {
    let dir = TempDir::new(name);
    fs::write(dir.join("file"), name).unwrap();
    dir
}

#[test]
fn bind_mounts_come_back_as_the_configuration_has_them() {
    let (runtime, criu) = with_criu!();
    let (writable, readable) = (source("writable"), source("readable"));
    let bundle = Bundle::script(COUNTER)
        .bind(writable.path(), "/rw", &["rbind", "rw"])
        .bind(readable.path(), "/ro", &["rbind", "ro", "nosuid"])
        .bind(readable.join("file"), "/etc/one", &["bind", "ro"])
        .mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/scratch", "options": ["size=1m"]}));
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    container.shell("echo kept > /scratch/kept");
    // Without the numbers, which are the kernel's.
    let mounts = || {
        let text = container.proc("mountinfo");
        let mut lines: Vec<String> =
            text.lines().map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines
    };
    let before = mounts();
    Saved::new(&runtime, &container, criu).there_and_back(&[], &[]);
    if runtime.is_tare() {
        // Now and then CRIU loses a nosuid or a ro, which runc does not notice.
        assert_eq!(mounts(), before);
    }
    assert_eq!(container.shell("cat /rw/file /ro/file /etc/one /scratch/kept"), "writablereadablereadablekept");
    container.shell("echo more > /rw/more");
    assert_eq!(fs::read_to_string(writable.join("more")).unwrap(), "more\n");
    for path in ["/ro/x", "/etc/one"] {
        container.exec(["sh", "-c", &format!("echo x > {path}")]).fails(&["read-only file system"]);
    }
    assert_eq!(container.shell("cat /proc/timer_list; ls /proc/acpi /sys/firmware"), "/proc/acpi:\n\n/sys/firmware:");
}

#[test]
fn what_is_mounted_below_a_bind_mounts_source_comes_back() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "does not know of it");
    let dir = source("tree");
    let below = dir.join("below");
    fs::create_dir(&below).unwrap();
    let below = below.to_str().unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none", below]).status().unwrap().success());
    fs::write(dir.join("below/deep"), "deep").unwrap();
    // Linux 6.3 maps the ids of a tmpfs.
    let maps = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    let (mapped, options) = if host::kernel() >= (6, 3) { (maps, "ridmap") } else { (json!(null), "ro") };
    let bundle = Bundle::script(COUNTER)
        .bind(dir.path(), "/tree", &["rbind", "rw"])
        .mount(json!({"type": "bind", "source": dir.path(), "destination": "/mapped", "options": ["rbind", options],
            "uidMappings": mapped, "gidMappings": mapped}));
    let container = runtime.container(&bundle);
    let result = std::panic::catch_unwind(|| {
        run(&container);
        wait_for_count(&container, 1);
        Saved::new(&runtime, &container, criu).there_and_back(&[], &[]);
        let files = "cat /tree/file /tree/below/deep /mapped/file /mapped/below/deep";
        assert_eq!(container.shell(files), "treedeeptreedeep");
        container.delete_force().ok();
    });
    assert!(Command::new("umount").arg(below).status().unwrap().success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn cve_2026_119101_a_mount_point_with_crius_punctuation_is_refused() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 is from before the fix");
    let dir = source("mine");
    let container_root = |container: &tare_testkit::Container<'_>| container.bundle().join("rootfs");
    for name in ["x]:", "a[b", "new\nline"] {
        let bundle = Bundle::script(COUNTER).bind(dir.path(), "/a", &["bind"]);
        let container = runtime.container(&bundle);
        let root = container_root(&container);
        fs::create_dir_all(root.join(name).join("etc")).unwrap();
        symlink(format!("/{name}/etc"), root.join("a")).unwrap();
        run(&container);
        wait_for_count(&container, 1);
        let saved = Saved::new(&runtime, &container, criu);
        saved.checkpoint(&[]).fails(&["cannot be named to criu"]);
        container.is("running");
        assert_eq!(container.shell(&format!("cat '/{name}/etc/file'")), "mine");
    }
}

#[test]
fn a_mount_point_that_has_become_a_link_is_refused_and_nothing_of_the_host_is_reached() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 is from before the fixes");
    let (dir, outside) = (source("mine"), TempDir::new("outside"));
    let bundle = Bundle::script(COUNTER).bind(dir.path(), "/data/deep", &["bind"]);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let data = container.bundle().join("rootfs/data");
    fs::remove_dir_all(&data).unwrap();
    symlink(outside.path(), &data).unwrap();
    saved.restore(&[]).fails(&["mount point \"/data/deep\""]);
    container.is("none");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // One that is gone is made again.
    fs::remove_file(&data).unwrap();
    saved.explain(saved.restore(&[]), "restore.log").ok();
    assert_eq!(container.shell("cat /data/deep/file"), "mine");
}

#[test]
fn links_that_change_while_it_runs_do_not_move_a_mount() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 is from before the fixes");
    let dir = source("mine");
    let bundle = Bundle::script(COUNTER).bind(dir.path(), "/a", &["bind", "ro"]);
    let container = runtime.container(&bundle);
    let root = container.bundle().join("rootfs");
    fs::create_dir(root.join("real")).unwrap();
    symlink("/real", root.join("a")).unwrap();
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    for target in ["/proc", "/tmp", "/nowhere"] {
        container.shell(&format!("ln -sfn {target} /a"));
        saved.checkpoint(&[]).fails(&["not mounted there any more"]);
        container.is("running");
    }
    container.shell("ln -sfn /real /a");
    saved.there_and_back(&[], &[]);
    assert_eq!(container.shell("cat /real/file"), "mine");
    container.exec(["touch", "/real/x"]).fails(&["read-only"]);
}

#[test]
fn another_configuration_than_the_one_saved_is_refused() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "restores what it is told");
    let dir = source("mine");
    let bundle = Bundle::script(COUNTER).bind(dir.path(), "/a", &["bind", "rw"]);
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    let path = container.bundle().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let edit = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        edit(config["mounts"].as_array_mut().unwrap().last_mut().unwrap());
        fs::write(&path, config.to_string()).unwrap();
    };
    edit(&|mount| mount["options"] = json!(["bind", "ro"]));
    saved.restore(&[]).fails(&["\"/a\" was saved writable"]);
    edit(&|mount| mount["destination"] = json!("/b"));
    saved.restore(&[]).fails(&["\"/b\" is not in the checkpoint"]);
    edit(&|mount| *mount = json!({"destination": "/a", "type": "tmpfs", "source": "tmpfs"}));
    saved.restore(&[]).fails(&["has a bind mount on \"/a\""]);
    container.is("none");
    fs::write(&path, &text).unwrap();
    let description = saved.images.join("tare.json");
    let described = fs::read_to_string(&description).unwrap();
    fs::write(&description, described.replace("\"version\":1", "\"version\":2")).unwrap();
    saved.restore(&[]).fails(&["version 2"]);
    fs::remove_file(&description).unwrap();
    saved.restore(&[]).fails(&["tare.json"]);
    fs::write(&description, described).unwrap();
    saved.explain(saved.restore(&[]), "restore.log").ok();
}

#[test]
fn a_network_namespace_of_somebody_else_is_joined_again() {
    let (runtime, criu) = with_criu!();
    let holder = Bundle::sleeper();
    let holder = runtime.container(&holder);
    run(&holder);
    let bundle = Bundle::script(COUNTER).join_namespace("network", format!("/proc/{}/ns/net", holder.pid()));
    let container = runtime.container(&bundle);
    run(&container);
    wait_for_count(&container, 1);
    assert_eq!(container.link("ns/net"), holder.link("ns/net"));
    Saved::new(&runtime, &container, criu).there_and_back(&[], &[]);
    assert_eq!(container.link("ns/net"), holder.link("ns/net"));
}

#[test]
fn a_container_with_a_user_namespace_comes_back() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 and its devices");
    let bundle = Bundle::script(COUNTER).user_namespace(100_000, 65_536);
    let container = runtime.container(&bundle);
    let chown = format!("chown -h 100000:100000 {0} {0}/*", container.bundle().join("rootfs").display());
    assert!(Command::new("sh").args(["-c", &chown]).status().unwrap().success());
    run(&container);
    wait_for_count(&container, 1);
    let saved = Saved::new(&runtime, &container, criu);
    saved.explain(saved.checkpoint(&[]), "dump.log").ok();
    // CRIU opens some of them as the container's root.
    fs::set_permissions(&saved.images, fs::Permissions::from_mode(0o711)).unwrap();
    let before = count(&container);
    saved.explain(saved.restore(&[]), "restore.log").ok();
    wait_for_count(&container, before);
    assert_eq!(container.proc("uid_map").split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(container.shell("echo x > /dev/null; id -u"), "0");
}

#[test]
fn cgroup2_containers_come_back() {
    let (runtime, criu) = match Criu::find() {
        Ok(criu) => (runtime().on_cgroup2(), criu),
        Err(reason) => skip!("{reason}"),
    };
    known!(
        runtime,
        Crun: "1.8.1 of Debian is built without CRIU",
        Runc: "1.1.5 and 1.5.2 have CRIU restore the limits of others in the v1 hierarchies, which may be gone",
    );
    for private in [true, false] {
        let bundle = Bundle::script(COUNTER);
        let bundle = if private { bundle.namespace("cgroup") } else { bundle.without_namespace("cgroup") };
        let container = runtime.container(&bundle);
        run(&container);
        wait_for_count(&container, 1);
        let before = container.shell("ls /sys/fs/cgroup; grep -x 1 /sys/fs/cgroup/cgroup.procs");
        Saved::new(&runtime, &container, criu).there_and_back(&[], &[]);
        assert_eq!(container.shell("ls /sys/fs/cgroup; grep -x 1 /sys/fs/cgroup/cgroup.procs"), before);
        container.call("pause", &[]).ok();
        container.is("paused");
        container.call("resume", &[]).ok();
    }
}
