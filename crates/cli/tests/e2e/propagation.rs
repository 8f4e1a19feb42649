//! On a host whose mounts are shared, as systemd makes them, nothing that is mounted for a container or in it is mounted on the
//! host, unless the configuration shares it.

use serde_json::{Value, json};
use tare_testkit::{Bundle, Container, Criu, Output, Runtime, TempDir, known, skip};

use crate::checkpoint::{Saved, with_criu};
use crate::{RUNTIME, runtime};

const CRUN: &str = "1.8.1 runs below a slave of this host where cgroups are hybrid, and is not seen";

/// A volume of the host, a mount of its own, and its shared host: a mount namespace that goes with whatever reaches it.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(TempDir::new("volume"))
    }

    fn bind(&self, bundle: Bundle, options: &[&str]) -> Bundle {
        bundle.bind(self.0.path(), "/v", options)
    }

    /// Runs the bundle there with `script`, which has the runtime's command line as its `"$@"` and the volume as `$V`. What
    /// reaches the host is told at the end.
    fn with(&self, runtime: &Runtime, bundle: &Bundle, verb: &str, script: &str) -> Output {
        self.of(&runtime.container(bundle), bundle, verb, script)
    }

    fn of(&self, container: &Container<'_>, bundle: &Bundle, verb: &str, script: &str) -> Output {
        let (volume, root) = (self.0.path().display(), bundle.path().join("rootfs"));
        let new = "while read -r id parent device source point rest; do \
                       case \" $before \" in *\" $id,$point \"*) ;; *) echo \"reached $point\" ;; esac; \
                   done < /proc/self/mountinfo";
        let host = format!(
            "V={volume}; R={}; {RUNTIME}; ID={}; mount -t tmpfs -o mode=777 host $V; mount --make-rshared /; \
             umask 0; mkdir $V/in $V/late $V/sub; mkfifo $V/up $V/go; echo host > $V/file; \
             before=$(while read -r id parent device source point rest; do echo $id,$point; done < /proc/self/mountinfo); \
             before=$(echo $before); {script}; status=$?; {new}; exit $status",
            root.display(),
            container.id()
        );
        let private = format!("exec unshare --mount --propagation private sh -c '{host}' sh \"$@\"");
        container.verb(verb).arg(container.id()).through_shell(&private).run()
    }

    /// The mount points, below the volume if they are, of what reaches the host when the bundle runs.
    fn reached(&self, runtime: &Runtime, bundle: &Bundle) -> Vec<String> {
        self.points(&self.with(runtime, bundle, "run", "\"$@\"").ok())
    }

    fn points(&self, output: &Output) -> Vec<String> {
        let volume = self.0.path().display().to_string();
        let points = output.lines().into_iter().filter_map(|line| line.strip_prefix("reached ").map(str::to_owned));
        points.map(|point| point.replace(&volume, "$V")).collect()
    }
}

/// A container that may mount, whose root is shared as `asked` if that is anything.
fn bundle(script: &str, asked: &str) -> Bundle {
    let bundle = Bundle::script(script).capabilities(&["CAP_SYS_ADMIN"]);
    if asked.is_empty() { bundle } else { bundle.set("/linux/rootfsPropagation", json!(asked)) }
}

fn tmpfs(destination: &str) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"})
}

const MOUNT: &str = "set -e; mount -t tmpfs in /v/in; grep -q \" /v/in \" /proc/self/mountinfo";

#[test]
fn a_bind_shares_nothing_whatever_the_root_is_but_shared() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 leaves what is mounted below the host's root shared with `private` and `slave`");
    for asked in ["", "rslave", "slave", "rprivate", "private"] {
        for options in [&["rbind"][..], &["bind"], &["rbind", "rshared"], &["rbind", "rslave"], &["rbind", "rprivate"]]
        {
            let host = Host::new();
            let bundle = host.bind(bundle(MOUNT, asked), options).mount(tmpfs("/v/sub"));
            assert!(host.reached(&runtime, &bundle).is_empty(), "{asked:?}, {options:?}");
        }
    }
}

