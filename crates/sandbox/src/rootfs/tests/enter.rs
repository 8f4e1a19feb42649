//! Ways into the root, and what the host sees of them.

use std::process::Command;

use super::*;

fn busybox(scratch: &Scratch) {
    fs::copy("/bin/busybox", scratch.inside("/bin/busybox")).unwrap();
}

/// Whether a nested user namespace may mount a procfs, which must not be when the container's is masked.
fn nested_proc() -> (bool, String) {
    // The outer shell gives the new pid namespace a first process.
    let script = "mkdir -p /tmp/p && mount -t proc none /tmp/p";
    let output = Command::new("/bin/busybox")
        .args(["unshare", "-m", "-p", "-f", "-r", "/bin/busybox", "sh", "-c", script])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// runc #1962.
#[test]
fn a_moved_root_gives_no_unmasked_procfs_to_a_nested_user_namespace() {
    for (how, masked) in [(Enter::Pivot, true), (Enter::Move, true), (Enter::Move, false)] {
        let scratch = Scratch::new();
        busybox(&scratch);
        in_namespace(|| {
            let root = scratch.attach();
            let mounts = [
                entry("proc", "proc", "/proc", &[]),
                entry("sysfs", "sysfs", "/sys", &["ro"]),
                entry("tmpfs", "tmpfs", "/tmp", &[]),
            ];
            mount_all(&root, &mounts).unwrap();
            root.make_devices(&[], HowDevices::Mknod).unwrap();
            let null = open_null().unwrap();
            root.enter(how).unwrap();
            assert!(fs::read_dir("/").unwrap().count() <= 6);
            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
            if masked {
                mask_paths(&[PathBuf::from("/proc/timer_list"), PathBuf::from("/proc/kcore")], null).unwrap();
            }
            let (mounted, errors) = nested_proc();
            // Without a mask there is nothing to be kept: that shows that the test can fail.
            assert_eq!(mounted, !masked, "{how:?}: {errors}");
            assert!(mounted || errors.contains("ermi"), "{errors}");
        });
    }
}

#[test]
fn chroot_alone_touches_no_mount_of_the_caller() {
    let scratch = Scratch::new();
    in_namespace(|| {
        let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = Root::attach(&scratch.rootfs(), None, MountNamespace::Inherited).unwrap();
        assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before);
        fs::write(scratch.inside("/here"), "").unwrap();
        root.enter(Enter::Chroot).unwrap();
        assert!(Path::new("/here").exists());
    });
}

/// The mounts of a host whose tree is shared, before and after a container came and went in it.
fn host_sees(propagation: Option<&str>) -> (String, String) {
    let scratch = Scratch::new();
    in_namespace(|| {
        // This namespace is the host: private from the real one, shared with those below.
        let attr = |flag: MsFlags| MountAttr { propagation: flag.bits(), ..MountAttr::default() };
        mount_setattr_root(Recursion::Tree, &attr(MsFlags::MS_PRIVATE)).unwrap();
        let tmpfs = Some("tmpfs");
        nix::mount::mount(tmpfs, &scratch.rootfs(), tmpfs, MsFlags::empty(), None::<&str>).unwrap();
        mount_setattr_root(Recursion::Tree, &attr(MsFlags::MS_SHARED)).unwrap();
        fs::create_dir(scratch.inside("/sub")).unwrap();
        fs::write(scratch.inside("/masked"), "").unwrap();
        let read = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = read();
        in_namespace(|| {
            let propagation = propagation.map(|name| Propagation::parse(name).unwrap());
            let null = open_null().unwrap();
            let root = Root::attach(&scratch.rootfs(), propagation, MountNamespace::New).unwrap();
            let mounts = [entry("proc", "proc", "/proc", &[]), entry("tmpfs", "tmpfs", "/sub", &[])];
            mount_all(&root, &mounts).unwrap();
            root.make_devices(&[], HowDevices::Bind).unwrap();
            root.enter(Enter::Pivot).unwrap();
            mask_paths(&["/masked".into()], null).unwrap();
            if let Some(propagation) = propagation {
                set_root_propagation(propagation).unwrap();
                let shared = mounted("/").unwrap().2.contains("shared:");
                assert_eq!(shared, propagation.flag == MsFlags::MS_SHARED, "{propagation:?}");
            }
            // What it mounts later on what was bound for it; the root itself may be unbindable.
            fs::write("/sub/file", "").unwrap();
            for on in ["/dev/null", "/dev/zero", "/masked"] {
                let bind = MsFlags::MS_BIND;
                nix::mount::mount(Some("/sub/file"), on, None::<&str>, bind, None::<&str>).unwrap();
            }
        });
        (before, read())
    })
}

#[test]
fn a_host_with_shared_mounts_sees_none_of_the_containers() {
    for propagation in [
        None,
        Some("private"),
        Some("rprivate"),
        Some("shared"),
        Some("rshared"),
        Some("slave"),
        Some("rslave"),
        Some("unbindable"),
        Some("runbindable"),
    ] {
        // Bound devices would need a bindable host.
        let (before, after) = if propagation == Some("runbindable") { continue } else { host_sees(propagation) };
        assert_eq!(before, after, "{propagation:?}");
    }
}

#[test]
fn mountinfo_names_the_whole_procfs_and_sysfs_outside_the_root() {
    let mountinfo = b"\
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n\
23 27 0:22 / /sys rw - sysfs sysfs rw\n\
27 1 254:0 / / rw - ext4 /dev/vda rw\n\
40 27 0:21 /sys /part rw - proc proc rw\n\
50 27 254:0 /rootfs /rootfs rw - ext4 /dev/vda rw\n\
51 50 0:40 / /rootfs/proc rw - proc proc rw\n\
52 51 0:40 / /rootfs/proc/again rw - proc proc rw\n\
60 27 0:41 / /with\\040blank\\134 rw master:1 propagate_from:2 - proc proc rw\n";
    let found = super::super::pivot::full_proc_and_sysfs_in(mountinfo, 50);
    assert_eq!(found, [Path::new("/with blank\\"), Path::new("/sys"), Path::new("/proc")]);
}
