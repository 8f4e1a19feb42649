use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::template::{self, Cgroups};

/// A bundle directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tare-spec-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir_all(dir.join("rootfs")).unwrap();
        Self(dir)
    }

    fn load(&self, config: impl AsRef<[u8]>) -> Result<Bundle, String> {
        fs::write(self.0.join("config.json"), config).unwrap();
        Bundle::load(&self.0).map_err(|error| error.to_string())
    }

    /// The error without the path of config.json.
    fn refusal(&self, config: impl AsRef<[u8]>) -> String {
        let error = self.load(config).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        let prefix = format!("{}/config.json:", self.0.display());
        error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The template, indented by two spaces, with `value` at `pointer`.
fn config(pointer: &str, value: Value) -> String {
    let mut document = template::document(Cgroups::Legacy);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    serde_json::to_string_pretty(&document).unwrap()
}

fn default() -> String {
    template::document(Cgroups::Legacy).to_string()
}

#[test]
fn a_bundle_is_loaded() {
    let dir = Dir::new();
    let bundle = dir.load(default()).unwrap();
    assert_eq!((bundle.dir.as_path(), bundle.rootfs), (dir.0.as_path(), dir.0.join("rootfs")));
    assert_eq!(bundle.config, default().as_bytes());
    assert_eq!(bundle.spec.version(), "1.3.0");

    let link = dir.0.join("link");
    symlink(&dir.0, &link).unwrap();
    assert_eq!(Bundle::load(&link).unwrap().dir, dir.0);
}

#[test]
fn an_error_names_path_line_column_pointer_and_cause() {
    let dir = Dir::new();
    let text = "{\n  \"ociVersion\": \"1.0.0\",\n  \"process\": {\"args\": [\"sh\", 7]}\n}";
    assert_eq!(dir.refusal(text), "3:30: /process/args/1: invalid type: integer `7`, expected a string");
    let text =
        "{\n  \"ociVersion\": \"1.0.0\",\n  \"root\": {\"path\": \"rootfs\"},\n  \"linux\": {\"namespaces\": 5}\n}";
    assert_eq!(dir.refusal(text), "4:27: /linux/namespaces: invalid type: integer `5`, expected an array");
    let text = "{\"annotations\": {\"two\\nlines\": 7}}";
    assert_eq!(dir.refusal(text), "1:32: /annotations/two\\nlines: invalid type: integer `7`, expected a string");
    assert_eq!(
        dir.refusal("{\"ociVersion\": \"1.0.0\",\n\"root\": {\"path\": \"rootfs\"}}"),
        "1:1: /process: required"
    );
    let pretty = config("/process/cwd", json!("tmp"));
    let line = pretty.lines().position(|line| line.contains("\"cwd\"")).unwrap() + 1;
    assert_eq!(dir.refusal(pretty), format!("{line}:12: /process/cwd: must be an absolute path, not \"tmp\""));
}

#[test]
fn broken_documents_give_one_line() {
    let dir = Dir::new();
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_process = format!("{{\"process\": {deep}}}");
    let cases: [(&[u8], &str); 13] = [
        (b"", "1:0: EOF while parsing a value"),
        (b"null", "1:1: invalid type: null, expected an object"),
        (b"true", "1:1: invalid type: boolean `true`, expected an object"),
        (b"\"x\"", "1:1: invalid type: string \"x\", expected an object"),
        (b"[]", "1:1: /ociVersion: required"),
        (b"{}", "1:1: /ociVersion: required"),
        (b"{\n  \"ociVersion\": }", "2:17: expected value"),
        (b"{\"ociVersion\": \"1.0.0\"", "1:22: EOF while parsing an object"),
        (b"{} x", "1:4: trailing characters"),
        (b"{\"ociVersion\": \"\xff\"}", "1:17: invalid unicode code point"),
        (b"{\"ociVersion\": 1}", "1:16: /ociVersion: invalid type: integer `1`, expected a string"),
        (deep.as_bytes(), "1:128: recursion limit exceeded"),
        (deep_process.as_bytes(), "1:139: recursion limit exceeded"),
    ];
    for (text, expected) in cases {
        let shown = String::from_utf8_lossy(&text[..text.len().min(40)]);
        assert_eq!(dir.refusal(text), expected, "{shown}");
    }
}

#[test]
fn what_is_not_a_file_is_named() {
    let dir = Dir::new();
    let path = dir.0.join("config.json");
    let missing = Bundle::load(&dir.0).unwrap_err().to_string();
    assert_eq!(missing, format!("{}: no such file or directory (ENOENT)", path.display()));
    fs::create_dir(&path).unwrap();
    let directory = Bundle::load(&dir.0).unwrap_err().to_string();
    assert_eq!(directory, format!("{}: is a directory (EISDIR)", path.display()));
    let none = Bundle::load(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert_eq!(none, "bundle \"/nowhere/at/all\": no such file or directory (ENOENT)");
    let file = Bundle::load(Path::new("/proc/version")).unwrap_err().to_string();
    assert_eq!(file, "/proc/version/config.json: not a directory (ENOTDIR)");
}

#[test]
fn the_root_is_a_directory_behind_no_symlink() {
    let dir = Dir::new();
    fs::create_dir_all(dir.0.join("images/web")).unwrap();
    symlink("rootfs", dir.0.join("link")).unwrap();
    symlink("images", dir.0.join("behind")).unwrap();
    fs::write(dir.0.join("file"), "").unwrap();
    let root = |path: &str| {
        let bundle = dir.load(config("/root/path", json!(path)));
        bundle.map(|bundle| bundle.rootfs.strip_prefix(&dir.0).unwrap().to_owned())
    };
    let absolute = dir.0.join("images/web").display().to_string();
    for (path, expected) in [
        ("rootfs", "rootfs"),
        ("./rootfs/", "rootfs"),
        ("images/web", "images/web"),
        ("images/../rootfs", "rootfs"),
        (absolute.as_str(), "images/web"),
    ] {
        assert_eq!(root(path), Ok(expected.into()), "{path}");
    }
    let absolute_link = dir.0.join("behind/web").display().to_string();
    for (path, cause) in [
        ("link", "symbolic link"),
        ("link/", "symbolic link"),
        ("behind/web", "symbolic link"),
        (absolute_link.as_str(), "symbolic link"),
        ("file", "is not a directory"),
        ("none", "no such file or directory (ENOENT)"),
        ("file/x", "not a directory (ENOTDIR)"),
    ] {
        let error = root(path).unwrap_err();
        assert!(error.contains(": /root/path: ") && error.contains(cause), "{path}: {error}");
    }
}

#[test]
fn what_go_lets_pass_is_let_pass() {
    let dir = Dir::new();
    let caps = json!({"bounding": ["CAP_KILL", "CAP_FROM_THE_FUTURE"], "effective": null, "permitted": ["kill"]});
    let bundle = dir.load(config("/process/capabilities", caps)).unwrap();
    let caps = bundle.spec.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert_eq!(caps.bounding().as_ref().unwrap().len(), 1);
    assert!(caps.effective().is_none());

    let user = dir.load(config("/process/user", json!({"uid": null, "gid": 5}))).unwrap().spec;
    assert_eq!((user.process().as_ref().unwrap().user().uid(), user.process().as_ref().unwrap().user().gid()), (0, 5));
    dir.load(config("/process/user", Value::Null)).unwrap();
    dir.load(config("/windows", json!({"layerFolders": 7}))).unwrap();
    dir.load(config("/unknown", json!({"deep": [[[]]]}))).unwrap();
    dir.load(config("/process/rlimits", json!([{"type": "RLIMIT_AS", "hard": u64::MAX, "soft": u64::MAX}]))).unwrap();

    let rules = json!([{"allow": false, "type": "", "major": null, "access": "rwm"}]);
    let rules = dir.load(config("/linux/resources/devices", rules)).unwrap().spec;
    let rules = rules.linux().as_ref().unwrap().resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!((rules[0].typ(), rules[0].major()), (None, None));

    let limits = json!([{"pageSize": "2MB", "limit": u64::MAX}]);
    let limits = dir.load(config("/linux/resources/hugepageLimits", limits)).unwrap().spec;
    let limits = limits.linux().as_ref().unwrap().resources().as_ref().unwrap().hugepage_limits().clone().unwrap();
    assert_eq!(limits[0].limit(), i64::MAX);

    let twice = format!("{{\"ociVersion\": \"9.9.9\", {}", &default()[1..]);
    assert_eq!(dir.load(twice).unwrap().spec.version(), "1.3.0");
}

#[test]
fn what_go_refuses_is_refused() {
    let dir = Dir::new();
    for (pointer, value, at) in [
        ("/process/user", json!({"uid": -1, "gid": 0}), "/process/user/uid"),
        ("/process/user", json!({"uid": 4_294_967_296_u64, "gid": 0}), "/process/user/uid"),
        ("/process/rlimits", json!([{"type": "RLIMIT_MAGIC", "hard": 1, "soft": 1}]), "/process/rlimits/0/type"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "hard": -1, "soft": 1}]), "/process/rlimits/0/hard"),
        ("/process/capabilities", json!({"bounding": [7]}), "/process/capabilities/bounding/0"),
        ("/linux/namespaces", json!([{"type": "magic"}]), "/linux/namespaces/0/type"),
        ("/linux/resources", json!({"memory": {"limit": "1g"}}), "/linux/resources/memory/limit"),
        ("/annotations", json!({"a": 1}), "/annotations/a"),
        ("/hooks", json!({"prestart": [{"args": []}]}), "/hooks/prestart/0"),
    ] {
        let refusal = dir.refusal(config(pointer, value.clone()));
        assert!(refusal.contains(&format!(": {at}: ")), "{pointer} {value}: {refusal}");
    }
}

