//! A hostile rootfs: nothing of the host is made, changed or shown. The advisories are listed in SECURITY.md.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, Kind, TempDir, known, skip};

use crate::runtime;

/// open(2)'s, on all architectures.
const O_PATH: i32 = 0o10_000_000;

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// CVE-2015-3629, CVE-2019-18837: a mount's destination leads out of the rootfs by a link.
#[test]
fn cve_2019_18837_mount_destinations_do_not_leave_the_rootfs() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    let file = TempDir::new("file");
    fs::write(file.join("f"), "").unwrap();
    let tmpfs = json!({"destination": "/vol/new/dir", "type": "tmpfs", "source": "t"});
    let bundles = [
        Bundle::new().mount(tmpfs),
        Bundle::new().bind(file.join("f"), "/vol/newfile", &["bind"]),
        Bundle::new().set("/linux/devices", json!([{"path": "/vol/newdev", "type": "c", "major": 1, "minor": 3}])),
        Bundle::new().set("/process/cwd", json!("/vol/newcwd")),
    ];
    for bundle in bundles {
        let bundle = bundle.symlink("vol", outside.path());
        // Whether it runs (the link is followed inside) or is refused does not matter here.
        let _ = runtime.run(&bundle);
        assert_eq!(names(outside.path()), [""; 0]);
    }
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

/// CVE-2026-41579, CVE-2026-47766: the image's /dev is a link to a directory of the host.
#[test]
fn cve_2026_41579_a_linked_dev_changes_nothing_outside() {
    let runtime = runtime();
    known!(runtime, Runc: "CVE-2026-41579", Crun: "CVE-2026-47766");
    let outside = TempDir::new("outside");
    fs::write(outside.join("ptmx"), "regular").unwrap();
    let bundle = Bundle::new().symlink("dev", outside.path()).edit(without_dev_mounts);
    let _ = runtime.run(&bundle);
    assert_eq!(names(outside.path()), ["ptmx"]);
    assert_eq!(fs::read_to_string(outside.join("ptmx")).unwrap(), "regular");
}

/// CVE-2026-88264: /dev/console of the image is a link to a file of the host that is not there.
#[test]
fn cve_2026_88264_a_linked_console_makes_nothing_outside() {
    let runtime = runtime();
    known!(runtime, Crun: "CVE-2026-88264");
    let outside = TempDir::new("outside");
    let bundle = Bundle::new().terminal().edit(without_dev_mounts).symlink("dev/console", outside.join("made"));
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    let _ = container.call("create", &["--console-socket", socket.path()]);
    assert_eq!(names(outside.path()), [""; 0]);
}

/// CVE-2025-31133: a mask of a file binds the /dev/null that an image brings.
#[test]
fn cve_2025_31133_a_mask_never_shows_what_the_images_dev_null_is() {
    let runtime = runtime();
    known!(runtime, Runc: "CVE-2025-31133");
    let dev = TempDir::new("dev");
    std::os::unix::fs::symlink("/evil", dev.join("null")).unwrap();
    let bundle = Bundle::script("cat /target; echo x >> /evil")
        .file("evil", "evil")
        .file("target", "plain")
        .edit(without_dev_mounts)
        .bind(dev.path(), "/dev", &["rbind"])
        .set("/linux/maskedPaths", json!(["/target"]));
    let output = runtime.run(&bundle);
    assert!(!output.stdout.contains("evil") && !output.stdout.contains("plain"), "{output}");
}

/// CVE-2026-88265: stdio that is /dev/null is told by its device number alone, and a file of the host chowned.
#[test]
fn cve_2026_88265_a_linked_dev_null_is_not_chowned_or_written() {
    let runtime = runtime();
    known!(runtime, Runc: "the flaw came out with CVE-2025-31133");
    if runtime.kind() == Kind::Crun {
        skip!("crun 1.8.1 gives the host's /dev/null away when it is stdio");
    }
    let outside = TempDir::new("outside");
    fs::write(outside.join("precious"), "precious").unwrap();
    let bundle = Bundle::script("echo written; echo written >&2; cat >/dev/null")
        .edit(without_dev_mounts)
        .bind(outside.path(), "/vol", &["bind"])
        .symlink("dev/null", "/vol/precious")
        .user(1000, 1000);
    let container = runtime.container(&bundle);
    let _ = container.verb("run").arg(container.id()).through_shell("exec \"$@\" >/dev/null 2>/dev/null").run();
    let metadata = fs::metadata(outside.join("precious")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "precious");
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
    let container = runtime.container(&bundle);
    container.verb("run").arg(container.id()).through_shell("exec \"$@\" >/dev/null 2>/dev/null").run().ok();
    let after = fs::metadata("/dev/null").unwrap();
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

/// CVE-2019-16884: something on /proc hides where labels and sysctls are written.
#[test]
fn cve_2019_16884_mounts_on_and_below_proc_are_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "tolerates them, and writes through a procfs of its own (security.md 1 D)");
    let source = TempDir::new("source");
    for destination in ["/proc", "/proc/sys/kernel", "/proc/self/status"] {
        let bundle = Bundle::script("echo ran").bind(source.path(), destination, &["bind"]);
        let output = runtime.run(&bundle).fails(&["proc"]);
        assert_eq!(output.stdout, "");
    }
}

