//! Mounts of every kind on a friendly rootfs.

use oci_spec::runtime::Spec;

use super::*;
use crate::cgroup::Directory;

/// A v1 hierarchy, on hosts that have them.
const V1_MEMORY: &str = "/sys/fs/cgroup/memory";

#[test]
fn the_default_mounts_devices_and_links_make_a_container() {
    let scratch = Scratch::new();
    let spec = Spec::default();
    let linux = spec.linux().as_ref().unwrap();
    let paths = |paths: &Option<Vec<String>>| paths.iter().flatten().map(PathBuf::from).collect::<Vec<_>>();
    let (masked, read_only) = (paths(linux.masked_paths()), paths(linux.readonly_paths()));
    assert!(masked.len() > 5 && read_only.len() > 4);
    let v1 = Path::new(V1_MEMORY).exists();
    in_namespace(|| {
        let root = scratch.attach();
        let mounts: Vec<Mount> = spec.mounts().clone().unwrap();
        assert_eq!(mounts.len(), 7);
        mount_all(&root, &mounts).unwrap();
        root.make_devices(&[], HowDevices::Mknod).unwrap();
        root.make_dev_links().unwrap();
        let null = open_null().unwrap();
        root.enter(Enter::Pivot).unwrap();
        read_only_paths(&read_only).unwrap();
        mask_paths(&masked, null).unwrap();
        for (path, fstype) in [
            ("/proc", "proc"),
            ("/dev", "tmpfs"),
            ("/dev/pts", "devpts"),
            ("/dev/shm", "tmpfs"),
            ("/dev/mqueue", "mqueue"),
            ("/sys", "sysfs"),
            // A tmpfs with the hierarchies in it, but where the host has cgroup2 alone.
            ("/sys/fs/cgroup", if v1 { "tmpfs" } else { "cgroup2" }),
        ] {
            assert_eq!(mounted(path).map(|(_, found, _)| found).as_deref(), Some(fstype), "{path}");
        }
        assert_eq!(mounted("/sys").unwrap().0, "ro,nosuid,nodev,noexec,relatime");
        assert_eq!(mounted("/dev").unwrap().0, "rw,nosuid");
        assert_eq!(fs::metadata("/dev").unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
        let null = fs::metadata("/dev/null").unwrap();
        assert_eq!((null.rdev(), null.mode(), null.uid()), (0x103, 0o020_666, 0));
        assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
        assert_eq!(fs::read_link("/dev/stdin").unwrap(), Path::new("/proc/self/fd/0"));
        fs::write("/dev/null", "x").unwrap();
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        for path in read_only.iter().filter(|path| path.exists()) {
            assert!(mounted(path.to_str().unwrap()).unwrap().0.starts_with("ro,"), "{path:?}");
        }
        for path in masked.iter().filter(|path| path.exists()) {
            let empty = if path.is_dir() { fs::read_dir(path).unwrap().count() } else { fs::read(path).unwrap().len() };
            assert_eq!(empty, 0, "{path:?}");
        }
        // The host is gone.
        assert!(
            fs::read_dir("/").unwrap().all(|entry| {
                ["proc", "dev", "sys"].iter().any(|name| entry.as_ref().unwrap().file_name() == *name)
            })
        );
    });
    // Nothing of it was seen by the host.
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mountinfo.contains(scratch.0.to_str().unwrap()));
}

