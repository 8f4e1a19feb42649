//! The same steps in a user namespace, where the host's mounts are locked and devices cannot be made.

use std::process::{Command, Stdio};

use oci_spec::runtime::Spec;

use super::*;

const SCRATCH: &str = "TARE_TEST_SCRATCH";

fn out_of_reach(scratch: &Path) -> Mount {
    bind(scratch.join("host/private/data"), "/data", &["ro"])
}

#[test]
fn a_container_with_a_user_namespace_gets_its_sources_from_the_parent() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.host().join("private/data")).unwrap();
    fs::write(scratch.host().join("private/data/file"), "content").unwrap();
    // Of another user, and closed: root of the user namespace does not get in.
    std::os::unix::fs::chown(scratch.host().join("private"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(scratch.host().join("private"), fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["proc", "sys", "dev"] {
        fs::create_dir(scratch.inside(name)).unwrap();
    }
    fs::write(scratch.inside("/secret"), "secret").unwrap();
    let plan = plan_mounts(&[out_of_reach(&scratch.0)], Path::new("/"), &IdMappings::default()).unwrap().remove(0);
    let source = crate::rootfs::bind::clone_source(&plan, HostMounts::new(None)).unwrap().unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--net", "--ipc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "rootfs::tests::user_ns::inside"])
        .env(SCRATCH, &scratch.0)
        .stdin(Stdio::from(source))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "a part of the test above, which runs it in a user namespace"]
fn inside() {
    let scratch = PathBuf::from(std::env::var_os(SCRATCH).unwrap());
    let root = Root::attach(&scratch.join("rootfs"), None, MountNamespace::New).unwrap();
    let mounts: Vec<Mount> = Spec::default().mounts().clone().unwrap();
    // gid 5 is not mapped here, and the cgroups are another test's.
    let mounts: Vec<Mount> = mounts.into_iter().filter(|mount| mount.typ().as_deref() != Some("cgroup")).collect();
    for mut mount in mounts {
        if let Some(options) = mount.options_mut() {
            options.retain(|option| option != "gid=5");
        }
        mount_all(&root, &[mount]).unwrap();
    }
    let plan = plan_mounts(&[out_of_reach(&scratch)], Path::new("/"), &IdMappings::default()).unwrap().remove(0);
    let error = root.mount(&plan, None, &ENV).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EACCES), "{error}");
    let source = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    root.mount(&plan, Some(source), &ENV).unwrap();
    // mknod(2) is refused here, and the host's nodes stand in.
    root.make_devices(&[], HowDevices::Mknod).unwrap();
    root.make_dev_links().unwrap();
    let null = open_null().unwrap();
    root.enter(Enter::Pivot).unwrap();
    assert_eq!(fs::read("/data/file").unwrap(), b"content");
    assert_eq!(errno_of(fs::write("/data/file", "")), Some(Errno::EROFS));
    assert_eq!(fs::metadata("/dev/zero").unwrap().rdev(), 0x105);
    fs::write("/dev/null", "x").unwrap();
    fs::create_dir("/hidden").unwrap();
    mask_paths(&["/secret", "/hidden", "/proc/timer_list", "/secret"].map(PathBuf::from), null).unwrap();
    assert_eq!(fs::read("/secret").unwrap(), b"");
    assert_eq!(errno_of(fs::write("/hidden/x", "")), Some(Errno::EROFS));
    read_only_paths(&["/proc/sys", "/proc/bus"].map(PathBuf::from)).unwrap();
    read_only_root().unwrap();
    assert_eq!(errno_of(fs::write("/x", "")), Some(Errno::EROFS));
    assert_eq!(mounted("/proc/sys").unwrap().0.split(',').next(), Some("ro"));
}