/// The same, by a tmpfs.
#[test]
fn cve_2019_16884_a_tmpfs_below_proc_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 lets it through (security.md 1 D)", Crun: "tolerates it");
    let mount = json!({"destination": "/proc/self/attr", "type": "tmpfs", "source": "t"});
    let output = runtime.run(&Bundle::script("echo ran").mount(mount)).fails(&["proc"]);
    assert_eq!(output.stdout, "");
}

/// CVE-2026-115521: read-only remounts that go through the image's /proc/self/fd miss.
#[test]
fn cve_2026_115521_a_rootfs_with_a_fake_proc_is_still_read_only() {
    let runtime = runtime();
    let mut bundle = Bundle::script("touch /x && echo written; true").readonly().dir("decoy").dir("proc/self/fd");
    for fd in 3..60 {
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

/// CVE-2016-3697: a numeric user is never looked up as a name.
#[test]
fn cve_2016_3697_a_numeric_user_is_a_number() {
    let runtime = runtime();
    let bundle = Bundle::script("id -u; id -g").user(1000, 1000).file("etc/passwd", "1000:x:0:0::/:/bin/sh\n");
    assert_eq!(runtime.run(&bundle).ok().lines(), ["1000", "1000"]);
}

/// CVE-2015-3627: a file of the image that is a link is read on the host.
#[test]
fn cve_2015_3627_home_does_not_come_from_the_hosts_passwd() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    fs::write(outside.join("passwd"), "root:x:0:0::/stolen:/bin/sh\n").unwrap();
    let bundle = Bundle::script("echo $HOME").symlink("etc/passwd2", outside.join("passwd"));
    fs::remove_file(bundle.rootfs().join("etc/passwd")).unwrap();
    fs::rename(bundle.rootfs().join("etc/passwd2"), bundle.rootfs().join("etc/passwd")).unwrap();
    let output = runtime.run(&bundle).ok();
    assert!(!output.stdout.contains("stolen"), "{output}");
}

/// CVE-2019-5736: the runtime's program cannot be written to from inside.
#[test]
fn cve_2019_5736_the_runtime_cannot_be_run_or_written_by_proc_self_exe() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["/proc/self/exe"]);
    let _ = runtime.run(&bundle);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    let program = which(&runtime.raw().run().to_string()).expect("the runtime's program");
    let before = (fs::metadata(&program).unwrap().modified().unwrap(), fs::read(&program).unwrap());
    let exe = format!("/proc/{}/exe", container.pid());
    let held = fs::OpenOptions::new().read(true).custom_flags(O_PATH).open(&exe).unwrap();
    container.kill("KILL").ok();
    container.wait_for("stopped");
    // No ETXTBSY guards it now: it must be another file, or one that cannot be written to.
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
        let (own, init) = (fs::metadata(&program).unwrap(), file.metadata().unwrap());
        assert!((own.dev(), own.ino()) != (init.dev(), init.ino()), "the host's binary can be written to");
    }
    assert!(before == (fs::metadata(&program).unwrap().modified().unwrap(), fs::read(&program).unwrap()));
}

/// CVE-2024-21626: fds of the caller, and a cwd that goes through one.
#[test]
fn cve_2024_21626_no_cwd_leads_to_the_host_through_an_fd() {
    let runtime = runtime();
    known!(runtime, Crun: "fd 9 of the caller leads out (security.md 1 A)");
    for fd in 3..13 {
        let bundle =
            Bundle::script("pwd; ls -d usr/share/doc").set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let container = runtime.container(&bundle);
        let output = container.verb("run").arg(container.id()).through_shell("exec \"$@\" 9</ 8</etc").run();
        assert!(!output.stdout.contains("usr/share/doc"), "fd {fd}: {output}");
    }
}

/// CVE-2025-23266: a hook in the container's mount namespace must not see the container's environment.
#[test]
fn cve_2025_23266_hooks_do_not_get_the_images_environment() {
    let runtime = runtime();
    let dir = TempDir::new("hook");
    let script = format!("env > {}", dir.join("env").display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let bundle = Bundle::new().env("LD_PRELOAD=/evil.so").hook("createContainer", hook);
    known!(runtime, Runc: "1.1.5 passes it (security.md 1 H)");
    runtime.run(&bundle);
    assert!(!fs::read_to_string(dir.join("env")).unwrap().contains("LD_PRELOAD"));
}

fn without_dev_mounts(config: &mut serde_json::Value) {
    let keep = |mount: &serde_json::Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
    config["mounts"].as_array_mut().unwrap().retain(keep);
}

/// The program's path, from the first word of a report.
fn which(report: &str) -> Option<PathBuf> {
    let program = PathBuf::from(report.split(' ').next()?);
    if program.is_absolute() {
        return Some(program);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&program)).find(|path| path.is_file())
}