#[test]
fn what_is_asked_to_be_shared_is() {
    let runtime = runtime();
    known!(runtime, Crun: CRUN);
    for (asked, options, expected) in [
        ("rshared", &["rbind", "rshared"][..], &["$V/sub", "$V/in"][..]),
        ("rshared", &["rbind"], &["$V/sub", "$V/in"]),
        ("rshared", &["rbind", "rslave"], &[]),
        ("shared", &["rbind", "rshared"], &["$V/sub", "$V/in"]),
        ("shared", &["rbind", "private"], &[]),
    ] {
        let host = Host::new();
        let bundle = host.bind(bundle(MOUNT, asked), options).mount(tmpfs("/v/sub"));
        assert_eq!(host.reached(&runtime, &bundle), expected, "{asked}, {options:?}");
    }
}

#[test]
fn a_user_namespace_shares_nothing_and_gets_what_the_host_mounts() {
    let runtime = runtime();
    known!(runtime, Crun: "1.8.1 does not pass on what the host mounts");
    // The host mounts while the container waits.
    let waits = format!("{MOUNT}; echo > /v/up; read line < /v/go; grep -c \" /v/late \" /proc/self/mountinfo");
    let script = "\"$@\" & read line < $V/up; mount -t tmpfs late $V/late; echo > $V/go; wait";
    for asked in ["", "rslave", "rshared"] {
        let host = Host::new();
        let inside = bundle(&waits, asked).user_namespace(100_000, 65536);
        let bundle = host.bind(inside, &["rbind"]).mount(tmpfs("/v/sub"));
        std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
        let output = host.with(&runtime, &bundle, "run", script).ok();
        assert_eq!(output.lines()[0], "1", "{asked:?}: {output}");
        assert_eq!(host.points(&output), ["$V/late"], "{asked:?}: {output}");
    }
}

#[test]
fn an_idmapped_bind_shares_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 has no idmapped mounts");
    if tare_testkit::host::kernel() < (6, 3) {
        tare_testkit::skip!("a tmpfs can be mounted with other ids since Linux 6.3");
    }
    let maps = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
    for asked in ["", "slave", "rprivate"] {
        let host = Host::new();
        let mount = json!({"destination": "/v", "type": "bind", "source": host.0.path(), "options": ["rbind", "ridmap"],
            "uidMappings": maps, "gidMappings": maps});
        let bundle = bundle(MOUNT, asked).mount(mount).mount(tmpfs("/v/sub"));
        assert!(host.reached(&runtime, &bundle).is_empty(), "{asked:?}");
    }
}

#[test]
fn a_mount_added_later_shares_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: "has no such verb", Crun: "1.8.1 has no such verb");
    let script = "\"$@\" && runtime start $ID && runtime mounts add $ID $V.json && runtime exec $ID mount -t tmpfs in /v/in && \
                  runtime exec $ID grep -c \" /v/\" /proc/self/mountinfo; runtime delete --force $ID";
    for user in [false, true] {
        for (asked, shared) in [("", false), ("private", false), ("rshared", !user)] {
            let host = Host::new();
            let mut bundle = bundle("sleep 1000", asked);
            if user {
                bundle = bundle.user_namespace(100_000, 65536);
                std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
            }
            let added = json!({"destination": "/v", "type": "bind", "source": host.0.path(), "options": ["rbind"]});
            let file = std::path::PathBuf::from(format!("{}.json", host.0.path().display()));
            std::fs::write(&file, json!([added, tmpfs("/v/sub")]).to_string()).unwrap();
            let output = host.with(&runtime, &bundle, "create", script).ok();
            std::fs::remove_file(&file).unwrap();
            assert_eq!(output.lines().first(), Some(&"2"), "{output}");
            let expected: &[&str] = if shared { &["$V/sub", "$V/in"] } else { &[] };
            assert_eq!(host.points(&output), expected, "user namespace: {user}, {asked:?}: {output}");
        }
    }
}

