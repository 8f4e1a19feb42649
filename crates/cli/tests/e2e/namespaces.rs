//! Namespaces: new, shared, mapped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;
use tare_testkit::{Bundle, host, known, skip};

use crate::runtime;

/// The name in config.json, and the link in /proc/PID/ns.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

#[test]
fn each_namespace_asked_for_is_a_new_one() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().namespace("cgroup").user_namespace(100_000, 65536);
    let container = runtime.container(&bundle);
    container.up();
    for (_, link) in KINDS {
        assert_ne!(container.link(&format!("ns/{link}")), host::namespace(link), "{link}");
    }
}

#[test]
fn each_namespace_not_asked_for_is_the_callers() {
    for (kind, link) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let runtime = runtime();
        let bundle = Bundle::sleeper().without_namespace(kind);
        let bundle = if kind == "uts" { bundle.remove("", "hostname") } else { bundle };
        let container = runtime.container(&bundle);
        container.up();
        assert_eq!(container.link(&format!("ns/{link}")), host::namespace(link), "{link}");
        for other in ["cgroup", "user", "time"] {
            assert_eq!(container.link(&format!("ns/{other}")), host::namespace(other), "{other}");
        }
        for (_, other) in KINDS.into_iter().take(5).filter(|(name, _)| *name != kind) {
            assert_ne!(container.link(&format!("ns/{other}")), host::namespace(other), "{other}");
        }
    }
}

#[test]
fn a_namespace_joined_by_path_is_that_one() {
    let runtime = runtime();
    let owner = Bundle::sleeper();
    let first = runtime.container(&owner);
    first.up();
    for (kind, link) in KINDS.into_iter().filter(|(kind, _)| ["network", "ipc", "uts", "pid"].contains(kind)) {
        let path = format!("/proc/{}/ns/{link}", first.pid());
        let bundle = Bundle::sleeper().join_namespace(kind, path);
        let bundle = if kind == "uts" { bundle.remove("", "hostname") } else { bundle };
        let second = runtime.container(&bundle);
        second.up();
        for (_, other) in KINDS.into_iter().take(5) {
            let name = format!("ns/{other}");
            assert_eq!(second.link(&name) == first.link(&name), other == link, "{kind} joined: {other}");
        }
    }
}

#[test]
fn a_namespace_path_that_is_none_is_refused() {
    let runtime = runtime();
    let file = Bundle::new().join_namespace("network", "/etc/hostname");
    runtime.run(&file).fails(&[]);
    let missing = Bundle::new().join_namespace("network", "/nonexistent/ns");
    runtime.run(&missing).fails(&["no such file or directory"]);
    let other_kind = Bundle::new().join_namespace("network", "/proc/self/ns/uts");
    runtime.run(&other_kind).fails(&[]);
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 takes the last");
    let bundle = Bundle::new().edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"}));
    });
    runtime.run(&bundle).fails(&[]);
}

#[test]
fn an_unknown_namespace_is_refused() {
    let runtime = runtime();
    runtime.run(&Bundle::new().namespace("bogus")).fails(&["bogus"]);
}

#[test]
fn in_a_pid_namespace_the_process_is_pid_1_and_alone() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("echo $$; ls -d /proc/[0-9]*")).ok();
    // The shell itself expands the pattern: no second process is there yet.
    assert_eq!(output.lines(), ["1", "/proc/1"]);
}

#[test]
fn the_loopback_of_a_new_network_namespace_is_up() {
    let runtime = runtime();
    // httpd goes to the background when it listens.
    let script = "ip -o link; ip -o addr show lo; httpd -p 127.0.0.1:7777 -h /srv; wget -q -O - 127.0.0.1:7777/page";
    let output = runtime.run(&Bundle::script(script).file("srv/page", "hello")).ok();
    assert!(output.lines()[0].contains("LOOPBACK,UP"), "{output}");
    assert!(output.stdout.contains("127.0.0.1/8"), "{output}");
    assert_eq!(output.lines().last(), Some(&"hello"), "{output}");
    let links = fs::read_dir("/sys/class/net").unwrap().count();
    assert!(links == 1 || !output.stdout.contains("eth"), "sees the host's interfaces: {output}");
}

