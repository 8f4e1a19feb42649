use nix::mount::MsFlags;
use oci_spec::runtime::{LinuxIdMappingBuilder, MountBuilder};

use super::*;
use crate::sys::mount::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_STRICTATIME as STRICTATIME,
};

fn entry(fstype: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default().destination(destination).typ(fstype).source(source).options(options);
    mount.build().unwrap()
}

fn plan(mount: Mount) -> MountPlan {
    plan_mounts(&[mount], Path::new("/bundle"), &IdMappings::default()).unwrap().remove(0)
}

fn refusal(mount: Mount) -> String {
    plan_mounts(&[entry("tmpfs", "tmpfs", "/fine", &[]), mount], Path::new("/bundle"), &IdMappings::default())
        .unwrap_err()
        .to_string()
}

fn attrs(set: u64, clear: u64) -> Attrs {
    Attrs { set, clear }
}

#[test]
fn every_attribute_option_sets_or_clears_its_flag_and_has_a_recursive_form() {
    let table = [
        ("ro", attrs(RDONLY, 0)),
        ("rw", attrs(0, RDONLY)),
        ("nosuid", attrs(NOSUID, 0)),
        ("suid", attrs(0, NOSUID)),
        ("nodev", attrs(NODEV, 0)),
        ("dev", attrs(0, NODEV)),
        ("noexec", attrs(NOEXEC, 0)),
        ("exec", attrs(0, NOEXEC)),
        ("nodiratime", attrs(NODIRATIME, 0)),
        ("diratime", attrs(0, NODIRATIME)),
        ("nosymfollow", attrs(NOSYMFOLLOW, 0)),
        ("symfollow", attrs(0, NOSYMFOLLOW)),
        ("noatime", attrs(NOATIME, ATIME)),
        ("atime", attrs(0, ATIME)),
        ("strictatime", attrs(STRICTATIME, ATIME)),
        ("nostrictatime", attrs(0, ATIME)),
        ("relatime", attrs(0, ATIME)),
        ("norelatime", attrs(0, 0)),
    ];
    for (option, wanted) in table {
        let plain = plan(entry("none", "/src", "/x", &["bind", option]));
        assert_eq!((plain.attrs, plain.recursive_attrs), (wanted, Attrs::default()), "{option}");
        let recursive = plan(entry("none", "/src", "/x", &["bind", &format!("r{option}")]));
        assert_eq!((recursive.attrs, recursive.recursive_attrs), (Attrs::default(), wanted), "r{option}");
    }
}

#[test]
fn what_features_announces_is_what_is_taken() {
    use tare_spec::features::MOUNT_OPTIONS;
    assert!(MOUNT_OPTIONS.is_sorted());
    for name in MOUNT_OPTIONS {
        assert!(option::effect(name).is_some(), "{name} is announced and means nothing");
    }
    for name in ["rrbind", "noatim", "size=1k", "mode=755"] {
        assert_eq!(option::effect(name), None, "{name}");
    }
}

#[test]
fn every_superblock_option_sets_its_flag_and_its_opposite_takes_it_back() {
    let table = [
        ("sync", "async", MsFlags::MS_SYNCHRONOUS),
        ("mand", "nomand", MsFlags::MS_MANDLOCK),
        ("silent", "loud", MsFlags::MS_SILENT),
        ("lazytime", "nolazytime", MsFlags::MS_LAZYTIME),
        ("iversion", "noiversion", MsFlags::MS_I_VERSION),
    ];
    let flags = |options: &[&str]| match plan(entry("tmpfs", "tmpfs", "/x", options)).kind {
        Kind::Fs(fs) => {
            assert_eq!(fs.data, Vec::<OsString>::new());
            fs.flags
        }
        other => panic!("{other:?}"),
    };
    for (on, off, flag) in table {
        assert_eq!(flags(&[on]), flag, "{on}");
        assert_eq!(flags(&[on, off]), MsFlags::empty(), "{off}");
        assert_eq!(flags(&[off, on]), flag, "{off},{on}");
    }
    assert_eq!(flags(&["dirsync"]), MsFlags::MS_DIRSYNC);
    assert_eq!(flags(&["remount"]), MsFlags::MS_REMOUNT);
    assert_eq!(flags(&["defaults", ""]), MsFlags::empty());
}

#[test]
fn of_options_that_contradict_each_other_the_last_wins() {
    let options = ["rbind", "ro", "noatime", "rw", "nosuid", "strictatime"];
    let planned = plan(entry("", "/src", "/x", &options));
    assert_eq!(planned.attrs, attrs(NOSUID | STRICTATIME, RDONLY | ATIME));
    assert_eq!(plan(entry("", "/src", "/x", &["rbind", "rro", "rrw"])).recursive_attrs, attrs(0, RDONLY));
}