/// The host's /dev/null is what masks are made of.
#[test]
fn what_is_mounted_on_a_mask_is_not_on_the_hosts_dev_null() {
    let runtime = runtime();
    for asked in ["", "rshared"] {
        let host = Host::new();
        let script = "set -e; for mask in /one /two; do mount --bind /etc/passwd $mask; done; grep -c root: /one";
        let bundle = bundle(script, asked)
            .file("one", "secret")
            .file("two", "secret")
            .set("/linux/maskedPaths", json!(["/one", "/two"]));
        let output = host.with(&runtime, &bundle, "run", "\"$@\"").ok();
        assert_eq!(output.lines(), ["1"], "{asked:?}: {output}");
    }
}

#[test]
fn the_root_shares_nothing_that_is_mounted_below_it() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 leaves what is mounted below the root shared with `private` and `slave`");
    for asked in ["", "rslave", "slave", "rprivate", "private"] {
        let host = Host::new();
        let script = "set -e; mount -t tmpfs in /mnt/in; mount -t tmpfs in /home; grep -c -e /mnt/in -e /home /proc/self/mountinfo";
        // The host has a mount of its own in the root file system.
        let below = "mount --bind $V $R/mnt; \"$@\"";
        let output = host.with(&runtime, &bundle(script, asked), "run", below).ok();
        assert_eq!(output.lines()[0], "2", "{asked:?}: {output}");
        let points = host.points(&output);
        assert!(points.iter().all(|point| point.ends_with("/rootfs/mnt")) && points.len() == 1, "{asked:?}: {output}");
    }
}

/// The runtime binds it, not the configuration: where there is no cgroup namespace.
#[test]
fn a_cgroup_shares_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 shares it with `rshared`");
    let script = "set -e; for at in /sys/fs/cgroup/* /sys/fs/cgroup; do \
                  if grep -q \" $at .* - cgroup\" /proc/self/mountinfo; then mount -t tmpfs in $at; fi; done; \
                  grep -c \" - tmpfs in \" /proc/self/mountinfo";
    let host = Host::new();
    let output = host.with(&runtime, &bundle(script, "rshared"), "run", "\"$@\"").ok();
    assert_ne!(output.lines()[0], "0", "{output}");
    assert!(host.points(&output).is_empty(), "{output}");
}

/// Everything is mounted on the host then, in one place: the root.
#[test]
fn without_a_mount_namespace_nothing_is_mounted_where_a_bind_is_from() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 leaves its mounts on the host", Crun: "1.8.1 makes a mount namespace all the same");
    let host = Host::new();
    let bundle = bundle("true", "").without_namespace("mount").set("/linux/maskedPaths", json!([]));
    let bundle = bundle.set("/linux/readonlyPaths", json!([]));
    let bundle = host.bind(bundle, &["rbind"]).mount(tmpfs("/v/sub"));
    // While it is there: with the root all of it goes.
    let script = "\"$@\" && grep -c \" $R/v/sub \" /proc/self/mountinfo && grep -c \" $V/sub \" /proc/self/mountinfo; \
                  runtime delete --force $ID";
    let output = host.with(&runtime, &bundle, "create", script).ok();
    assert_eq!(output.lines(), ["1", "0"], "{output}");
}

/// Not one long sleep: a system call that CRIU has interrupted may end, and some sleep(1) with it.
const LASTS: &str = "while :; do sleep 0.1; done";

/// Two directories of one file system, and the root: the slaves of one mount of the host.
fn two_binds() -> (TempDir, Bundle) {
    let volume = TempDir::new("binds");
    let mut bundle = Bundle::script(LASTS);
    for name in ["one", "two"] {
        std::fs::create_dir(volume.join(name)).unwrap();
        std::fs::write(volume.join(name).join("file"), name).unwrap();
        bundle = bundle.bind(volume.join(name), &format!("/{name}"), &["rbind", "ro"]);
    }
    (volume, bundle)
}

