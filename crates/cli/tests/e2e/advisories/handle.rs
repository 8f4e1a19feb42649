//! Class: a handle of the host leaks into the container.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use tare_testkit::{Bundle, Invocation, Output, TempDir, known, rounds, wait_until};

use crate::runtime;

/// Has the caller hold directories of the host open.
fn leaky(invocation: Invocation) -> Output {
    invocation.through_shell("exec \"$@\" 9</ 8</etc").run()
}

/// CVE-2024-21626: a working directory that goes through a descriptor, the runtime's own (it was that of
/// /sys/fs/cgroup) or the caller's.
#[test]
fn cve_2024_21626_no_cwd_leads_to_the_host_through_an_fd() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "descriptor 9 of the caller leads out");
    for fd in 3..13 {
        let bundle =
            Bundle::script("pwd; ls -d usr/share/doc").set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let container = runtime.container(&bundle);
        let output = leaky(container.verb("run").arg(container.id()));
        assert!(!output.stdout.contains("usr/share/doc"), "fd {fd}: {output}");
    }
}

/// CVE-2024-21626 of exec: `exec --cwd`.
#[test]
fn cve_2024_21626_no_cwd_of_exec_leads_to_the_host_through_an_fd() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "descriptor 9 of the caller leads out");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for fd in 3..13 {
        let exec = container.verb("exec").arg(format!("--cwd=/proc/self/fd/{fd}")).arg(container.id());
        let output = leaky(exec.args(["sh", "-c", "pwd; ls -d usr/share/doc"]));
        assert!(!output.stdout.contains("usr/share/doc"), "fd {fd}: {output}");
    }
}

/// CVE-2024-21626, the other attacks: the program is one of the host, found through a descriptor.
#[test]
fn cve_2024_21626_no_program_of_the_host_is_executed_through_an_fd() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "descriptor 9 of the caller leads out");
    let other = Bundle::new();
    let holding = |invocation: Invocation| {
        invocation.through_shell(&format!("exec \"$@\" 9<{}", other.rootfs().join("bin").display())).run()
    };
    let bundle = Bundle::sleeper();
    let exec = runtime.container(&bundle);
    exec.up();
    for fd in 3..13 {
        let args = [format!("/proc/self/fd/{fd}/busybox"), "echo".to_owned(), "escaped".to_owned()];
        let bundle = Bundle::new().args(args.clone());
        let run = runtime.container(&bundle);
        let outputs = [holding(run.verb("run").arg(run.id())), holding(exec.verb("exec").arg(exec.id()).args(&args))];
        for output in outputs {
            assert!(!output.stdout.contains("escaped"), "fd {fd}: {output}");
        }
    }
}

/// What /proc shows of directories that are open anywhere, and of working directories and roots, until it is killed. The
/// name is read before and after the look, as what is behind a number changes.
const LOOK: &str = "echo looking; while :; do for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do \
     n=$(readlink $f); test -d $f && test \"$n\" = \"$(readlink $f)\" && echo \"$n\"; done; done 2>/dev/null";

/// CVE-2016-9962: what enters a container is not to be looked into from there.
#[test]
fn cve_2016_9962_an_exec_shows_no_directory_of_the_host() {
    let runtime = runtime();
    let bundle = Bundle::script(LOOK).capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let container = runtime.container(&bundle);
    let running = container.spawn();
    wait_until("it looks", || running.stdout_so_far().starts_with("looking\n"));
    for _ in 0..rounds(200) {
        container.exec(["true"]).ok();
    }
    let seen = running.stdout_so_far();
    let names: BTreeSet<_> = seen.lines().skip(1).collect();
    assert!(names.contains("/"), "it saw roots: {names:?}");
    // The shell itself opens directories of /proc, and newer releases of runc one of a procfs that is mounted nowhere
    // (/1/task/1/fd); what ends meanwhile has no name.
    let of_procfs = |name: &str| name.starts_with("/proc") || name.contains("/task/");
    let host: Vec<_> = names.iter().filter(|name| !["", "/"].contains(name) && !of_procfs(name)).collect();
    assert_eq!(host, [&""; 0]);
}

/// CVE-2016-9962 of init: what a container that waits for its start has open is in no other's reach either.
#[test]
fn cve_2016_9962_a_created_init_shows_no_directory_of_the_host() {
    let runtime = runtime();
    known!(runtime, Crun "1.8.": "init keeps the descriptors of its caller");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    leaky(container.verb("create").arg(container.id())).ok();
    let fds = format!("/proc/{}/fd", container.pid());
    for entry in fs::read_dir(fds).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        // Through the link itself: a path of the host is looked up here, one of the container is not.
        let is_dir = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        // Newer releases of runc keep directories of a procfs that is mounted nowhere.
        let of_procfs =
            rustix::fs::statfs(entry.path()).is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC);
        assert!(!is_dir || of_procfs, "{} is {}", entry.path().display(), target.display());
    }
}

/// CVE-2015-3627: a file of the image that is a link is read on the host.
#[test]
fn cve_2015_3627_home_does_not_come_from_the_hosts_passwd() {
    let runtime = runtime();
    let outside = TempDir::new("outside");
    fs::write(outside.join("passwd"), "root:x:0:0::/stolen:/bin/sh\n").unwrap();
    let bundle = Bundle::script("echo $HOME");
    fs::remove_file(bundle.rootfs().join("etc/passwd")).unwrap();
    let bundle = bundle.symlink("etc/passwd", outside.join("passwd"));
    let output = runtime.run(&bundle).ok();
    assert!(!output.stdout.contains("stolen"), "{output}");
}

/// No CVE, issue 1962 of runc: without pivot_root the host's /proc stays under the root, and a user namespace in the
/// container may then mount one of its own that nobody masked.
#[test]
fn runc_1962_no_pivot_leaves_no_unmasked_proc_to_mount() {
    let runtime = runtime();
    let bundle = Bundle::new().args(["unshare", "-mrpf", "sh", "-c", "mount -t proc none /proc && echo mounted"]);
    let container = runtime.container(&bundle);
    let output = container.call("run", &["--no-pivot"]);
    assert!(!output.success() && !output.stdout.contains("mounted"), "{output}");
    assert!(
        output.stderr.to_lowercase().contains("permission denied") || output.stderr.contains("not permitted"),
        "{output}"
    );
}
