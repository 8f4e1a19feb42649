//! /dev of hostile and friendly images.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use super::*;

fn device(path: &str, typ: LinuxDeviceType, major: i64, minor: i64, mode: u32, owner: (u32, u32)) -> LinuxDevice {
    let device = LinuxDeviceBuilder::default().path(path).typ(typ).major(major).minor(minor);
    device.file_mode(mode).uid(owner.0).gid(owner.1).build().unwrap()
}

fn make_all(root: &Root, devices: &[LinuxDevice], how: HowDevices) -> Result<()> {
    root.make_devices(devices, how)?;
    root.make_dev_links()
}

#[test]
fn devices_of_the_configuration_have_their_paths_modes_and_owners() {
    let scratch = Scratch::new();
    let devices = [
        device("/dev/net/tun", LinuxDeviceType::C, 10, 200, 0o600, (0, 0)),
        device("/dev/block/", LinuxDeviceType::B, 259, 70_000, 0o640, (5, 6)),
        device("/dev/pipe", LinuxDeviceType::P, 0, 0, 0o622, (7, 8)),
        device("/other/place", LinuxDeviceType::U, 4, 1, 0o100_604, (0, 0)),
        // Wins over the default.
        device("/dev//tty", LinuxDeviceType::C, 5, 0, 0o620, (0, 5)),
    ];
    scratch.enter(
        |root| {
            nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
            make_all(root, &devices, HowDevices::Mknod).unwrap();
            assert_eq!(nix::sys::stat::umask(Mode::empty()), Mode::from_bits_truncate(0o077));
        },
        || {
            let tun = fs::metadata("/dev/net/tun").unwrap();
            assert_eq!((tun.rdev(), tun.mode(), tun.uid()), (nix::sys::stat::makedev(10, 200), 0o020_600, 0));
            let block = fs::metadata("/dev/block").unwrap();
            assert_eq!((block.rdev(), block.mode()), (nix::sys::stat::makedev(259, 70_000), 0o060_640));
            assert_eq!((block.uid(), block.gid()), (5, 6));
            let pipe = fs::metadata("/dev/pipe").unwrap();
            assert!(pipe.file_type().is_fifo());
            assert_eq!((pipe.mode() & 0o7777, pipe.uid(), pipe.gid()), (0o622, 7, 8));
            assert_eq!(fs::metadata("/other/place").unwrap().mode(), 0o020_604);
            let tty = fs::metadata("/dev/tty").unwrap();
            assert_eq!((tty.mode() & 0o7777, tty.gid()), (0o620, 5));
            assert_eq!(fs::metadata("/dev/zero").unwrap().mode(), 0o020_666);
        },
    );
}

#[test]
fn a_node_that_the_image_brings_along_gets_the_mode_and_owner() {
    let scratch = Scratch::new();
    let null = scratch.inside("/dev/null");
    nix::sys::stat::mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), 0x103).unwrap();
    std::os::unix::fs::chown(&null, Some(3), Some(4)).unwrap();
    fs::write(scratch.inside("/dev/ptmx"), "").unwrap();
    scratch.enter(
        |root| make_all(root, &[], HowDevices::Mknod).unwrap(),
        || {
            let null = fs::metadata("/dev/null").unwrap();
            assert_eq!((null.rdev(), null.mode(), null.uid(), null.gid()), (0x103, 0o020_666, 0, 0));
            assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
        },
    );
}

#[test]
fn what_has_the_name_of_a_device_and_is_none_is_refused() {
    for how in [HowDevices::Mknod, HowDevices::Bind] {
        let scratch = Scratch::new();
        fs::write(scratch.host().join("secret"), "secret").unwrap();
        let before = snapshot(&scratch.host());
        symlink(scratch.host().join("secret"), scratch.inside("/dev/null")).unwrap();
        let error = in_namespace(|| scratch.attach().make_devices(&[], how).unwrap_err().to_string());
        assert!(error.starts_with("device \"/dev/null\": "), "{error}");
        assert_eq!(snapshot(&scratch.host()), before);
    }
    let scratch = Scratch::new();
    nix::sys::stat::mknod(&scratch.inside("/dev/zero"), SFlag::S_IFCHR, Mode::S_IRUSR, 0x101).unwrap();
    let error = in_namespace(|| scratch.attach().make_devices(&[], HowDevices::Mknod).unwrap_err().to_string());
    assert_eq!(error, "device \"/dev/zero\": what is there is not the device 1:5");
    let kmem = device("/dev/x", LinuxDeviceType::C, -1, 0, 0o666, (0, 0));
    let error = in_namespace(|| scratch.attach().make_devices(&[kmem], HowDevices::Mknod).unwrap_err().to_string());
    assert_eq!(error, "linux.devices: \"/dev/x\": no such device number");
}