/// Which of its mounts are slaves.
const SLAVES: &str = "sh -c \"while read -r id parent device root point options tag rest; do \
                      case \\$point,\\$tag in /,master:*|/one,master:*|/two,master:*) echo \\$point;; esac; \
                      done < /proc/self/mountinfo\"";

#[test]
fn a_restored_container_is_the_slave_that_it_was() {
    let (runtime, criu) = with_criu!();
    let (volume, bundle) = two_binds();
    let container = runtime.container(&bundle);
    let saved = Saved::new(&runtime, &container, criu);
    let script = format!(
        "export PATH={}; quiet() {{ \"$@\" < /dev/null > /dev/null; }}; quiet \"$@\" 2> /dev/null && runtime start $ID && runtime exec $ID {slaves} && \
         quiet runtime checkpoint --image-path {images} $ID && quiet runtime restore --bundle {bundle} --image-path {images} --detach $ID && \
         mkdir {volume}/one/late && mount -t tmpfs late {volume}/one/late && \
         runtime exec $ID {slaves} && runtime exec $ID grep -c /one/late /proc/self/mountinfo; runtime delete --force $ID",
        criu.path(),
        slaves = SLAVES,
        images = saved.images(),
        bundle = bundle.path().display(),
        volume = volume.path().display()
    );
    let host = Host::new();
    let output = saved.explain(host.of(&container, &bundle, "create", &script), "restore.log").ok();
    let slaves = ["/", "/one", "/two"];
    let lines: Vec<&str> = output.lines().into_iter().filter(|line| !line.starts_with("reached")).collect();
    assert_eq!(lines, [&slaves[..], &slaves[..], &["1"]].concat(), "{output}");
}

#[test]
fn what_was_saved_on_a_host_with_shared_mounts_comes_back_on_one_without() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "1.1.5 has CRIU make them slaves of what is private here");
    let (_volume, bundle) = two_binds();
    let container = runtime.container(&bundle);
    let saved = Saved::new(&runtime, &container, criu);
    let script = format!(
        "export PATH={}; quiet() {{ \"$@\" < /dev/null > /dev/null; }}; quiet \"$@\" 2> /dev/null && runtime start $ID && \
         quiet runtime checkpoint --image-path {} $ID",
        criu.path(),
        saved.images()
    );
    saved.explain(Host::new().of(&container, &bundle, "create", &script), "dump.log").ok();
    // Slaves of nothing that this host has.
    let private = "exec unshare --mount --propagation private \"$@\"";
    saved.explain(saved.restoring(&["--detach"]).through_shell(private).run(), "restore.log").ok();
    assert_eq!(container.shell("cat /one/file /two/file"), "onetwo");
}

/// Among the container's own: it is no peer of the host's any more.
#[test]
fn what_was_shared_with_the_host_comes_back_shared() {
    let (runtime, criu) = with_criu!();
    known!(runtime, Runc: "has CRIU make peers of what the kernel refuses");
    let host = Host::new();
    let mut bundle = Bundle::script(LASTS).set("/linux/rootfsPropagation", json!("rshared"));
    for (source, destination) in [("in", "/one"), ("sub", "/two")] {
        bundle = bundle.bind(host.0.join(source), destination, &["rbind"]);
    }
    let container = runtime.container(&bundle);
    let saved = Saved::new(&runtime, &container, criu);
    let shared = "runtime exec $ID grep -c -e \"/one .* shared:\" -e \"/two .* shared:\" /proc/self/mountinfo";
    let script = format!(
        "export PATH={}; quiet() {{ \"$@\" < /dev/null > /dev/null; }}; quiet \"$@\" 2> /dev/null && runtime start $ID && {shared} && \
         quiet runtime checkpoint --image-path {images} $ID && quiet runtime restore --bundle {bundle} --image-path {images} --detach $ID && \
         {shared}; runtime delete --force $ID",
        criu.path(),
        images = saved.images(),
        bundle = bundle.path().display(),
    );
    let output = saved.explain(host.of(&container, &bundle, "create", &script), "restore.log").ok();
    assert_eq!(output.lines(), ["2", "2"], "{output}");
}
