//! Class: what is bound is taken for a device of the host without a look at what it is.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;
use tare_testkit::{Bundle, ConsoleSocket, Kind, TempDir, known, skip};

use super::without_dev_mounts;
use crate::runtime;

/// A bundle that masks `/target`, with `/dev` a volume of somebody else.
fn masking(dev: &TempDir) -> Bundle {
    Bundle::script("cat /target; echo x >> /evil")
        .file("evil", "evil")
        .file("target", "plain")
        .edit(without_dev_mounts)
        .bind(dev.path(), "/dev", &["rbind"])
        .set("/linux/maskedPaths", json!(["/target"]))
}

/// CVE-2025-31133, CVE-2025-62161: a mask of a file binds the /dev/null of the container, which is a link.
#[test]
fn cve_2025_31133_and_cve_2025_62161_a_mask_never_shows_what_the_images_dev_null_is() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2025-31133");
    let dev = TempDir::new("dev");
    symlink("/evil", dev.join("null")).unwrap();
    let output = runtime.run(&masking(&dev));
    assert!(!output.stdout.contains("evil") && !output.stdout.contains("plain"), "{output}");
}

/// The same advisories, the other attack: a /dev/null that is not there, or no such device, masks nothing.
#[test]
fn cve_2025_31133_and_cve_2025_62161_a_missing_or_other_dev_null_masks_all_the_same() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "CVE-2025-31133");
    let fill: [fn(&TempDir); 3] = [
        |_| (),
        |dev| fs::write(dev.join("null"), "evil").unwrap(),
        |dev| {
            let (device, mode) = (makedev(1, 5), Mode::from_raw_mode(0o666));
            mknodat(CWD, dev.join("null"), FileType::CharacterDevice, mode, device).unwrap();
        },
    ];
    for (index, fill) in fill.iter().enumerate() {
        let dev = TempDir::new("dev");
        fill(&dev);
        let mut bundle = masking(&dev);
        // Of /dev/zero there would be no end.
        bundle = bundle.args(["sh", "-c", "head -c 10 /target | tr '\\0' z; true"]);
        let output = runtime.run(&bundle);
        assert_eq!(output.stdout, "", "{index}: {output}");
    }
}

/// CVE-2025-52565: the terminal that is bound on /dev/console is found by its name in the container's /dev/pts, where it
/// is a link; and who gives the number is a ptmx of somebody else.
#[test]
fn cve_2025_52565_a_console_is_a_terminal_of_a_real_devpts() {
    let runtime = runtime();
    let regular = |pts: &TempDir| fs::write(pts.join("ptmx"), "").unwrap();
    let device = |pts: &TempDir| {
        let (device, mode) = (makedev(5, 2), Mode::from_raw_mode(0o666));
        mknodat(CWD, pts.join("ptmx"), FileType::CharacterDevice, mode, device).unwrap();
        fs::create_dir(pts.join("pts")).unwrap();
    };
    for fill in [&regular as &dyn Fn(&TempDir), &device] {
        let pts = TempDir::new("pts");
        fill(&pts);
        for number in 0..10 {
            symlink("/evil", pts.join(number.to_string())).unwrap();
        }
        let bundle = Bundle::script("cat /dev/console > /seen; true").file("evil", "evil").terminal();
        let bundle = bundle.edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            let own = mounts.iter().position(|mount| mount["destination"] == "/dev/pts").unwrap();
            let devpts = mounts[own].clone();
            mounts[own] =
                json!({"destination": "/dev/pts", "type": "bind", "source": pts.path(), "options": ["rbind"]});
            mounts.push(devpts);
            mounts.last_mut().unwrap()["destination"] = json!("/dev/pts/pts");
        });
        let (socket, container) = (ConsoleSocket::new(), runtime.container(&bundle));
        let _ = container.call("run", &["--detach", "--console-socket", socket.path()]);
        assert!(!fs::read_to_string(bundle.rootfs().join("seen")).is_ok_and(|seen| seen.contains("evil")));
        container.is("none");
    }
}

/// CVE-2026-88265 of crun, in runc until CVE-2025-31133: stdio that is /dev/null is told by its device number alone and
/// opened again inside, where a link leads to a file of a volume, which is written and chowned.
#[test]
fn cve_2026_88265_a_linked_dev_null_is_not_chowned_or_written() {
    let runtime = runtime();
    known!(runtime, Runc "1.1.": "the flaw came out with CVE-2025-31133");
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
