//! Mounts: types, flags, binds, propagation.

use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, Kind, TempDir, host, known, skip};

use crate::mountinfo::{at, inside, parse};
use crate::runtime;

#[test]
fn the_default_mounts_have_their_types_and_flags() {
    let runtime = runtime();
    let mounts = inside(&runtime, Bundle::new());
    let expected: [(&str, &str, &[&str]); 6] = [
        ("/proc", "proc", &["rw"]),
        ("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "ptmxmode=666", "mode=620", "gid=5"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ];
    for (point, kind, options) in expected {
        let mount = at(&mounts, point);
        assert_eq!(mount.kind, kind, "{point}");
        for option in options {
            assert!(mount.has(option), "{option} of {mount:?}");
        }
    }
    // strictatime: no relatime, no noatime.
    assert!(!at(&mounts, "/dev").has("relatime") && !at(&mounts, "/dev").has("noatime"));
    assert!(!at(&mounts, "/proc").has("ro"));
}

#[test]
fn the_default_cgroup_mount_is_read_only_and_shows_the_containers_own() {
    let runtime = runtime();
    if host::cgroup_mode() != host::CgroupMode::Hybrid {
        skip!("needs v1 hierarchies");
    }
    let mounts = inside(&runtime, Bundle::new());
    for controller in ["pids", "memory", "freezer"] {
        let mount = at(&mounts, &format!("/sys/fs/cgroup/{controller}"));
        assert_eq!(mount.kind, "cgroup");
        assert!(mount.options.contains(&"ro".to_owned()), "{mount:?}");
        assert!(mount.root.contains(runtime.tag()), "{mount:?}");
    }
    let output = runtime
        .run(&Bundle::script("mkdir /sys/fs/cgroup/pids/x || echo no; cat /sys/fs/cgroup/pids/cgroup.procs"))
        .ok();
    assert_eq!(output.lines()[..2], ["no", "1"]);
}

#[test]
fn in_a_cgroup_namespace_the_cgroup_mount_has_the_containers_own_as_its_root() {
    let runtime = runtime();
    if host::cgroup_mode() != host::CgroupMode::Hybrid {
        skip!("needs v1 hierarchies");
    }
    let script =
        "cat /proc/self/mountinfo; echo; mkdir /sys/fs/cgroup/pids/x || echo no; cat /sys/fs/cgroup/pids/cgroup.procs";
    let output = runtime.run(&Bundle::script(script).namespace("cgroup")).ok();
    let (mounts, after) = output.stdout.split_once("\n\n").unwrap();
    for controller in ["pids", "memory", "freezer"] {
        let line = mounts.lines().find(|line| line.contains(&format!(" /sys/fs/cgroup/{controller} "))).unwrap();
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!(fields[3], "/", "{line}");
        assert!(fields[5].starts_with("ro,"), "{line}");
        assert!(line.contains(" - cgroup "), "{line}");
    }
    assert_eq!(after.lines().collect::<Vec<_>>()[..2], ["no", "1"]);
}

#[test]
fn mounts_are_made_in_order() {
    let runtime = runtime();
    let bundle = Bundle::script("ls /m /m/inner")
        .dir("below")
        .mount(json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}))
        .mount(json!({"destination": "/m/inner", "type": "tmpfs", "source": "tmpfs"}))
        .mount(json!({"destination": "/m/inner/most", "type": "tmpfs", "source": "tmpfs"}));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), ["/m:", "inner", "/m/inner:", "most"]);
}

#[test]
fn a_bind_mount_shows_the_source_and_writes_reach_it() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::write(source.join("file"), "from the host\n").unwrap();
    for options in [&["bind"][..], &["rbind", "rw"]] {
        let bundle = Bundle::script("cat /v/file; echo back > /v/written").bind(source.path(), "/v", options);
        assert_eq!(runtime.run(&bundle).ok().text(), "from the host");
        assert_eq!(fs::read_to_string(source.join("written")).unwrap(), "back\n");
        fs::remove_file(source.join("written")).unwrap();
    }
}

#[test]
fn a_read_only_bind_mount_refuses_writes() {
    let runtime = runtime();
    let source = TempDir::new("source");
    for options in [&["bind", "ro"][..], &["rbind", "ro"]] {
        let bundle = Bundle::script("touch /v/x || echo no").bind(source.path(), "/v", options);
        assert_eq!(runtime.run(&bundle).ok().text(), "no");
        assert!(!source.join("x").exists());
    }
}

#[test]
fn bind_mount_flags_are_set() {
    let runtime = runtime();
    let source = TempDir::new("source");
    let bundle = Bundle::new().bind(source.path(), "/v", &["rbind", "nosuid", "nodev", "noexec", "noatime"]);
    let mounts = inside(&runtime, bundle);
    for option in ["nosuid", "nodev", "noexec", "noatime"] {
        assert!(at(&mounts, "/v").has(option), "{option}: {:?}", at(&mounts, "/v"));
    }
}