#[test]
fn a_tmpfs_has_the_mode_asked_for_or_that_of_the_directory_or_1777() {
    let scratch = Scratch::new();
    for (path, mode) in [("/there", 0o2711), ("/asked", 0o700)] {
        fs::create_dir(scratch.inside(path)).unwrap();
        fs::set_permissions(scratch.inside(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mounts = [
        entry("tmpfs", "tmpfs", "/there", &[]),
        entry("tmpfs", "tmpfs", "/asked", &["mode=1750"]),
        entry("tmpfs", "tmpfs", "/new/deep", &[]),
    ];
    scratch.enter(
        |root| mount_all(root, &mounts).unwrap(),
        || {
            for (path, mode) in [("/there", 0o2711), ("/asked", 0o1750), ("/new/deep", 0o1777), ("/new", 0o755)] {
                assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{path}");
            }
        },
    );
}

#[test]
fn a_read_only_tmpfs_takes_the_mounts_below_it_first() {
    let scratch = Scratch::new();
    fs::write(scratch.host().join("file"), "content").unwrap();
    let mounts = [
        entry("proc", "proc", "/proc", &[]),
        entry("tmpfs", "tmpfs", "/run", &["ro", "nosuid"]),
        bind(scratch.host().join("file"), "/run/a/file", &[]),
        entry("tmpfs", "tmpfs", "/dev", &["rro"]),
    ];
    scratch.enter(
        |root| {
            mount_all(root, &mounts).unwrap();
            root.make_devices(&[], HowDevices::Mknod).unwrap();
        },
        || {
            assert_eq!(fs::read("/run/a/file").unwrap(), b"content");
            assert_eq!(mounted("/run").unwrap().0, "ro,nosuid,relatime");
            assert_eq!(errno_of(fs::write("/run/x", "")), Some(Errno::EROFS));
            assert_eq!(errno_of(fs::write("/dev/x", "")), Some(Errno::EROFS));
            fs::write("/dev/null", "x").unwrap();
        },
    );
}

#[test]
fn tmpcopyup_copies_files_links_modes_and_owners() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.inside("/data/sub")).unwrap();
    fs::write(scratch.inside("/data/sub/file"), "content").unwrap();
    std::os::unix::fs::chown(scratch.inside("/data/sub/file"), Some(7), Some(8)).unwrap();
    fs::set_permissions(scratch.inside("/data/sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(scratch.inside("/data"), Some(9), Some(10)).unwrap();
    fs::set_permissions(scratch.inside("/data"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/etc/passwd", scratch.inside("/data/link")).unwrap();
    let mounts = [
        entry("proc", "proc", "/proc", &[]),
        entry("tmpfs", "tmpfs", "/data", &["tmpcopyup", "ro"]),
        entry("tmpfs", "tmpfs", "/new", &["tmpcopyup"]),
    ];
    scratch.enter(
        |root| mount_all(root, &mounts).unwrap(),
        || {
            assert_eq!(mounted("/data").unwrap().1, "tmpfs");
            let file = fs::metadata("/data/sub/file").unwrap();
            assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 7, 8));
            assert_eq!(fs::read("/data/sub/file").unwrap(), b"content");
            assert_eq!(fs::read_link("/data/link").unwrap(), Path::new("/etc/passwd"));
            let top = fs::metadata("/data").unwrap();
            assert_eq!((top.mode() & 0o7777, top.uid(), top.gid()), (0o750, 9, 10));
            assert_eq!(errno_of(fs::write("/data/x", "")), Some(Errno::EROFS));
            assert_eq!(mounted("/new").unwrap().1, "tmpfs");
        },
    );
}

#[test]
fn rbind_ro_is_the_top_mount_alone_and_rro_all_of_them() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.host().join("sub")).unwrap();
    in_namespace(|| {
        mount_setattr_root(Recursion::Tree, &MountAttr { propagation: MsFlags::MS_SLAVE.bits(), ..Default::default() })
            .unwrap();
        let (none, flags) = (None::<&str>, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        nix::mount::mount(Some("tmpfs"), &scratch.host().join("sub"), Some("tmpfs"), flags, none).unwrap();
        let root = scratch.attach();
        let mounts = [
            entry("proc", "proc", "/proc", &[]),
            bind(scratch.host(), "/ro", &["ro", "noexec"]),
            bind(scratch.host(), "/rro", &["rro", "rnoatime"]),
            entry("", scratch.host(), "/top", &["bind"]),
            bind(scratch.host().join("sub"), "/sub", &["noexec", "dev"]),
            bind(scratch.host().join("sub"), "/shared", &["rshared"]),
        ];
        mount_all(&root, &mounts).unwrap();
        root.enter(Enter::Pivot).unwrap();
        assert_eq!(errno_of(fs::write("/ro/x", "")), Some(Errno::EROFS));
        fs::write("/ro/sub/x", "").unwrap();
        assert_eq!(errno_of(fs::write("/rro/x", "")), Some(Errno::EROFS));
        assert_eq!(errno_of(fs::write("/rro/sub/y", "")), Some(Errno::EROFS));
        assert!(mounted("/top/sub").is_none());
        // What no option names is kept, what one names is changed.
        assert_eq!(mounted("/sub").unwrap().0, "rw,nosuid,noexec,relatime");
        assert_eq!(mounted("/rro/sub").unwrap().0, "ro,nosuid,nodev,noatime");
        assert!(mounted("/shared").unwrap().2.contains("shared:"));
        assert!(!mounted("/sub").unwrap().2.contains("shared:"));
    });
}

#[test]
fn option_values_longer_than_fsconfig_takes_are_mounted() {
    let scratch = Scratch::new();
    let mut lower = Vec::new();
    for number in 0..12 {
        let directory = scratch.host().join(format!("layer-with-a-long-name-{number}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(number.to_string()), "").unwrap();
        lower.push(directory.to_str().unwrap().to_owned());
    }
    let option = format!("lowerdir={}", lower.join(":"));
    assert!(option.len() > 256);
    scratch.enter(
        |root| mount_all(root, &[entry("overlay", "overlay", "/layers", &[&option, "ro"])]).unwrap(),
        || assert_eq!(fs::read_dir("/layers").unwrap().count(), 12),
    );
}

/// What the rootfs holds is never found by a relative path of the configuration.
#[test]
fn a_relative_layer_is_not_looked_for_in_the_rootfs() {
    let scratch = Scratch::new();
    fs::write(scratch.host().join("secret"), "").unwrap();
    symlink(scratch.host(), scratch.inside("/layers/layer")).unwrap();
    // Twice: before it looks for a single one, Linux 6.1 says EINVAL, as nothing is laid over anything then.
    for options in [["lowerdir=layer:layer", "ro"], ["lowerdir=layer:layer", "rprivate"]] {
        // The first of them leaves the working directory in the rootfs.
        let mounts = [entry("tmpfs", "tmpfs", "/tmp", &[]), entry("overlay", "x", "/layers", &options)];
        let error = scratch.try_mounts(&mounts).unwrap();
        assert!(error.ends_with("(ENOENT)"), "{error}");
    }
}

#[test]
fn an_option_that_the_file_system_does_not_know_is_named() {
    let scratch = Scratch::new();
    let refused = |fstype: &str, options: &[&str]| scratch.try_mounts(&[entry(fstype, "x", "/x", options)]).unwrap();
    let error = refused("tmpfs", &["size=many"]);
    assert!(error.starts_with("mount tmpfs on \"/x\": fsconfig(\"size\", \"many\")"), "{error}");
    assert!(error.contains("Bad value for 'size'") && error.ends_with("(EINVAL)"), "{error}");
    let error = refused("tmpfs", &["rprivate", "colour=red"]);
    assert!(error.contains("fsconfig(\"colour\", \"red\")") && error.contains("Unknown parameter"), "{error}");
    assert!(refused("nosuchfs", &[]).ends_with("(ENODEV)"));
    let error = scratch.try_mounts(&[bind("/no/such/source", "/x", &[])]).unwrap();
    assert_eq!(
        error,
        "mount \"/no/such/source\" on \"/x\": open_tree(\"/no/such/source\"): no such file or directory (ENOENT)"
    );
    let mut idmap = entry("", "/", "/x", &["bind", "idmap"]);
    idmap.set_uid_mappings(None);
    assert_eq!(scratch.try_mounts(&[idmap]).unwrap(), "mount \"/\" on \"/x\": its ids are not mapped");
}

#[test]
fn mount_options_reach_the_superblock_and_the_mount() {
    let scratch = Scratch::new();
    let all = ["sync", "dirsync", "lazytime", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"];
    let mounts = [
        entry("proc", "proc", "/proc", &[]),
        entry("tmpfs", "name", "/a", &all),
        // With a propagation the mount is made detached: the outcome is the same.
        entry("tmpfs", "name", "/b", &[all.as_slice(), &["rprivate"]].concat()),
        entry("tmpfs", "name", "/c", &["size=4k"]),
        entry("tmpfs", "name", "/c", &["remount", "size=8k"]),
    ];
    scratch.enter(
        |root| mount_all(root, &mounts).unwrap(),
        || {
            let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            for path in ["/a", "/b"] {
                let line = mountinfo.lines().find(|line| line.contains(&format!(" {path} "))).unwrap();
                assert!(line.contains(" rw,nodev,noexec,noatime,nodiratime,nosymfollow "), "{line}");
                assert!(line.contains(" - tmpfs name rw,sync,dirsync,lazytime"), "{line}");
            }
            assert!(mountinfo.lines().any(|line| line.contains(" /c ") && line.contains("size=8k")));
        },
    );
}

#[test]
fn a_v1_cgroup_mount_shows_the_containers_directories_and_is_read_only_if_asked() {
    if !Path::new(V1_MEMORY).exists() {
        tare_testkit::skip!("no hierarchies of cgroup v1 here");
    }
    let scratch = Scratch::new();
    let own = PathBuf::from(format!("{V1_MEMORY}/tare-rootfs-test-{}", std::process::id()));
    fs::create_dir(&own).unwrap();
    let directories = [
        Directory { hierarchy: "memory".into(), path: own.clone() },
        Directory { hierarchy: "name=systemd".into(), path: "/sys/fs/cgroup/systemd".into() },
        Directory { hierarchy: String::new(), path: "/sys/fs/cgroup/unified".into() },
    ];
    for cgroup_namespace in [CgroupNamespace::Host, CgroupNamespace::Own, CgroupNamespace::Joined] {
        let env = MountEnv { cgroup: &directories, cgroup_namespace, label: None };
        let own = &own;
        scratch.enter(
            |root| {
                let mounts = [
                    entry("proc", "proc", "/proc", &[]),
                    entry("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]),
                    entry("cgroup2", "cgroup", "/unified", &["nosuid"]),
                ];
                for plan in plan_mounts(&mounts, Path::new("/"), &IdMappings::default()).unwrap() {
                    root.mount(&plan, None, &env).unwrap();
                }
            },
            || {
                let (options, fstype, _) = mounted("/sys/fs/cgroup/memory").unwrap();
                assert_eq!((options.as_str(), fstype.as_str()), ("ro,nosuid,nodev,noexec,relatime", "cgroup"));
                assert!(Path::new("/sys/fs/cgroup/systemd/cgroup.procs").exists());
                assert_eq!(errno_of(fs::create_dir("/sys/fs/cgroup/x")), Some(Errno::EROFS));
                // Bound it is the container's directory; what the namespace has, which here is the host's, the whole hierarchy.
                let seen = Path::new("/sys/fs/cgroup/memory").join(own.file_name().unwrap()).exists();
                assert_eq!(seen, cgroup_namespace == CgroupNamespace::Joined);
                assert_eq!(mounted("/unified").unwrap().1, "cgroup2");
            },
        );
    }
    fs::remove_dir(&own).unwrap();
}
