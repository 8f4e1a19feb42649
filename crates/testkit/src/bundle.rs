//! Bundles: a config.json like the one `runc spec` writes, and a rootfs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::TempDir;

/// A bundle in its own directory. It starts as the default one (but without a terminal, running `true`, on a writable
/// root); what a test cares about is said by the methods.
#[derive(Debug)]
pub struct Bundle {
    dir: TempDir,
    config: Value,
}

impl Bundle {
    /// The default bundle.
    #[expect(clippy::new_without_default, reason = "makes files")]
    pub fn new() -> Self {
        let dir = TempDir::new("bundle");
        dir.make_rootfs(&dir.join("rootfs"));
        Self { dir, config: default_config() }
    }

    /// A bundle whose process is a shell script.
    pub fn script(script: &str) -> Self {
        Self::new().args(["sh", "-c", script])
    }

    /// A bundle whose process lives until it is killed.
    pub fn sleeper() -> Self {
        // Waits on signals, which pid 1 of a pid namespace does not get by default; sleep alone would be immune.
        Self::script("trap 'exit 0' TERM; sleep 1000 & wait")
    }

    /// process.args
    pub fn args<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<Value> = args.into_iter().map(|arg| Value::String(arg.into())).collect();
        self.set("/process/args", Value::Array(args))
    }

    /// Adds to process.env.
    pub fn env(self, variable: &str) -> Self {
        self.push("/process/env", json!(variable))
    }

    /// process.terminal
    pub fn terminal(self) -> Self {
        self.set("/process/terminal", json!(true))
    }

    /// process.user.uid and gid
    pub fn user(self, uid: u32, gid: u32) -> Self {
        self.set("/process/user", json!({"uid": uid, "gid": gid}))
    }

    /// root.readonly
    pub fn readonly(self) -> Self {
        self.set("/root/readonly", json!(true))
    }

    /// Adds to mounts.
    pub fn mount(self, mount: Value) -> Self {
        self.push("/mounts", mount)
    }

    /// Adds a bind mount.
    pub fn bind(self, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Self {
        let source = source.as_ref();
        self.mount(json!({"type": "bind", "source": source, "destination": destination, "options": options}))
    }

    /// Adds a new namespace (or takes the one of this type away first, so that it is there once).
    pub fn namespace(self, kind: &str) -> Self {
        self.without_namespace(kind).push("/linux/namespaces", json!({"type": kind}))
    }

    /// Joins a namespace.
    pub fn join_namespace(self, kind: &str, path: impl AsRef<Path>) -> Self {
        self.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path.as_ref()}))
    }

    /// Shares the caller's namespace of this type.
    pub fn without_namespace(self, kind: &str) -> Self {
        self.edit(|config| {
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != kind);
        })
    }

    /// A user namespace: `size` ids from `first_host_id` on.
    pub fn user_namespace(self, first_host_id: u32, size: u32) -> Self {
        let mapping = json!([{"containerID": 0, "hostID": first_host_id, "size": size}]);
        self.namespace("user").set("/linux/uidMappings", mapping.clone()).set("/linux/gidMappings", mapping)
    }

    /// Gives all five capability sets the same contents.
    pub fn capabilities(self, names: &[&str]) -> Self {
        let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
        let all: serde_json::Map<_, _> = sets.iter().map(|&set| (set.to_owned(), json!(names))).collect();
        self.set("/process/capabilities", Value::Object(all))
    }

    /// linux.cgroupsPath
    pub fn cgroups_path(self, path: &str) -> Self {
        self.set("/linux/cgroupsPath", json!(path))
    }

    /// linux.resources.NAME
    pub fn resource(self, name: &str, value: Value) -> Self {
        self.edit(|config| config["linux"]["resources"][name] = value)
    }

    /// Adds to hooks.STAGE.
    pub fn hook(self, stage: &str, hook: Value) -> Self {
        self.edit(|config| {
            let list = &mut config["hooks"][stage];
            if list.is_null() {
                *list = json!([]);
            }
            list.as_array_mut().unwrap().push(hook);
        })
    }

    /// Adds a hook that runs a shell script on the host. It reads its standard input to the end, whatever the script
    /// does: crun dies of SIGPIPE when a hook has not read the state.
    pub fn hook_script(self, stage: &str, script: &str) -> Self {
        let script = format!("trap 'cat > /dev/null' EXIT; {script}");
        self.hook(stage, json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin:/sbin"]}))
    }

    /// Puts a value at a JSON pointer; objects on the way are made.
    pub fn set(self, pointer: &str, value: Value) -> Self {
        self.edit(|config| {
            let mut place = config;
            for key in pointer.split('/').skip(1) {
                place = &mut place[key];
            }
            *place = value;
        })
    }

    /// Takes `KEY` out of the object at a JSON pointer.
    pub fn remove(self, pointer: &str, key: &str) -> Self {
        self.edit(|config| {
            config.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        })
    }

    /// Changes the configuration in any way.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Writes `contents` to a file in the rootfs, with the directories on the way.
    pub fn file(self, path: &str, contents: &str) -> Self {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    /// Makes a directory in the rootfs.
    pub fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.rootfs().join(path.trim_start_matches('/'))).unwrap();
        self
    }

    /// Makes a symbolic link in the rootfs, in place of what is there.
    pub fn symlink(self, path: &str, target: impl AsRef<Path>) -> Self {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).unwrap();
        }
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// The bundle directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Gives the bundle to a user, links and all; not the programs, which other bundles share. Anything that is added to
    /// it later is root's.
    pub fn owned_by(self, uid: u32) -> Self {
        give(self.path(), uid);
        self
    }

    /// Makes the configuration one for a user without privileges, as `spec --rootless` does: a user namespace in which
    /// that user is root.
    pub fn rootless(self, uid: u32) -> Self {
        let namespaced = self.user_namespace(uid, 1).without_namespace("network").remove("/linux", "resources");
        let bundle = namespaced.edit(|config| {
            for mount in config["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/sys" {
                    let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
                    *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
                }
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
        });
        bundle.owned_by(uid)
    }

    /// A copy of the configuration as it is now.
    pub fn config(&self) -> Value {
        self.config.clone()
    }

    /// Writes config.json. [`crate::Container`] does it before `create` and `run`.
    pub fn write(&self) {
        self.write_with(None);
    }

    /// Writes config.json with this linux.cgroupsPath if it has none.
    pub(crate) fn write_with(&self, cgroups_path: Option<&str>) {
        let mut config = self.config.clone();
        if let (Some(path), Some(linux)) = (cgroups_path, config.get_mut("linux").and_then(Value::as_object_mut)) {
            linux.entry("cgroupsPath").or_insert_with(|| json!(path));
        }
        let text = serde_json::to_string_pretty(&config).unwrap();
        fs::write(self.dir.join("config.json"), text).unwrap();
    }

    fn push(self, pointer: &str, value: Value) -> Self {
        self.edit(|config| config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value))
    }
}

fn give(path: &Path, uid: u32) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), uid));
    }
    if metadata.is_dir() || metadata.nlink() == 1 {
        lchown(path, Some(uid), Some(uid)).unwrap();
    }
}

fn default_config() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "tare-test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