#[test]
fn a_file_can_be_bound_on_a_path_that_is_made() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::write(source.join("file"), "a file\n").unwrap();
    let bundle = Bundle::script("cat /etc/new/file; echo x > /etc/new/file || echo no").bind(
        source.join("file"),
        "/etc/new/file",
        &["bind", "ro"],
    );
    assert_eq!(runtime.run(&bundle).ok().lines(), ["a file", "no"]);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "a file\n");
}

#[test]
fn a_bind_option_makes_a_bind_whatever_the_type_says() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::write(source.join("file"), "bound\n").unwrap();
    let mount = json!({"destination": "/v", "type": "none", "source": source.path(), "options": ["rbind"]});
    assert_eq!(runtime.run(&Bundle::script("cat /v/file").mount(mount)).ok().text(), "bound");
}

#[test]
fn a_relative_bind_source_is_the_bundles() {
    let runtime = runtime();
    let bundle = Bundle::script("cat /v/file").bind("data", "/v", &["rbind"]);
    fs::create_dir(bundle.path().join("data")).unwrap();
    fs::write(bundle.path().join("data/file"), "beside config.json\n").unwrap();
    assert_eq!(runtime.run(&bundle).ok().text(), "beside config.json");
}

#[test]
fn a_missing_bind_source_is_refused_by_name() {
    let runtime = runtime();
    let bundle = Bundle::new().bind("/nonexistent/source", "/v", &["bind"]);
    runtime.run(&bundle).fails(&["/nonexistent/source"]);
}

#[test]
fn rbind_takes_the_mounts_below_and_bind_does_not() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::create_dir(source.join("inner")).unwrap();
    let prepare = format!("mount -t tmpfs none {0} && touch {0}/seen && exec \"$@\"", source.join("inner").display());
    for (option, expected) in [("rbind", "seen"), ("bind", "")] {
        let bundle = Bundle::script("ls /v/inner").bind(source.path(), "/v", &[option]);
        let container = runtime.container(&bundle);
        let output =
            container.verb("run").arg(container.id()).through_shell(&prepare).through_shell(PRIVATE).run().ok();
        assert_eq!(output.text(), expected, "{option}");
    }
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    let runtime = runtime();
    let mount = |options| json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options});
    let bundle = Bundle::script(
        "stat -c %a /t; \
         df -k /t | tail -n 1",
    )
    .mount(mount(json!(["size=2048k", "mode=1750"])));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines()[0], "1750");
    assert_eq!(output.lines()[1].split_whitespace().nth(1), Some("2048"));
    let too_much =
        Bundle::script("dd if=/dev/zero of=/t/x bs=1k count=3000 2>/dev/null").mount(mount(json!(["size=1m"])));
    runtime.run(&too_much).exits(1);
}

#[test]
fn a_tmpfs_over_a_directory_takes_its_mode() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 leaves tmpfs its 1777");
    let bundle =
        Bundle::script("stat -c %a /t").dir("t").mount(json!({"destination": "/t", "type": "tmpfs", "source": "t"}));
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.rootfs().join("t"), fs::Permissions::from_mode(0o710)).unwrap();
    assert_eq!(runtime.run(&bundle).ok().text(), "710");
}

#[test]
fn a_read_only_tmpfs_is_read_only() {
    let runtime = runtime();
    let mount = json!({"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro"]});
    assert_eq!(runtime.run(&Bundle::script("touch /t/x || echo no").mount(mount)).ok().text(), "no");
}

#[test]
fn an_unknown_file_system_type_is_refused() {
    let runtime = runtime();
    let mount = json!({"destination": "/t", "type": "nosuchfs", "source": "t"});
    runtime.run(&Bundle::new().mount(mount)).fails(&["no such device", "nosuchfs", "ENODEV"]);
}

#[test]
fn a_symlinked_destination_stays_inside() {
    let runtime = runtime();
    let source = TempDir::new("source");
    fs::write(source.join("file"), "bound\n").unwrap();
    for target in ["/real", "real", "../../../real"] {
        let bundle = Bundle::script("cat /real/file").dir("real").symlink("link", target).bind(
            source.path(),
            "/link",
            &["bind"],
        );
        assert_eq!(runtime.run(&bundle).ok().text(), "bound", "{target}");
    }
    let bundle = Bundle::script("cat /real/sub/file").dir("real").symlink("link", "/real").bind(
        source.path(),
        "/link/sub",
        &["bind"],
    );
    assert_eq!(runtime.run(&bundle).ok().text(), "bound");
    assert!(bundle.rootfs().join("real/sub").is_dir());
}