#[test]
fn every_propagation_is_known_and_their_order_is_kept() {
    let table = [
        ("private", MsFlags::MS_PRIVATE, Recursion::Top),
        ("rprivate", MsFlags::MS_PRIVATE, Recursion::Tree),
        ("shared", MsFlags::MS_SHARED, Recursion::Top),
        ("rshared", MsFlags::MS_SHARED, Recursion::Tree),
        ("slave", MsFlags::MS_SLAVE, Recursion::Top),
        ("rslave", MsFlags::MS_SLAVE, Recursion::Tree),
        ("unbindable", MsFlags::MS_UNBINDABLE, Recursion::Top),
        ("runbindable", MsFlags::MS_UNBINDABLE, Recursion::Tree),
    ];
    let names: Vec<&str> = table.iter().map(|(name, ..)| *name).collect();
    let wanted: Vec<Propagation> =
        table.iter().map(|(_, flag, r)| Propagation { flag: *flag, recursion: *r }).collect();
    assert_eq!(plan(entry("tmpfs", "tmpfs", "/x", &names)).propagation, wanted);
    assert_eq!(Propagation::parse("rrslave"), None);
    assert_eq!(Propagation::parse(""), None);
}

#[test]
fn a_bind_is_a_bind_by_option_or_by_type_and_its_relative_source_lies_in_the_bundle() {
    let kind = |fstype, source, options: &[&str]| plan(entry(fstype, source, "/x", options)).kind;
    let bind = |source: &str, recursion| {
        let symlinks = Symlinks::default();
        Kind::Bind { source: source.into(), recursion, symlinks }
    };
    assert_eq!(kind("none", "/src", &["rbind"]), bind("/src", Recursion::Tree));
    assert_eq!(kind("tmpfs", "/src", &["bind"]), bind("/src", Recursion::Top));
    assert_eq!(kind("bind", "src/a", &[]), bind("/bundle/src/a", Recursion::Top));
    assert_eq!(kind("bind", "", &["bind", "remount", "ro"]), Kind::Remount);
    // With a warning.
    assert_eq!(kind("", "/src", &["bind", "size=1k"]), bind("/src", Recursion::Top));
    assert_eq!(kind("cgroup", "/sys/fs/cgroup", &["rbind"]), bind("/sys/fs/cgroup", Recursion::Tree));
}

#[test]
fn what_is_no_option_of_ours_goes_to_the_file_system_in_order() {
    let options = ["nosuid", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let Kind::Fs(fs) = plan(entry("devpts", "devpts", "/dev/pts", &options)).kind else { panic!("not a file system") };
    assert_eq!(fs.data, ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]);
    assert_eq!((fs.fstype, fs.source), ("devpts".into(), Some("devpts".into())));
    let Kind::Fs(fs) = plan(entry("tmpfs", "", "/x", &["tmpcopyup"])).kind else { panic!("not a file system") };
    assert_eq!((fs.copy_up, fs.source), (true, None));
}

#[test]
fn destinations_are_taken_from_the_root_and_cleaned() {
    for (destination, wanted) in
        [("/a//b/./c/", "/a/b/c"), ("a/b", "/a/b"), ("/a/../../b", "/b"), ("/procfs", "/procfs")]
    {
        assert_eq!(plan(entry("tmpfs", "tmpfs", destination, &[])).destination, Path::new(wanted), "{destination}");
    }
}

#[test]
fn cgroup_says_what_the_host_has_and_cgroup2_says_itself() {
    let version = |fstype| match plan(entry(fstype, "cgroup", "/sys/fs/cgroup", &["ro"])).kind {
        Kind::Cgroup { version, .. } => version,
        other => panic!("{other:?}"),
    };
    assert_eq!((version("cgroup"), version("cgroup2")), (CgroupVersion::OfHost, CgroupVersion::V2));
}

