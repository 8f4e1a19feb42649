//! Links and races in the rootfs: what they point at on the host stays as it was.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

/// CVE-2015-3629, CVE-2019-18837: an absolute link in the rootfs is a link inside the rootfs.
#[test]
fn a_link_to_a_host_directory_leads_into_the_rootfs() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("file"), "content").unwrap();
    symlink(scratch.host(), scratch.inside("/vol")).unwrap();
    let before = snapshot(&scratch.host());
    let mounts = [
        entry("tmpfs", "tmpfs", "/vol/new/dir", &[]),
        bind(scratch.0.join("file"), "/vol/newfile", &[]),
        entry("tmpfs", "tmpfs", "/vol", &[]),
    ];
    let host = scratch.host();
    scratch.enter(
        |root| mount_all(root, &mounts[..2]).unwrap(),
        || {
            assert_eq!(fs::read("/vol/newfile").unwrap(), b"content");
            assert!(host.join("new/dir").is_dir());
        },
    );
    assert_eq!(snapshot(&scratch.host()), before);
    assert!(scratch.inside(&format!("{}/new/dir", scratch.host().display())).is_dir());
    assert_eq!(scratch.try_mounts(&mounts), None);
    assert_eq!(snapshot(&scratch.host()), before);
}

#[test]
fn what_a_dangling_link_names_is_made_inside_the_rootfs() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("file"), "content").unwrap();
    let missing = scratch.host().join("missing");
    for (link, target) in [
        ("/dir", missing.join("dir")),
        ("/file", missing.join("file")),
        ("/up/link", PathBuf::from("../../../../../../../over/../the/top")),
        ("/chain", PathBuf::from("up/link/further")),
        ("/empty-end", PathBuf::from("made/..")),
    ] {
        symlink(target, scratch.inside(link)).unwrap();
    }
    let mounts = [
        entry("tmpfs", "tmpfs", "/dir", &[]),
        bind(scratch.0.join("file"), "/file", &[]),
        entry("tmpfs", "tmpfs", "/up/link", &[]),
        entry("tmpfs", "tmpfs", "/chain", &[]),
        entry("tmpfs", "tmpfs", "/empty-end/x", &[]),
    ];
    scratch.enter(
        |root| mount_all(root, &mounts).unwrap(),
        || {
            assert!(missing.join("dir").is_dir());
            assert_eq!(fs::read("/file").unwrap(), b"content");
            assert!(Path::new("/the/top/further").is_dir());
            assert!(Path::new("/made").is_dir() && Path::new("/x").is_dir());
        },
    );
    assert!(fs::read_dir(scratch.host()).unwrap().next().is_none());
    assert!(!Path::new("/the").exists());
}

#[test]
fn links_in_a_circle_end() {
    let scratch = Scratch::new();
    symlink("b/x", scratch.inside("/a")).unwrap();
    symlink("a/x", scratch.inside("/b")).unwrap();
    let error = scratch.try_mounts(&[entry("tmpfs", "tmpfs", "/a/c", &[])]).unwrap();
    assert!(error.ends_with("(ELOOP)"), "{error}");
}