/// CVE-2026-41579, CVE-2026-47766.
#[test]
fn a_dev_that_is_a_link_leaves_the_host_directory_as_it_was() {
    let scratch = Scratch::new();
    fs::write(scratch.host().join("ptmx"), "keep").unwrap();
    symlink(scratch.host(), scratch.inside("/dev")).unwrap();
    let before = snapshot(&scratch.host());
    let tun = device("/dev/net/tun", LinuxDeviceType::C, 10, 200, 0o600, (0, 0));
    for how in [HowDevices::Mknod, HowDevices::Bind] {
        scratch.enter(
            |root| {
                let tun = std::slice::from_ref(&tun);
                make_all(root, if how == HowDevices::Mknod { tun } else { &[] }, how).unwrap();
            },
            || assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device()),
        );
        assert_eq!(snapshot(&scratch.host()), before);
        fs::remove_dir_all(scratch.rootfs().join(scratch.host().strip_prefix("/").unwrap())).unwrap();
    }
}

#[test]
fn bound_devices_are_those_of_the_host() {
    let scratch = Scratch::new();
    scratch.enter(
        |root| make_all(root, &[], HowDevices::Bind).unwrap(),
        || {
            assert_eq!(fs::metadata("/dev/zero").unwrap().rdev(), 0x105);
            assert_eq!(fs::read("/dev/null").unwrap(), b"");
        },
    );
    // Below the mounts are empty files.
    assert!(fs::symlink_metadata(scratch.inside("/dev/null")).unwrap().is_file());
}

#[test]
fn what_is_mounted_over_dev_later_is_the_dev_that_counts() {
    let scratch = Scratch::new();
    symlink("/dev", scratch.inside("/link")).unwrap();
    let tmpfs = |path: &str| entry("tmpfs", "tmpfs", path, &[]);
    let mounts = [tmpfs("/dev/a"), tmpfs("/dev"), tmpfs("/dev/b"), tmpfs("/link"), tmpfs("/dev/c"), tmpfs("/dev/d")];
    scratch.enter(
        |root| {
            mount_all(root, &mounts).unwrap();
            make_all(root, &[], HowDevices::Mknod).unwrap();
        },
        || {
            for name in ["a", "b"] {
                assert!(!Path::new("/dev").join(name).exists(), "{name}");
            }
            for name in ["c", "d", "null", "fd"] {
                assert!(Path::new("/dev").join(name).symlink_metadata().is_ok(), "{name}");
            }
        },
    );
}

#[test]
fn nothing_is_made_in_a_dev_of_the_host() {
    let scratch = Scratch::new();
    scratch.enter(
        |root| {
            mount_all(root, &[bind(scratch.host(), "/dev/", &[])]).unwrap();
            make_all(root, &[], HowDevices::Mknod).unwrap();
        },
        || assert!(fs::read_dir("/dev").unwrap().next().is_none()),
    );
}

/// CVE-2026-88264.
#[test]
fn a_console_that_is_a_link_is_refused_and_its_target_never_made() {
    let scratch = Scratch::new();
    symlink(scratch.host().join("made"), scratch.inside("/dev/console")).unwrap();
    let error = in_namespace(|| {
        let null = fs::File::open("/dev/null").unwrap();
        scratch.attach().bind_console(null.as_fd()).unwrap_err().to_string()
    });
    assert_eq!(error, "mount the console on \"/dev/console\": \"console\" is a symbolic link");
    assert!(fs::read_dir(scratch.host()).unwrap().next().is_none());
}

const DEVPTS: [&str; 3] = ["newinstance", "ptmxmode=0666", "mode=0620"];

#[test]
fn the_console_is_bound_from_its_fd() {
    let scratch = Scratch::new();
    let mounts = [entry("tmpfs", "tmpfs", "/dev", &[]), entry("devpts", "devpts", "/dev/pts", &DEVPTS)];
    scratch.enter(
        |root| {
            mount_all(root, &mounts).unwrap();
            // Any file of the container's devpts stands for the peer.
            let ptmx = root.open_ptmx().unwrap();
            root.bind_console(ptmx.as_fd()).unwrap();
        },
        || assert_eq!(fs::metadata("/dev/console").unwrap().rdev(), nix::sys::stat::makedev(5, 2)),
    );
}

/// CVE-2025-52565.
#[test]
fn a_ptmx_that_is_not_of_a_devpts_is_refused() {
    let scratch = Scratch::new();
    let ptmx = scratch.host().join("ptmx");
    nix::sys::stat::mknod(&ptmx, SFlag::S_IFCHR, Mode::S_IRUSR, nix::sys::stat::makedev(5, 2)).unwrap();
    for swap in [false, true] {
        if swap {
            fs::remove_file(&ptmx).unwrap();
            fs::write(&ptmx, "").unwrap();
        }
        let error = in_namespace(|| {
            let root = scratch.attach();
            mount_all(&root, &[bind(scratch.host(), "/dev/pts", &[])]).unwrap();
            root.open_ptmx().unwrap_err().to_string()
        });
        assert_eq!(error, "ptmx handle is not on a real devpts mount");
    }
}