#[test]
fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    let table = [
        (entry("tmpfs", "tmpfs", "", &[]), "mounts[1].destination: empty"),
        (entry("tmpfs", "tmpfs", "/a/..", &[]), "mounts[1].destination: cannot mount over the root itself"),
        (entry("", "x", "/x", &["ro"]), "mounts[1].type: missing, and no option bind or rbind"),
        (entry("", "", "/x", &["bind"]), "mounts[1].source: missing: a bind mount needs one"),
        (entry("", "/s", "/x", &["bind", "tmpcopyup"]), "mounts[1].options: tmpcopyup is for type tmpfs alone"),
        (entry("tmpfs", "t", "/x", &["a\0b"]), "mounts[1].options: \"a\\0b\" holds a NUL byte"),
        (entry("proc", "proc", "/x", &[]), "mounts[1].destination: a file system of type proc belongs on /proc"),
        (entry("tmpfs", "tmpfs", "/proc/", &[]), "mounts[1].destination: only a procfs can be mounted on /proc"),
        (
            entry("tmpfs", "tmpfs", "/proc/self/attr", &[]),
            "mounts[1].destination: \"/proc/self/attr\" cannot be mounted because it is inside /proc",
        ),
        (
            entry("", "/s", "/x/../proc/sys/kernel", &["bind"]),
            "mounts[1].destination: \"/proc/sys/kernel\" cannot be mounted because it is inside /proc",
        ),
    ];
    for (mount, wanted) in table {
        assert_eq!(refusal(mount), wanted);
    }
    plan_mounts(&[], Path::new("bundle"), &IdMappings::default()).unwrap_err();
}

#[test]
fn numbers_of_proc_may_be_replaced_one_by_one() {
    for name in PROC_ALLOWED {
        plan(entry("", "/lxcfs", &format!("/proc/{name}"), &["bind"]));
    }
    refusal(entry("", "/lxcfs", "/proc/cpuinfo/x", &["bind"]));
    // Whether its source is a procfs is seen when it is open.
    plan(entry("", "/proc", "/proc", &["rbind"]));
}

#[test]
fn mappings_ask_for_an_idmapped_mount_and_come_in_pairs() {
    let mapping = LinuxIdMappingBuilder::default().host_id(1000u32).container_id(0u32).size(1u32).build().unwrap();
    let mut mount = entry("", "/src", "/x", &["bind"]);
    mount.set_uid_mappings(Some(vec![mapping]));
    assert_eq!(refusal(mount.clone()), "mounts[1]: uidMappings and gidMappings need each other");
    mount.set_gid_mappings(Some(vec![mapping]));
    let idmap = plan(mount).idmap.unwrap();
    assert_eq!(
        (idmap.recursion, idmap.uid_mappings, idmap.gid_mappings),
        (Recursion::Top, vec![mapping], vec![mapping])
    );
    let idmap = plan(entry("", "/src", "/x", &["bind", "ridmap"])).idmap.unwrap();
    assert_eq!((idmap.recursion, idmap.uid_mappings.len()), (Recursion::Tree, 0));
    let idmap = plan(entry("", "/src", "/x", &["bind", "idmap=uids=0-1000-1;gids=0-1000-1"])).idmap.unwrap();
    assert_eq!(
        (idmap.recursion, idmap.uid_mappings, idmap.gid_mappings),
        (Recursion::Top, vec![mapping], vec![mapping])
    );
    let tmpfs = entry("tmpfs", "tmpfs", "/x", &["idmap"]);
    assert_eq!(refusal(tmpfs), "mounts[1].options: idmap is for bind mounts alone");
}

#[test]
fn what_becomes_of_links_is_for_bind_mounts_to_say() {
    let symlinks = |options: &[&str]| match plan(entry("bind", "/src", "/x", options)).kind {
        Kind::Bind { symlinks, .. } => symlinks,
        other => panic!("{other:?}"),
    };
    assert_eq!(symlinks(&["ro"]), Symlinks::default());
    assert_eq!(symlinks(&["copy-symlink"]), Symlinks { copy: true, ..Symlinks::default() });
    let both = Symlinks { source_nofollow: true, destination_nofollow: true, ..Symlinks::default() };
    assert_eq!(symlinks(&["src-nofollow", "dest-nofollow"]), both);
    let line = refusal(entry("bind", "/src", "/x", &["copy-symlink", "dest-nofollow"]));
    assert_eq!(line, "mounts[1].options: copy-symlink goes with neither src-nofollow nor dest-nofollow");
    let line = refusal(entry("tmpfs", "tmpfs", "/x", &["src-nofollow"]));
    assert_eq!(line, "mounts[1].options: copy-symlink, src-nofollow and dest-nofollow are for bind mounts alone");
}

#[test]
fn flags_of_a_file_system_have_no_recursive_form() {
    for name in ["rsync", "rasync", "rdirsync", "rmand", "rnomand"] {
        for mount in [entry("bind", "/src", "/x", &["rbind", name]), entry("tmpfs", "tmpfs", "/x", &[name])] {
            let why = format!("{name:?}: a flag of a file system, which mounts below cannot be given");
            assert_eq!(refusal(mount), format!("mounts[1].options: {why}"));
        }
    }
}
