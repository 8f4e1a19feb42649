//! Class: a path inside the rootfs is resolved on the host, before pivot_root.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, TempDir, known};

use super::{names, without_dev_mounts};
use crate::runtime;

/// CVE-2015-3629: a mount's destination is below a link of the image, so that it is made on the host.
#[test]
fn cve_2015_3629_mount_destinations_below_a_link_are_not_made_on_the_host() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    let tmpfs = json!({"destination": "/vol/new/dir", "type": "tmpfs", "source": "t"});
    let bundles = [
        Bundle::new().mount(tmpfs),
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

/// CVE-2019-18837: the last component of a mount's destination is a link, a dangling one too.
#[test]
fn cve_2019_18837_a_destination_that_is_a_link_is_not_made_on_the_host() {
    let runtime = runtime();
    let (outside, file) = (TempDir::new("outside"), TempDir::new("file"));
    fs::write(file.join("f"), "").unwrap();
    for target in [outside.join("missing"), outside.path().to_owned()] {
        let mounts = [
            Bundle::new().bind(file.join("f"), "/vol", &["bind"]),
            Bundle::new().bind(file.path(), "/vol", &["bind"]),
            Bundle::new().bind(file.join("f"), "/vol/newfile", &["bind"]),
        ];
        for bundle in mounts {
            let _ = runtime.run(&bundle.symlink("vol", &target));
            assert_eq!(names(outside.path()), [""; 0], "{}", target.display());
        }
    }
}

/// CVE-2026-41579 of runc, CVE-2026-47766 of crun: the image's /dev is a link to a directory of the host, in which `ptmx`
/// is removed and links and devices are made.
#[test]
fn cve_2026_41579_and_cve_2026_47766_a_linked_dev_changes_nothing_outside() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2026-41579", Crun "1.8.": "CVE-2026-47766");
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
    known!(runtime, Crun "1.8.": "CVE-2026-88264");
    let outside = TempDir::new("outside");
    let bundle = Bundle::new().terminal().edit(without_dev_mounts).symlink("dev/console", outside.join("made"));
    let socket = ConsoleSocket::new();
    let container = runtime.container(&bundle);
    let _ = container.call("create", &["--console-socket", socket.path()]);
    assert_eq!(names(outside.path()), [""; 0]);
}

/// CVE-2025-24965 of crun's krun handler: a file that the runtime writes for itself into the rootfs is a link there.
/// tare has no such handler and no such file; asking for it changes nothing.
#[test]
fn cve_2025_24965_no_file_of_the_runtime_is_written_through_a_link_of_the_rootfs() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    fs::write(outside.join("there"), "as it was").unwrap();
    for target in ["there", "missing"] {
        let bundle = Bundle::new()
            .symlink(".krun_config.json", outside.join(target))
            .set("/annotations", json!({"run.oci.handler": "krun"}));
        let _ = runtime.run(&bundle);
        assert_eq!(names(outside.path()), ["there"]);
        assert_eq!(fs::read_to_string(outside.join("there")).unwrap(), "as it was");
    }
}

/// CVE-2026-84042 of crun's krun handler: a program of the image is executed outside the container. Whatever a runtime
/// executes for itself (passt, the helpers of user namespaces, a shell) is the host's.
#[test]
fn cve_2026_84042_no_program_of_the_rootfs_is_executed_outside_the_container() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    let programs = ["passt", "newuidmap", "newgidmap", "criu", "modprobe", "systemctl", "ldconfig", "krun"];
    let image = || {
        let mut bundle = Bundle::new().set("/annotations", json!({"run.oci.handler": "krun"}));
        for path in programs.iter().flat_map(|name| ["usr/bin", "usr/sbin", "sbin"].map(|dir| format!("{dir}/{name}")))
        {
            let contents = format!("#!/bin/sh\necho {path} > {}\n", outside.join("escaped").display());
            bundle = bundle.file(&path, &contents);
            fs::set_permissions(bundle.rootfs().join(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        bundle
    };
    for bundle in [image(), image().user_namespace(100_000, 65_536), image().terminal()] {
        let _ = runtime.run(&bundle);
        assert_eq!(names(outside.path()), [""; 0]);
    }
}