#[test]
fn several_ways_to_say_one_thing_become_one() {
    let dir = Dir::new();
    let bundle = dir.load(config("/linux/resources/pids", json!({}))).unwrap();
    assert_eq!(*bundle.spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids(), None);
    let bundle = dir.load(config("/linux/resources/pids", json!({"limit": 0}))).unwrap();
    let pids = bundle.spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().unwrap();
    assert_eq!(pids.limit(), 0);
    let bundle = dir.load(config("/mounts", json!([{"destination": "data", "type": "tmpfs"}]))).unwrap();
    assert_eq!(bundle.spec.mounts().as_ref().unwrap()[0].destination(), Path::new("/data"));
    let spaces = json!([{"type": "mount", "path": ""}, {"type": "uts"}]);
    let bundle = dir.load(config("/linux/namespaces", spaces)).unwrap();
    assert_eq!(*bundle.spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap()[0].path(), None);
}

#[test]
fn the_network_of_the_host_is_not_tuned() {
    let dir = Dir::new();
    let mut document = template::document(Cgroups::Legacy);
    document["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    document["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
    let refusal = dir.refusal(document.to_string());
    assert!(refusal.contains("/linux/sysctl/net.ipv4.ip_forward: must not be set"), "{refusal}");
    document["linux"]["namespaces"][1]["path"] = json!("/nowhere");
    assert!(dir.refusal(document.to_string()).contains("(ENOENT)"));
}

#[test]
fn a_process_is_decoded_with_the_same_errors() {
    let process = |text: &str| decode::process(Path::new("p.json"), text.as_bytes()).map_err(|error| error.to_string());
    let good = process(r#"{"cwd": "/", "args": ["sh"], "capabilities": {"bounding": ["CAP_NEW"]}}"#).unwrap();
    assert_eq!(good.user().uid(), 0);
    for (text, expected) in [
        ("{\n\"cwd\": \"/\", \"args\": []}", "p.json:2:21: /args: must not be empty"),
        ("{\"cwd\": \"x\", \"args\": [\"a\"]}", "p.json:1:9: /cwd: must be an absolute path, not \"x\""),
        ("{\"args\": [\"a\"]}", "p.json:1:1: missing field `cwd`"),
        ("{\"cwd\": \"/\", \"args\": [\"a\\u0000\"]}", "p.json:1:23: /args/0: contains a NUL byte"),
        (
            "{\"cwd\": \"/\", \"args\": [\"a\"], \"scheduler\": {\"policy\": \"SCHED_IDLE\", \"priority\": 1}}",
            "p.json:1:79: /scheduler/priority: means nothing to SCHED_IDLE",
        ),
    ] {
        assert_eq!(process(text).unwrap_err(), expected);
    }
}

#[test]
fn attributes_are_spelt_as_the_specification_spells_them() {
    let text = r#"{"cwd": "/", "args": ["a"], "execCPUAffinity": {"initial": "", "final": "1"},
        "scheduler": {"policy": "SCHED_DEADLINE", "flags": [
            "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"]}}"#;
    let process = decode::process(Path::new("p.json"), text.as_bytes()).unwrap();
    assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 7);
    let affinity = process.exec_cpu_affinity().as_ref().unwrap();
    assert_eq!((affinity.initial().as_deref(), affinity.cpu_affinity_final().as_deref()), (None, Some("1")));
    for wrong in ["SCHED_FLAG_OTHER", "sched_flag_reclaim"] {
        let text = text.replace("SCHED_FLAG_RECLAIM", wrong);
        assert!(decode::process(Path::new("p.json"), text.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn no_single_wrong_byte_makes_it_panic() {
    let text = default();
    for index in 0..text.len() {
        for byte in [b'"', b'[', b'}', b'0', b'\\', 0, 0xff] {
            let mut broken = text.clone().into_bytes();
            broken[index] = byte;
            if let Ok(spec) = decode::spec(Path::new("c"), &broken) {
                let _ = check::text(&broken).and_then(|()| check::spec(&spec));
            }
        }
    }
}