#[test]
fn hostname_is_set_inside_alone() {
    let runtime = runtime();
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let bundle = Bundle::script("hostname; cat /proc/sys/kernel/hostname").set("/hostname", json!("a-name.example"));
    let output = runtime.run(&bundle).ok();
    assert_eq!(output.lines(), ["a-name.example", "a-name.example"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn hostname_without_a_uts_namespace_is_refused() {
    let runtime = runtime();
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    runtime.run(&Bundle::new().without_namespace("uts")).fails(&["hostname"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn domainname_is_set() {
    let runtime = runtime();
    known!(runtime, Runc: "not known to 1.1.5");
    let bundle = Bundle::script("cat /proc/sys/kernel/domainname").set("/domainname", json!("example.org"));
    assert_eq!(runtime.run(&bundle).ok().text(), "example.org");
}

#[test]
fn in_a_cgroup_namespace_its_own_cgroup_is_the_root() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script("cat /proc/self/cgroup").namespace("cgroup")).ok();
    let hierarchies = output.lines().into_iter().filter(|line| !line.starts_with("0::")).collect::<Vec<_>>();
    for line in hierarchies {
        assert!(line.ends_with(":/"), "{output}");
    }
}

#[test]
fn without_a_cgroup_namespace_the_path_is_the_hosts() {
    let runtime = runtime();
    if host::cgroup_mode() == host::CgroupMode::None {
        skip!("no cgroups");
    }
    let output = runtime.run(&Bundle::script("cat /proc/self/cgroup")).ok();
    assert!(output.stdout.contains(runtime.tag()), "{output}");
}

#[test]
fn a_time_namespace_shifts_the_boot_time() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no time namespaces", Crun: "1.8.1 exits with 255 and no word");
    if !host::has_namespace("time") {
        skip!("the kernel has no time namespaces");
    }
    let bundle = Bundle::script("cat /proc/uptime; readlink /proc/self/ns/time")
        .namespace("time")
        .set("/linux/timeOffsets", json!({"boottime": {"secs": 10_000_000}, "monotonic": {"secs": 5, "nanosecs": 7}}));
    let output = runtime.run(&bundle).ok();
    let uptime: f64 = output.text().split('.').next().unwrap().parse().unwrap();
    assert!(uptime > 10_000_000.0, "{output}");
    assert_ne!(output.lines()[1], host::namespace("time").to_str().unwrap());
}

#[test]
fn a_user_namespace_maps_ids() {
    let runtime = runtime();
    let bundle =
        Bundle::script("id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /mnt/made; echo up; sleep 1000")
            .user_namespace(100_000, 65536);
    fs::set_permissions(bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o777)).unwrap();
    let container = runtime.container(&bundle);
    let running = container.spawn();
    tare_testkit::wait_until("it is up", || running.stdout_so_far().contains("up"));
    let output = running.stdout_so_far();
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "0", "100000", "65536", "up"]);
    let made = fs::metadata(bundle.rootfs().join("mnt/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_000, 100_000));
    let status = container.proc("status");
    assert!(status.contains("\nUid:\t100000\t100000\t100000\t100000\n"), "{status}");
    assert!(status.contains("\nGid:\t100000\t100000\t100000\t100000\n"), "{status}");
}

#[test]
fn a_user_namespace_has_no_groups_of_the_caller() {
    let runtime = runtime();
    let bundle = Bundle::script("grep Groups: /proc/self/status")
        .user_namespace(100_000, 65536)
        .set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
    assert_eq!(runtime.run(&bundle).ok().text().split_whitespace().collect::<Vec<_>>(), ["Groups:", "7", "8"]);
}

#[test]
fn a_user_namespace_maps_another_user() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().user_namespace(100_000, 65536).user(1000, 1001);
    let container = runtime.container(&bundle);
    container.up();
    let status = container.proc("status");
    assert!(status.contains("\nUid:\t101000\t101000\t101000\t101000\n"), "{status}");
    assert!(status.contains("\nGid:\t101001\t101001\t101001\t101001\n"), "{status}");
}

#[test]
fn a_user_that_is_not_mapped_is_refused() {
    let runtime = runtime();
    runtime.run(&Bundle::new().user_namespace(100_000, 1000).user(1000, 0)).fails(&[]);
}

#[test]
fn several_mapping_ranges_are_all_written() {
    let runtime = runtime();
    let ranges = json!([
        {"containerID": 0, "hostID": 100_000, "size": 10},
        {"containerID": 10, "hostID": 300_000, "size": 20},
        {"containerID": 1000, "hostID": 200_000, "size": 1},
    ]);
    let bundle = Bundle::script("cat /proc/self/uid_map")
        .user_namespace(1, 1)
        .set("/linux/uidMappings", ranges)
        .set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    let output = runtime.run(&bundle).ok();
    let words: Vec<_> = output.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "10", "10", "300000", "20", "1000", "200000", "1"]);
}

#[test]
fn the_host_cannot_be_seen_from_a_mount_namespace_nor_mounts_from_the_host() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let inside = container.proc("mountinfo");
    let points: Vec<_> = inside.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert!(points.contains(&"/dev/shm"), "{inside}");
    assert!(!inside.contains("/tare-e2e-") || points.iter().all(|point| !point.contains("/tare-e2e-")), "{inside}");
    let outside = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!outside.contains(bundle.path().to_str().unwrap()), "{outside}");
}
