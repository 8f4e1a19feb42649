//! Class: cgroups, devices and ids give more than was asked for.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Runtime, known, skip};

use crate::rootless::{Delegated, as_user, script};
use crate::runtime;

const DEVICES: &str = "mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2 | head -c 1; \
     mknod /dev/null2 c 1 3 && echo x > /dev/null2 && echo null; \
     mknod /dev/mem2 c 1 1; head -c 1 /dev/mem2; echo end";

fn check_devices(runtime: &Runtime, bundle: Bundle) {
    let bundle = bundle.args(["sh", "-c", DEVICES]).capabilities(&["CAP_MKNOD"]);
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["null", "end"], "{output}");
    assert_eq!(output.stderr.matches("Operation not permitted").count(), 2, "{output}");
}

/// GHSA-g54h-m393-cpwq: what is not denied by a rule is allowed. A rule that denies all is what `spec` writes.
#[test]
fn ghsa_g54h_m393_cpwq_devices_are_denied_but_for_the_defaults() {
    check_devices(&runtime(), Bundle::new());
}

/// GHSA-g54h-m393-cpwq itself: no rules at all.
#[test]
fn ghsa_g54h_m393_cpwq_devices_are_denied_without_any_rules() {
    let runtime = runtime();
    known!(runtime, Crun: "denies only what config.json denies");
    check_devices(&runtime, Bundle::new().remove("/linux", "resources"));
    check_devices(&runtime, Bundle::new().set("/linux/resources", json!({})));
    check_devices(&runtime, Bundle::new().set("/linux/resources", json!({"devices": []})));
}

/// CVE-2023-25809: without a cgroup namespace the cgroups that are the user's own can be written to from inside, as the
/// read-only bind of /sys has the mount of cgroups below it as it was.
#[test]
fn cve_2023_25809_the_users_cgroups_cannot_be_written_from_inside() {
    let private = match host::cgroup_mode() {
        CgroupMode::Hybrid => true,
        CgroupMode::V2 => false,
        _ => skip!("the host has no cgroup2"),
    };
    let delegated = Delegated::on_cgroup2();
    let runtime = delegated.around(if private { as_user().on_cgroup2() } else { as_user() });
    known!(runtime, Crun "1.8.": "wants systemd for a cgroup of its own");
    let dir = delegated.dir().file_name().unwrap().to_str().unwrap().to_owned();
    let attempt = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/{dir} /sys/fs/cgroup/{dir}/own; do mkdir $d/x && echo made $d; \
         echo $$ > $d/cgroup.procs && echo moved to $d; done 2>/dev/null; echo tried"
    );
    assert_eq!(runtime.run(&script(&attempt)).ok().lines(), ["tried"]);
}

/// GHSA-5g49-rx9x-qfc6 and crun's of 1.28 and 1.29: dots in the path of a cgroup lead out of where it has to be.
#[test]
fn ghsa_5g49_rx9x_qfc6_a_cgroups_path_with_dots_stays_below_the_cgroup_root() {
    let runtime = runtime();
    for path in ["/../../../{}-dots", "/{}-up/../../../{}-dots", "../../{}-dots"] {
        let bundle = Bundle::sleeper().cgroups_path(&path.replace("{}", runtime.tag()));
        let container = runtime.container(&bundle);
        let output = container.create();
        if !output.success() {
            output.fails(&[]);
            continue;
        }
        let dirs = container.proc("cgroup");
        for line in dirs.lines().filter(|line| line.contains(runtime.tag())) {
            assert!(!line.contains(".."), "{line}");
            let controller = line.split(':').nth(1).unwrap().split(',').next().unwrap();
            assert!(host::cgroup_dir(line, controller).unwrap().is_dir(), "{line}");
        }
    }
    // crun makes this one on the way out of it, and leaves it.
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let _only_with_crun = fs::remove_dir(hierarchy.join(format!("{}-up", runtime.tag())));
    }
}

/// The same family: `exec --cgroup` leads out of the container's cgroup.
#[test]
fn ghsa_5g49_rx9x_qfc6_an_exec_stays_below_the_containers_cgroup() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "joins what `..` leads to");
    let bundle = Bundle::sleeper();
    let (container, other) = (runtime.container(&bundle), runtime.container(&bundle));
    container.up();
    other.up();
    let beside = format!("../{}", other.id());
    for path in ["..", "../../..", "foo/../..", &beside, &format!("foo/../{beside}")] {
        for path in [path.to_owned(), format!("pids:{path}")] {
            let output = container.exec_with(&["--cgroup", &path], ["cat", "/proc/self/cgroup"]);
            assert_eq!(output.fails(&[]).stdout, "", "{path}");
        }
    }
}

/// No CVE, crun 1.28 "restrict valid container ID names": an id is a path, and `delete --force ..` removes the parent of
/// `--root`.
#[test]
fn crun_1_28_bad_ids_are_refused_and_nothing_outside_the_root_is_touched() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "takes `..` for an id: `delete --force ..` removes the parent of --root");
    let bundle = Bundle::new();
    bundle.write();
    let canary = runtime.dir().join("canary");
    fs::write(&canary, "").unwrap();
    // The root itself is there, as it is on a host in use.
    let inhabitant = runtime.container(&bundle);
    inhabitant.create().ok();
    let long = "x".repeat(300);
    let bad: [&[u8]; 12] =
        [b"", b".", b"..", b"a/b", b"/abs", b"../canary", b"a\nb", b"a b", b"\xff", b"a\xffb", b"a:b", long.as_bytes()];
    for id in bad.map(OsStr::from_bytes) {
        let create = runtime.raw().args(["create", "--bundle"]).arg(bundle.path()).arg(id).run();
        create.fails(&[]);
        for verb in [&["state"][..], &["start"], &["kill"], &["delete"], &["pause"], &["exec"]] {
            let command = runtime.raw().args(verb).arg(id);
            let command = if verb == ["exec"] { command.arg("true") } else { command };
            command.run().fails(&[]);
        }
        // runc takes a name that cannot be for one that is not there.
        let output = runtime.raw().args(["delete", "--force"]).arg(id).run();
        if runtime.is_tare() {
            output.fails(&[]);
        }
        assert!(canary.exists() && bundle.rootfs().exists(), "{id:?}");
        inhabitant.is("created");
    }
}
