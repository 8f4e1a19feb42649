//! What is no bundle, no configuration, no id and no flag: each is refused with a clean line, in the log too, and leaves
//! nothing. The texts, log entries and exit codes are in `tests/bad-input.txt`, which `TARE_WRITE_GOLDEN=1` writes.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Output, Residue, TempDir, known};

use crate::runtime;

/// What is done to a good bundle, and what is called with it.
enum Input {
    /// A value of config.json, by its place.
    Value(&'static str, Value),
    /// config.json, byte for byte.
    Text(Vec<u8>),
    /// Changed after config.json was written.
    Files(Change),
    /// The arguments; `BUNDLE` and `ID` stand for those, `STOPPED` for a container that has ended.
    Arguments(Vec<String>),
}

type Change = fn(&Path);

/// Values that config.json cannot have, by their place.
fn values() -> Vec<(&'static str, Value)> {
    let bind =
        |destination: &str| json!([{"destination": destination, "type": "bind", "source": "/", "options": ["rbind"]}]);
    vec![
        ("/ociVersion", json!(null)),
        ("/ociVersion", json!(1)),
        ("/ociVersion", json!("2.0.0")),
        ("/root", json!(null)),
        ("/root", json!("rootfs")),
        ("/root/path", json!("")),
        ("/root/path", json!("no/such/dir")),
        ("/root/path", json!("config.json")),
        ("/root/path", json!("root\u{0}fs")),
        ("/process", json!(null)),
        ("/process/args", json!([])),
        ("/process/args", json!("sh")),
        ("/process/args", json!([""])),
        ("/process/args", json!(["no-such-program"])),
        ("/process/args", json!(["/etc"])),
        ("/process/args", json!(["/etc/passwd"])),
        ("/process/args", json!(["sh", "a\u{0}b"])),
        ("/process/cwd", json!("")),
        ("/process/cwd", json!("relative")),
        ("/process/cwd", json!("/etc/passwd")),
        ("/process/env", json!(["NO_VALUE"])),
        ("/process/env", json!({"A": "1"})),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!("0")),
        ("/process/user/uid", json!(4_294_967_295_u32)),
        ("/process/user/uid", json!(4_294_967_296_u64)),
        ("/process/user/uid", json!(1e30)),
        ("/process/capabilities", json!({"bounding": "CAP_KILL"})),
        ("/process/rlimits", json!([{"type": "RLIMIT_NONE", "hard": 1, "soft": 1}])),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "hard": 1, "soft": 2}])),
        ("/process/oomScoreAdj", json!(1001)),
        ("/process/oomScoreAdj", json!(0.5)),
        ("/process/scheduler", json!({"policy": "SCHED_NONE"})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_NONE", "priority": 0})),
        ("/hostname", json!("x".repeat(65))),
        ("/mounts", json!({})),
        ("/mounts", json!([{"type": "tmpfs"}])),
        ("/mounts", json!([{"destination": "", "type": "tmpfs"}])),
        ("/mounts", json!([{"destination": "/x\u{0}y", "type": "tmpfs", "source": "t"}])),
        (
            "/mounts",
            json!([{"destination": "/x", "type": "tmpfs", "source": "t", "options": ["bind", "norecovery=\u{0}"]}]),
        ),
        ("/mounts", json!([{"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}])),
        ("/mounts", bind("/proc/self/exe")),
        ("/mounts", bind("/../..")),
        ("/hooks", json!({"prestart": [{"path": "relative"}]})),
        ("/hooks", json!({"prestart": [{"path": "/no/such/hook"}]})),
        ("/hooks", json!({"createRuntime": [{"path": "/bin/false", "timeout": -1}]})),
        ("/linux", json!(null)),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}])),
        ("/linux/namespaces", json!([{"type": "moon"}])),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/no/such/netns"}]),
        ),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/etc/passwd"}])),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 0}])),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}])),
        ("/linux/devices", json!([{"path": "relative", "type": "c", "major": 1, "minor": 3}])),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}])),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 3}])),
        ("/linux/sysctl", json!({"kernel.hostname": "x"})),
        ("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ("/linux/sysctl", json!({"net.ipv4/../../kernel.panic": "1"})),
        ("/linux/cgroupsPath", json!("a\u{0}b")),
        ("/linux/resources", json!({"memory": {"limit": "lots"}})),
        ("/linux/resources", json!({"devices": [{"allow": true, "type": "q", "access": "r"}]})),
        ("/linux/resources", json!({"devices": [{"allow": true, "access": "z"}]})),
        ("/linux/resources", json!({"pids": {"limit": 9.5}})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_MAYBE"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]})),
        ("/linux/rootfsPropagation", json!("sideways")),
        ("/linux/maskedPaths", json!(["relative"])),
        ("/linux/readonlyPaths", json!([7])),
        ("/annotations", json!({"a": 1})),
    ]
}