#[test]
fn a_link_to_the_root_is_no_place_for_a_mount() {
    let scratch = Scratch::new();
    for (link, target) in [("/root", "/"), ("/here", "."), ("/over", "../../..")] {
        symlink(target, scratch.inside(link)).unwrap();
        let error = scratch.try_mounts(&[entry("tmpfs", "tmpfs", link, &[])]).unwrap();
        assert!(error.ends_with("leads to the root itself"), "{error}");
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
#[test]
fn proc_and_sysfs_want_ordinary_directories() {
    for (path, fstype) in [("/proc", "proc"), ("/sys", "sysfs"), ("/a/b/sys", "sysfs")] {
        for target in ["/bad", "/missing", "/"] {
            let scratch = Scratch::new();
            fs::create_dir(scratch.inside("/bad")).unwrap();
            let link = if path == "/a/b/sys" { "/a/b" } else { path };
            symlink(target, scratch.inside(link)).unwrap();
            let error = scratch.try_mounts(&[entry(fstype, fstype, path, &[])]).unwrap();
            assert!(error.ends_with(&format!("\"{path}\" must be mounted on ordinary directory")), "{error}");
        }
        let scratch = Scratch::new();
        fs::write(scratch.inside(path), "").unwrap();
        let error = scratch.try_mounts(&[entry(fstype, fstype, path, &[])]).unwrap();
        assert!(error.ends_with("must be mounted on ordinary directory"), "{error}");
    }
}

/// CVE-2019-16884, CVE-2025-52881: by its letters the plan refuses it, by a link the open target does.
#[test]
fn no_link_leads_a_mount_into_proc() {
    let scratch = Scratch::new();
    symlink("/proc", scratch.inside("/whole")).unwrap();
    symlink("/proc/self/attr", scratch.inside("/attr")).unwrap();
    let proc = entry("proc", "proc", "/proc", &[]);
    for path in ["/whole", "/whole/sys/kernel", "/attr"] {
        let error = scratch.try_mounts(&[proc.clone(), entry("tmpfs", "tmpfs", path, &[])]).unwrap();
        assert!(error.ends_with("cannot be mounted because it leads into /proc"), "{error}");
    }
    // Before the procfs is there.
    fs::create_dir_all(scratch.inside("/proc")).unwrap();
    let error = scratch.try_mounts(&[entry("tmpfs", "tmpfs", "/whole", &[]), proc.clone()]).unwrap();
    assert!(error.ends_with("cannot be mounted because it leads into /proc"), "{error}");
    // A fake, a part of a procfs, and a real one.
    for (source, refused) in [(scratch.host(), true), ("/proc/self".into(), true), ("/proc".into(), false)] {
        let error = scratch.try_mounts(&[bind(&source, "/proc", &[])]);
        assert_eq!(error.is_some_and(|error| error.ends_with("because it is not a procfs")), refused, "{source:?}");
    }
    // lxcfs.
    fs::write(scratch.0.join("cpuinfo"), "2 cores").unwrap();
    assert_eq!(scratch.try_mounts(&[proc, bind(scratch.0.join("cpuinfo"), "/proc/cpuinfo", &["ro"])]), None);
}

/// A link to an open file of the runtime would lead out of the root.
#[test]
fn links_of_procfs_to_open_files_are_refused() {
    let scratch = Scratch::new();
    let open = fs::File::open(scratch.host()).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
    symlink(format!("/proc/self/fd/{fd}"), scratch.inside("/out")).unwrap();
    let mounts = [entry("proc", "proc", "/proc", &[]), entry("tmpfs", "tmpfs", "/out/new", &[])];
    let error = scratch.try_mounts(&mounts).unwrap();
    assert!(error.contains("openat2(\"/out/new\")"), "{error}");
    assert!(fs::read_dir(scratch.host()).unwrap().next().is_none());
}

#[test]
fn a_rootfs_that_is_a_link_or_a_file_is_refused() {
    let scratch = Scratch::new();
    symlink("rootfs", scratch.0.join("link")).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    for name in ["link", "file"] {
        let attached = in_namespace(|| Root::attach(&scratch.0.join(name), None, MountNamespace::New).map(drop));
        let error = attached.unwrap_err().to_string();
        assert!(error.ends_with("not a directory, or a symbolic link"), "{error}");
    }
}

#[test]
fn a_directory_on_a_file_and_a_file_on_a_directory_say_so() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.inside("/dir")).unwrap();
    fs::write(scratch.inside("/file"), "").unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    for mount in [bind(scratch.host(), "/file", &[]), bind(scratch.0.join("file"), "/dir", &[])] {
        let error = scratch.try_mounts(&[mount]).unwrap();
        assert!(error.ends_with("(ENOTDIR)"), "{error}");
    }
}

/// CVE-2021-30465, CVE-2024-45310: a volume in which another container swaps a directory and a link all the time.
#[test]
fn a_swapped_link_never_leads_to_the_host() {
    let scratch = Scratch::new();
    let volume = scratch.inside("/v/a").parent().unwrap().to_owned();
    fs::create_dir(volume.join("a")).unwrap();
    symlink(scratch.host(), volume.join("b")).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let (a, b) = (volume.join("a"), volume.join("b"));
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        let end = Instant::now() + Duration::from_secs(2);
        let (mut done, mut number) = (0, 0);
        while Instant::now() < end {
            number += 1;
            let mounts = [
                entry("tmpfs", "tmpfs", &format!("/v/a/dir-{number}/deep"), &[]),
                bind(scratch.0.join("file"), &format!("/v/a/file-{number}"), &[]),
            ];
            // A lookup that lost too many races may fail. It must not succeed on the host.
            done += u32::from(scratch.try_mounts(&mounts).is_none());
            assert!(fs::read_dir(scratch.host()).unwrap().next().is_none());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(swapper.join().unwrap() > 0);
        assert!(done > number / 2, "{done} of {number} were mounted");
    });
    assert!(fs::read_dir(scratch.host()).unwrap().next().is_none());
    // Both sides of the swap were met: the directory, and the link, which leads to a place inside the rootfs.
    let directory = [volume.join("a"), volume.join("b")].into_iter().find(|path| !path.is_symlink()).unwrap();
    let through_link = scratch.rootfs().join(scratch.host().strip_prefix("/").unwrap());
    for place in [directory, through_link] {
        assert!(fs::read_dir(&place).unwrap().next().is_some(), "{place:?}");
    }
}
