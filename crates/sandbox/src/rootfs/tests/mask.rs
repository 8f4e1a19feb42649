//! Masked and read-only paths, after the root was entered.

use super::*;

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

/// Fills the root, enters it, and masks `masked`.
fn masked(scratch: &Scratch, mounts: &[Mount], masked: &[&str], then: impl FnOnce(Result<()>) + Send) {
    in_namespace(|| {
        let root = scratch.attach();
        mount_all(&root, &[&[entry("proc", "proc", "/proc", &[])], mounts].concat()).unwrap();
        let null = open_null().unwrap();
        root.enter(Enter::Pivot).unwrap();
        then(mask_paths(&paths(masked), null));
    });
}

#[test]
fn files_and_directories_are_hidden_missing_and_repeated_paths_are_skipped() {
    let scratch = Scratch::new();
    for name in ["one", "two", "three"] {
        fs::create_dir_all(scratch.inside(&format!("/{name}/secret"))).unwrap();
        fs::write(scratch.inside(&format!("/file-{name}")), "secret").unwrap();
    }
    fs::write(scratch.inside("/node-dir/file"), "").ok();
    symlink("/three", scratch.inside("/link")).unwrap();
    let list =
        ["/one", "/two", "/missing", "/file-one/x", "/file-one", "/file-two", "/one", "/link", "/proc/timer_list"];
    masked(&scratch, &[], &list, |result| {
        result.unwrap();
        let mut devices = std::collections::BTreeSet::new();
        for directory in ["/one", "/two", "/three"] {
            assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
            assert_eq!(errno_of(fs::write(format!("{directory}/x"), "")), Some(Errno::EROFS));
            devices.insert(fs::metadata(directory).unwrap().dev());
        }
        // One file system for all.
        assert_eq!(devices.len(), 1);
        for file in ["/file-one", "/file-two"] {
            assert_eq!(fs::metadata(file).unwrap().rdev(), 0x103);
            assert_eq!(fs::read(file).unwrap(), b"");
        }
        assert_eq!(fs::read("/file-three").unwrap(), b"secret");
        assert!(Path::new("/proc/timer_list").metadata().map_or(true, |meta| meta.rdev() == 0x103));
        let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(mountinfo.lines().filter(|line| line.contains(" /one ")).count(), 1);
    });
}

/// CVE-2025-31133: the container's /dev/null is a link to what the attacker wants to see, or is missing.
#[test]
fn the_null_of_the_container_is_never_what_hides() {
    for present in [true, false] {
        let scratch = Scratch::new();
        fs::write(scratch.inside("/evil"), "evil").unwrap();
        fs::write(scratch.inside("/target"), "target").unwrap();
        if present {
            symlink("/evil", scratch.host().join("null")).unwrap();
        }
        masked(&scratch, &[bind(scratch.host(), "/dev", &[])], &["/target"], |result| {
            result.unwrap();
            assert_eq!(fs::read("/target").unwrap(), b"");
            assert_eq!(fs::metadata("/target").unwrap().rdev(), 0x103);
        });
    }
}

#[test]
fn a_masked_path_through_an_open_file_is_refused() {
    let scratch = Scratch::new();
    let open = fs::File::open(scratch.host()).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
    symlink(format!("/proc/self/fd/{fd}"), scratch.inside("/out")).unwrap();
    masked(&scratch, &[], &["/out"], |result| {
        assert_eq!(
            result.unwrap_err().to_string(),
            "linux.maskedPaths: \"/out\": openat2: too many symbolic links encountered (ELOOP)"
        );
    });
}

#[test]
fn read_only_paths_and_a_read_only_root_cannot_be_written() {
    let scratch = Scratch::new();
    for path in ["/dir/sub", "/dir/mount", "/free"] {
        fs::create_dir_all(scratch.inside(path)).unwrap();
    }
    fs::write(scratch.inside("/file"), "").unwrap();
    let mounts = [
        entry("proc", "proc", "/proc", &[]),
        entry("tmpfs", "tmpfs", "/dir/mount", &[]),
        entry("tmpfs", "tmpfs", "/flags", &["nosuid", "noexec"]),
    ];
    scratch.enter(
        |root| mount_all(root, &mounts).unwrap(),
        || {
            read_only_paths(&paths(&["/dir", "/file", "/missing", "/dir", "/flags", "/proc/sys"])).unwrap();
            for path in ["/dir/x", "/dir/sub/x", "/file", "/flags/x", "/proc/sys/kernel/hostname"] {
                assert_eq!(errno_of(fs::write(path, "x")), Some(Errno::EROFS), "{path}");
            }
            // As in runc: what is mounted below keeps its own flags.
            fs::write("/dir/mount/x", "").unwrap();
            assert_eq!(mounted("/flags").unwrap().0, "ro,nosuid,noexec,relatime");
            fs::write("/free/x", "").unwrap();
            read_only_root().unwrap();
            assert_eq!(errno_of(fs::write("/free/y", "")), Some(Errno::EROFS));
            fs::write("/dir/mount/y", "").unwrap();
        },
    );
}

/// CVE-2026-115521: what /proc/self/fd of the image says does not matter.
#[test]
fn a_fake_procfs_does_not_divert_the_read_only_root() {
    let scratch = Scratch::new();
    for fd in 3..60 {
        symlink("/decoy", scratch.inside(&format!("/proc/self/fd/{fd}"))).unwrap();
    }
    fs::create_dir(scratch.inside("/decoy")).unwrap();
    scratch.enter(
        |root| mount_all(root, &[entry("tmpfs", "tmpfs", "/tmp", &["ro"])]).unwrap(),
        || {
            read_only_root().unwrap();
            for path in ["/x", "/tmp/x", "/decoy/x"] {
                assert_eq!(errno_of(fs::write(path, "")), Some(Errno::EROFS), "{path}");
            }
        },
    );
}