/// Documents that are no configuration.
fn texts() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |count: usize| "[".repeat(count).into_bytes();
    vec![
        ("an empty config.json", Vec::new()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("half an object", b"{\"process\":".to_vec()),
        ("an object and more", b"{\"ociVersion\":\"1.0.2\"} trailing".to_vec()),
        ("single quotes", b"{'ociVersion': '1.0.2'}".to_vec()),
        ("bytes that are no UTF-8", b"{\"ociVersion\":\"\xff\xfe\"}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("a number that is too big", b"{\"ociVersion\":1e999}".to_vec()),
        ("a lone surrogate", b"{\"ociVersion\":\"\\ud800\"}".to_vec()),
        ("200000 levels", nested(200_000)),
        ("zeros", vec![0; 4096]),
    ]
}

/// Bundles whose files are not what they should be.
fn files() -> Vec<(&'static str, Change)> {
    fn without_config(bundle: &Path) {
        fs::remove_file(bundle.join("config.json")).unwrap();
    }
    vec![
        ("no config.json", without_config),
        ("config.json is a directory", |bundle| {
            without_config(bundle);
            fs::create_dir(bundle.join("config.json")).unwrap();
        }),
        ("config.json is a link to itself", |bundle| {
            without_config(bundle);
            symlink("config.json", bundle.join("config.json")).unwrap();
        }),
        ("config.json is a dangling link", |bundle| {
            without_config(bundle);
            symlink("missing", bundle.join("config.json")).unwrap();
        }),
        ("the rootfs is a link", |bundle| {
            fs::rename(bundle.join("rootfs"), bundle.join("real")).unwrap();
            symlink("real", bundle.join("rootfs")).unwrap();
        }),
        ("the rootfs is a file", |bundle| {
            fs::rename(bundle.join("rootfs"), bundle.join("real")).unwrap();
            fs::write(bundle.join("rootfs"), "").unwrap();
        }),
        ("proc of the rootfs is a link", |bundle| {
            fs::remove_dir(bundle.join("rootfs/proc")).unwrap();
            symlink("/tmp", bundle.join("rootfs/proc")).unwrap();
        }),
        ("dev of the rootfs is a file", |bundle| {
            fs::remove_dir(bundle.join("rootfs/dev")).unwrap();
            fs::write(bundle.join("rootfs/dev"), "").unwrap();
        }),
    ]
}

/// Command lines that cannot be meant.
fn arguments() -> Vec<&'static str> {
    vec![
        "no-such-verb",
        "--no-such-flag",
        "--root",
        "--log-format xml list",
        "create",
        "create --bundle",
        "create --bundle /no/such/bundle ID",
        "create --bundle BUNDLE",
        "create --bundle BUNDLE ID and more",
        "create --bundle BUNDLE .",
        "create --bundle BUNDLE ..",
        "create --bundle BUNDLE a/b",
        "create --bundle BUNDLE /abs",
        "create --bundle BUNDLE a:b",
        "create --bundle BUNDLE ü",
        "create --bundle BUNDLE --pid-file /no/such/dir/pid ID",
        "create --bundle BUNDLE --console-socket /no/such/socket ID",
        "create --bundle BUNDLE --preserve-fds -1 ID",
        "create --bundle BUNDLE --preserve-fds 4 ID",
        "create --bundle BUNDLE --preserve-fds many ID",
        "run --detach=perhaps --bundle BUNDLE ID",
        "start",
        "start ID",
        "start ..",
        "start STOPPED",
        "state ID",
        "state STOPPED more",
        "kill ID",
        "kill STOPPED NOSUCH",
        "kill STOPPED 0",
        "kill STOPPED 65",
        "kill STOPPED -1",
        "kill STOPPED SIG",
        "kill STOPPED TERM",
        "delete",
        "delete ID",
        "delete --force ..",
        "delete --no-such-flag STOPPED",
        "pause ID",
        "pause STOPPED",
        "resume STOPPED",
        "exec ID true",
        "exec STOPPED true",
        "exec STOPPED",
        "exec --user x STOPPED true",
        "exec --user 4294967296 STOPPED true",
        "exec --env NOVALUE STOPPED true",
        "exec --process /no/such/file STOPPED",
        "exec --cwd relative STOPPED true",
        "ps ID",
        "ps --format yaml STOPPED",
        "list --format yaml",
        "events ID",
        "events --interval never STOPPED",
        "update ID",
        "update --memory lots STOPPED",
        "update --cpu-period -5 STOPPED",
        "update --resources /no/such/file STOPPED",
        "spec --bundle /no/such/dir",
        "features more",
    ]
}

