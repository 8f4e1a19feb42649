//! Class: a path inside the rootfs is resolved on the host, when another container swaps a directory and a link in a
//! volume that both have. The numbers of rounds are what runc 1.1.5 loses several times.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;
use tare_testkit::{Bundle, TempDir, known, rounds};

use super::{Swapped, names, without_dev_mounts};
use crate::runtime;

/// How often runc 1.1.5 has to be asked until it fails, several times over.
const ROUNDS: usize = 150;

/// A directory and a link to `target`.
fn directory_and_link(target: &std::path::Path) -> Swapped {
    Swapped::new(["a", "b"], |volume| {
        fs::create_dir(volume.join("a")).unwrap();
        symlink(target, volume.join("b")).unwrap();
    })
}

/// CVE-2024-45310: the directory for a mount is made where the link leads on the host.
#[test]
fn cve_2024_45310_a_swapped_link_makes_no_directory_on_the_host() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2024-45310");
    let outside = TempDir::new("outside");
    let swapped = directory_and_link(outside.path());
    let mut bundle = Bundle::new().bind(swapped.path(), "/v", &["bind"]).mount(json!({"type": "tmpfs", "source": "t"}));
    let last = bundle.config()["mounts"].as_array().unwrap().len() - 1;
    for round in 0..rounds(ROUNDS) {
        bundle = bundle.edit(|config| config["mounts"][last]["destination"] = json!(format!("/v/a/{round}")));
        // A lookup that lost too many races may fail.
        let _ = runtime.run(&bundle);
        assert_eq!(names(outside.path()), [""; 0], "round {round}");
    }
    swapped.stop();
}

/// CVE-2021-30465: the mount itself goes where the link leads on the host. Then it is not where it should be inside.
#[test]
fn cve_2021_30465_a_swapped_link_takes_no_mount_to_the_host() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    fs::create_dir(outside.join("there")).unwrap();
    let swapped = Swapped::new(["a", "b"], |volume| {
        fs::create_dir_all(volume.join("a/there")).unwrap();
        symlink(outside.path(), volume.join("b")).unwrap();
    });
    let bundle = Bundle::script("grep -c ' - tmpfs swapped ' /proc/self/mountinfo")
        .bind(swapped.path(), "/v", &["bind"])
        .mount(json!({"destination": "/v/a/there", "type": "tmpfs", "source": "swapped"}));
    let (mut ran, mut refused) = (0, None);
    for round in 0..rounds(ROUNDS) {
        let output = runtime.run(&bundle);
        if output.success() || !output.stdout.is_empty() {
            ran += 1;
            assert_eq!(output.text(), "1", "round {round}: {output}");
        } else {
            refused = Some(output.to_string());
        }
    }
    assert!(ran > rounds(ROUNDS) / 10, "{ran} of {} ran, the last that did not: {refused:?}", rounds(ROUNDS));
    swapped.stop();
}

/// CVE-2025-31133, CVE-2025-62161, as a race: the /dev/null that masks is the device at one moment and a link at the next.
#[test]
fn cve_2025_31133_and_cve_2025_62161_a_swapped_dev_null_masks_all_the_same() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2025-31133");
    let swapped = Swapped::new(["null", "other"], |volume| {
        let (device, mode) = (makedev(1, 3), Mode::from_raw_mode(0o666));
        mknodat(CWD, volume.join("null"), FileType::CharacterDevice, mode, device).unwrap();
        symlink("/evil", volume.join("other")).unwrap();
    });
    let bundle = Bundle::script("cat /target; echo x >> /evil")
        .file("evil", "evil")
        .file("target", "plain")
        .edit(without_dev_mounts)
        .bind(swapped.path(), "/dev", &["rbind"])
        .set("/linux/maskedPaths", json!(["/target"]));
    for round in 0..rounds(ROUNDS) {
        let output = runtime.run(&bundle);
        assert!(!output.stdout.contains("evil") && !output.stdout.contains("plain"), "round {round}: {output}");
    }
    swapped.stop();
}

/// CVE-2025-52881, CVE-2025-62596: a swapped link takes a mount into /proc, where it catches what is written there: a
/// sysctl, a label. Whenever the container runs, the value is in force.
#[test]
fn cve_2025_52881_and_cve_2025_62596_a_swapped_link_redirects_no_write_to_proc() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2025-52881", Crun: "tolerates the mount, and writes through a procfs of its own");
    let fake = TempDir::new("fake");
    fs::write(fake.join("ip_forward"), "fake").unwrap();
    let swapped = directory_and_link("/proc/sys/net/ipv4".as_ref());
    let bundle = Bundle::script("cat /proc/sys/net/ipv4/ip_forward; grep -c ' /proc/sys/net' /proc/self/mountinfo")
        .bind(swapped.path(), "/v", &["bind"])
        .bind(fake.path(), "/v/a", &["bind"])
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    for round in 0..rounds(ROUNDS) {
        let output = runtime.run(&bundle);
        assert_eq!(fs::read_to_string(fake.join("ip_forward")).unwrap(), "fake", "round {round}");
        assert!(output.stdout.is_empty() || output.lines() == ["1", "0"], "round {round}: {output}");
    }
    swapped.stop();
}