#[test]
fn a_dangling_destination_is_made_inside() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 cannot make what a link names");
    let host_dir = TempDir::new("host");
    let target = host_dir.join("new");
    let bundle = Bundle::script(&format!("cat {}/file", target.display()))
        .symlink("link", &target)
        .bind("/etc", "/unused", &["bind", "ro"])
        .mount(json!({"destination": "/link", "type": "tmpfs", "source": "t"}))
        .args(["sh", "-c", "touch /link/file && ls /link/"]);
    assert_eq!(runtime.run(&bundle).ok().text(), "file");
    assert!(!target.exists(), "made on the host");
}

#[test]
fn a_destination_with_dots_stays_inside() {
    let runtime = runtime();
    let mount = json!({"destination": "/../../../../t/../u", "type": "tmpfs", "source": "t"});
    let mounts = inside(&runtime, Bundle::new().dir("t").mount(mount));
    assert_eq!(at(&mounts, "/u").kind, "tmpfs");
}

#[test]
fn root_propagation_is_as_asked() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 sets it on the old root, before the new one is made");
    for (asked, expected) in [("shared", "shared:"), ("private", ""), ("unbindable", "unbindable")] {
        let mounts = inside(&runtime, Bundle::new().set("/linux/rootfsPropagation", json!(asked)));
        let tags = &at(&mounts, "/").propagation;
        let found = tags.iter().any(|tag| tag.starts_with(expected));
        assert!(if expected.is_empty() { tags.is_empty() } else { found }, "{asked}: {tags:?}");
    }
}

#[test]
fn a_slave_bind_gets_the_hosts_later_mounts_and_a_private_one_does_not() {
    for (option, expected) in [("rslave", "seen"), ("rshared", "seen"), ("rprivate", "")] {
        let runtime = runtime();
        let volume = TempDir::new("volume");
        let script = "touch /v/ready; i=0; until [ -e /v/done ]; do i=$((i+1)); [ $i -lt 500 ] || exit 1; \
             sleep 0.02; done; ls /v/sub";
        let bundle = Bundle::script(script)
            .bind(volume.path(), "/v", &["rbind", option])
            .set("/linux/rootfsPropagation", json!("rslave"));
        let prepare = format!(
            "set -e; D={}; mount -t tmpfs none $D; mount --make-shared $D; mkdir $D/sub; \"$@\" & \
             i=0; until [ -e $D/ready ]; do i=$((i+1)); [ $i -lt 500 ] || exit 1; sleep 0.02; done; \
             mount -t tmpfs none $D/sub; touch $D/sub/seen $D/done; wait $!",
            volume.path().display()
        );
        let container = runtime.container(&bundle);
        let output =
            container.verb("run").arg(container.id()).through_shell(&prepare).through_shell(PRIVATE).run().ok();
        assert_eq!(output.text(), expected, "{option}");
    }
}

#[test]
fn mounts_made_inside_reach_the_host_through_a_shared_bind_alone() {
    for (option, expected) in [("rshared", "seen"), ("rslave", "")] {
        let runtime = runtime();
        if runtime.kind() == Kind::Crun {
            skip!("crun runs in a mount namespace of its own here");
        }
        let volume = TempDir::new("volume");
        let script = "mount -t tmpfs none /v/sub && touch /v/sub/seen";
        let bundle = Bundle::script(script)
            .bind(volume.path(), "/v", &["rbind", option])
            .capabilities(&["CAP_SYS_ADMIN"])
            .set("/linux/rootfsPropagation", json!("shared"));
        let prepare = format!(
            "set -e; D={}; mount -t tmpfs none $D; mount --make-shared $D; mkdir $D/sub; \"$@\"; ls $D/sub",
            volume.path().display()
        );
        let container = runtime.container(&bundle);
        let output =
            container.verb("run").arg(container.id()).through_shell(&prepare).through_shell(PRIVATE).run().ok();
        assert_eq!(output.text(), expected, "{option}");
    }
}

#[test]
fn nothing_is_mounted_on_the_host_while_it_runs() {
    let runtime = runtime();
    let source = TempDir::new("source");
    let bundle = Bundle::sleeper().bind(source.path(), "/v", &["rbind"]);
    let container = runtime.container(&bundle);
    container.up();
    let host = parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
    let bundle_path = bundle.path().to_str().unwrap();
    assert!(host.iter().all(|mount| !mount.point.starts_with(bundle_path)), "{host:#?}");
}

#[test]
fn a_mount_namespace_of_a_runtime_that_is_shared_stays_as_it_is() {
    let runtime = runtime();
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    let prepare = "mount --make-rshared / ; cut -d' ' -f5- /proc/self/mountinfo > /tmp/before.$$; \"$@\"; code=$?; \
         cut -d' ' -f5- /proc/self/mountinfo | diff /tmp/before.$$ - ; rm /tmp/before.$$; exit $code";
    let output = container.verb("run").arg(container.id()).through_shell(prepare).through_shell(PRIVATE).run().ok();
    assert_eq!(output.stdout, "");
}

/// A mount namespace for what must not happen on the host.
const PRIVATE: &str = "exec unshare --mount --propagation private \"$@\"";