/// Everything, with a title each.
fn inputs() -> Vec<(String, Input)> {
    let values = values().into_iter().map(|(pointer, value)| {
        let shown: String = value.to_string().chars().take(90).collect();
        (format!("{pointer}: {shown}"), Input::Value(pointer, value))
    });
    let texts = texts().into_iter().map(|(name, text)| (name.to_owned(), Input::Text(text)));
    let files = files().into_iter().map(|(name, change)| (name.to_owned(), Input::Files(change)));
    let arguments = arguments().into_iter().map(|line| {
        let words = line.split_whitespace().map(str::to_owned).collect();
        (format!("tare {line}").trim_end().to_owned(), Input::Arguments(words))
    });
    // Those with a bundle of their own last.
    values.chain(texts).chain(arguments).chain(files).collect()
}

/// The command line of an input, on a bundle in which everything but config.json is good; or on one of its own.
fn prepare(bundle: Bundle, input: Input) -> (Bundle, Vec<String>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let create = words(&["create", "--bundle", "BUNDLE", "ID"]);
    match input {
        Input::Value(pointer, value) => {
            let before = bundle.config();
            let changed = bundle.set(pointer, value);
            changed.write();
            (changed.edit(|config| *config = before), create)
        }
        Input::Text(text) => {
            fs::write(bundle.path().join("config.json"), text).unwrap();
            (bundle, create)
        }
        Input::Files(change) => {
            let own = Bundle::script("echo ran");
            own.write();
            change(own.path());
            (own, create)
        }
        Input::Arguments(given) => {
            bundle.write();
            (bundle, given)
        }
    }
}

/// What was said, without what differs from one run to the next.
fn report(title: &str, output: &Output, log: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = format!("## {title}\nexit {}\n", output.code().unwrap());
    text.push_str(&output.stderr);
    for line in log.lines() {
        let mut entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{title}: {error}: {line}"));
        assert!(entry["time"].as_str().is_some_and(|time| time.len() >= 20), "{title}: {line}");
        entry["time"] = json!("TIME");
        writeln!(text, "{entry}").unwrap();
    }
    for (actual, name) in replaced {
        text = text.replace(actual, name);
    }
    text
}

#[test]
fn each_bad_input_is_refused_as_it_is_written_down() {
    let runtime = runtime();
    known!(runtime, Runc: "the texts are ours", Crun: "the texts are ours", Youki: "the texts are ours");
    let dir = TempDir::new("log");
    let (ended, mut bundle) = (Bundle::new(), Bundle::script("echo ran"));
    let stopped = runtime.container(&ended);
    stopped.up().wait_for("stopped");
    let (mut actual, mut taken) = (String::new(), Vec::new());
    for (number, (title, input)) in inputs().into_iter().enumerate() {
        let (log, id, before) = (dir.join(format!("{number}.json")), runtime.id("c"), Residue::before(&runtime));
        let words;
        (bundle, words) = prepare(bundle, input);
        let path = bundle.path().to_str().unwrap().to_owned();
        let names = [("BUNDLE", path.as_str()), ("ID", &id), ("STOPPED", stopped.id())];
        let real = |word| names.iter().find(|(name, _)| *name == word).map_or(word, |(_, real)| *real);
        let call = runtime.raw().arg("--log").arg(&log).args(["--log-format", "json"]);
        let running = call.args(words.iter().map(|word| real(word))).spawn();
        let aside = format!("/.pid.{}", running.pid());
        let output = running.wait();
        let told = fs::read_to_string(&log).unwrap_or_default();
        let replaced = [
            (path.as_str(), "BUNDLE"),
            (stopped.id(), "STOPPED"),
            (&id, "ID"),
            // A file that is written aside.
            (&aside, "/.pid.PID"),
        ];
        actual.push_str(&report(&title, &output, &told, &replaced));
        actual.push('\n');
        if output.success() {
            taken.push(title);
            let _ = runtime.verb(["delete", "--force", &id]);
            continue;
        }
        // 1 to 123 or 255: neither 101 nor 134, and no word of a panic.
        assert_eq!(output.fails(&[]).stdout, "", "{title}");
        before.assert_none();
    }
    stopped.delete().ok();
    assert_eq!(taken, [""; 0], "is no bad input");
    compare(&actual);
}

/// Compares with the file, entry by entry, or writes it.
fn compare(actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-input.txt");
    if std::env::var_os("TARE_WRITE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for (actual, expected) in actual.split("\n\n").zip(expected.split("\n\n")) {
        assert_eq!(actual, expected);
    }
    assert_eq!(actual.len(), expected.len());
}
