//! A random bundle that is valid: whatever comes of it depends on the kernel and on how its parts meet.

use std::path::Path;

use serde_json::{Value, json};
use tare_testkit::{Bundle, Runtime, host};

/// SplitMix64: of one seed always the same numbers.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// Once in `n` times.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn one_of<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
    }

    /// One of the first once in `n` times, else of the others.
    fn rarely_of<'a>(&mut self, n: usize, rare: &[&'a str], usual: &[&'a str]) -> &'a str {
        let list = if self.once_in(n) { rare } else { usual };
        self.one_of(list)
    }

    /// A few of them, some perhaps twice.
    pub(super) fn some_of<'a>(&mut self, values: &[&'a str], most: usize) -> Vec<&'a str> {
        (0..self.below(most + 1)).map(|_| self.one_of(values)).collect()
    }
}

/// What the process does, and the exit code of `run`.
const PROGRAMS: [(&[&str], i32); 6] = [
    (&["true"], 0),
    (&["/bin/sh", "-c", "exit 7"], 7),
    (&["sh", "-c", "cat /proc/self/mountinfo >/dev/null 2>&1; exit 0"], 0),
    (&["sh", "-c", "(true &) ; exit 3"], 3),
    (&["sh", "-c", "kill -9 $$; exit 137"], 137),
    (&["no-such-program"], 1),
];

/// A bundle, and the exit code of its program.
pub(super) fn bundle(random: &mut Random, sources: &Path, runtime: &Runtime) -> (Bundle, i32) {
    let most = if random.once_in(8) { PROGRAMS.len() } else { PROGRAMS.len() - 2 };
    let (program, code) = PROGRAMS[random.below(most)];
    let mut made =
        Bundle::new().args(program.iter().copied()).symlink("/link", "tmp").symlink("/dangling", "made/of/it");
    made = namespaces(random, made);
    let has = Has::of(&made);
    let mounts = random.below(4);
    for _ in 0..mounts.saturating_sub(usize::from(!has.mount)) {
        made = made.mount(mount(random, sources, &has));
    }
    if random.once_in(12) {
        // Another order: what covers what changes.
        made = made.edit(|config| {
            let list = config["mounts"].as_array_mut().unwrap();
            let (a, b) = (random.below(list.len()), random.below(list.len()));
            list.swap(a, b);
        });
    }
    made = process(random, made, &has);
    made = linux(random, made, &has, runtime);
    made = attributes(random, made);
    if random.once_in(4) {
        made = hooks(random, made);
    }
    if random.once_in(4) {
        made = made.set("/linux/seccomp", seccomp(random));
    }
    (made, code)
}

struct Has {
    user: bool,
    mount: bool,
    uts: bool,
    ipc: bool,
    network: bool,
}

impl Has {
    fn of(bundle: &Bundle) -> Self {
        let config = bundle.config();
        let list = config["linux"]["namespaces"].as_array().unwrap();
        let has = |kind: &str| list.iter().any(|namespace| namespace["type"] == kind);
        Self {
            user: has("user"),
            mount: has("mount"),
            uts: has("uts"),
            ipc: has("ipc"),
            network: has("network") && !list.iter().any(|one| one["type"] == "network" && one.get("path").is_some()),
        }
    }
}

fn namespaces(random: &mut Random, mut bundle: Bundle) -> Bundle {
    for kind in ["pid", "network", "ipc"] {
        bundle = match random.below(12) {
            0 => bundle.without_namespace(kind),
            1 => bundle.join_namespace(kind, format!("/proc/self/ns/{}", if kind == "network" { "net" } else { kind })),
            _ => bundle,
        };
    }
    if random.once_in(12) {
        bundle = bundle.without_namespace("uts").remove("", "hostname");
    }
    if random.once_in(12) {
        bundle = bundle.without_namespace("mount");
        bundle = bundle.remove("/linux", "maskedPaths").remove("/linux", "readonlyPaths");
    }
    if random.once_in(2) {
        bundle = bundle.namespace("cgroup");
    }
    if random.once_in(4) {
        bundle = bundle.user_namespace(100_000, [2000, 65_536][random.below(2)]);
    }
    if random.once_in(6) && host::has_namespace("time") {
        bundle = bundle.namespace("time");
        if random.once_in(2) {
            let seconds = i64::try_from(random.below(100_000)).unwrap();
            bundle = bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": seconds, "nanosecs": 17}}));
        }
    }
    bundle
}

const DESTINATIONS: &[&str] = &[
    "/mnt",
    "/tmp",
    "/a",
    "/a/b",
    "/a/b/c",
    "relative/one",
    "/link",
    "/link/in",
    "/dangling",
    "/run",
    "/mnt/../opt",
    "//var//lib",
    "/dev/extra",
];
/// Where a mount is refused, or takes something away.
const BAD_DESTINATIONS: &[&str] =
    &["/bin", "/etc/file", "/sys/fs/extra", "/proc/cpuinfo", "/proc/extra", "/", "/link/../.."];

const ATTRIBUTES: &[&str] = &[
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "nosymfollow",
    "rro",
    "rnosuid",
    "rnodev",
    "rnoexec",
    "rnoatime",
    "rrelatime",
    "rnosymfollow",
    "rrw",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
    "defaults",
    "",
];
const SUPERBLOCK: &[&str] = &["sync", "dirsync", "lazytime", "silent", "loud", "iversion", "async", "nolazytime"];

fn mount(random: &mut Random, sources: &Path, has: &Has) -> Value {
    let destination = random.rarely_of(40, BAD_DESTINATIONS, DESTINATIONS);
    let mut options: Vec<String> = random.some_of(ATTRIBUTES, 4).into_iter().map(str::to_owned).collect();
    let (kind, source) = match random.below(12) {
        0..=4 => {
            options.push(random.one_of(&["bind", "rbind"]).to_owned());
            if random.once_in(5) {
                options.push(random.one_of(&["idmap", "ridmap"]).to_owned());
            }
            let name = random.rarely_of(8, &["file", "missing", "socket"], &["dir", "tree", "link"]);
            let source = sources.join(name).to_str().unwrap().to_owned();
            let mut mount = json!({"destination": destination, "type": random.one_of(&["bind", "none", ""]),
                "source": source, "options": options});
            let by_option = options.iter().any(|option| option.ends_with("idmap"));
            if (by_option && !has.user) || random.once_in(10) {
                let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
                mount["uidMappings"] = mappings.clone();
                mount["gidMappings"] = mappings;
            }
            return mount;
        }
        5..=8 => {
            options.extend(
                random
                    .some_of(&["size=64k", "mode=700", "uid=1000", "nr_inodes=100", "tmpcopyup"], 3)
                    .into_iter()
                    .map(str::to_owned),
            );
            options.extend(random.some_of(SUPERBLOCK, 2).into_iter().map(str::to_owned));
            ("tmpfs", "tmpfs")
        }
        9 if has.ipc && random.once_in(2) => ("mqueue", "mqueue"),
        10 if random.once_in(2) => ("devpts", "devpts"),
        9..=10 => ("tmpfs", "tmpfs"),
        _ => {
            let kind = random.one_of(&["sysfs", "cgroup", "ramfs", "tmpfs", "cgroup2", "no-such-fs"]);
            (kind, kind)
        }
    };
    if random.once_in(15) {
        options.push("remount".to_owned());
    }
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

const CAPABILITIES: &[&str] = &[
    "CAP_KILL",
    "CAP_CHOWN",
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_SETPCAP",
    "CAP_BPF",
    "CAP_SYS_PTRACE",
    "CAP_SETUID",
    "CAP_CHECKPOINT_RESTORE",
];

fn process(random: &mut Random, mut bundle: Bundle, has: &Has) -> Bundle {
    if random.once_in(3) {
        let uid = [0, 1, 1000, 1999][random.below(4)];
        let groups: Vec<usize> = (0..random.below(4)).map(|_| random.below(2000)).collect();
        let mut user = json!({"uid": uid, "gid": random.below(2000), "additionalGids": groups});
        if random.once_in(2) {
            user["umask"] = json!(random.below(0o1000));
        }
        bundle = bundle.set("/process/user", user);
    }
    if random.once_in(3) {
        let all = random.some_of(CAPABILITIES, 6);
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            // Each as the others, or now and then not: the kernel wants some to hold others.
            let names = if random.once_in(20) { random.some_of(CAPABILITIES, 6) } else { all.clone() };
            bundle = bundle.set(&format!("/process/capabilities/{set}"), json!(names));
        }
    } else if random.once_in(8) {
        bundle = bundle.remove("/process", "capabilities");
    }
    if random.once_in(3) {
        bundle = bundle.set("/process/noNewPrivileges", json!(random.once_in(2)));
    }
    if random.once_in(4) {
        bundle = bundle.set(
            "/process/cwd",
            json!(random.one_of(&["/", "/tmp", "/made/here", "/link", "/proc/1", "/tmp/../made"])),
        );
    }
    if random.once_in(4) {
        let names =
            ["CORE", "NOFILE", "NPROC", "STACK", "FSIZE", "AS", "MEMLOCK", "NICE", "RTPRIO", "SIGPENDING", "CPU"];
        let first = random.below(names.len());
        let limits: Vec<Value> = names[first..]
            .iter()
            .take(random.below(4))
            .map(|name| {
                let most = if random.once_in(6) { 6 } else { 4 };
                // Little of some leaves no room for a program.
                let hard = [4096, 1 << 20, 1 << 26, u64::MAX, 64, 0][random.below(most)];
                let soft = if random.once_in(2) { hard } else { hard / 2 };
                json!({"type": format!("RLIMIT_{name}"), "hard": hard, "soft": soft})
            })
            .collect();
        bundle = bundle.set("/process/rlimits", json!(limits));
    }
    if random.once_in(5) {
        bundle = bundle.env("HOME=").env("A=1").env("A=2\nlines");
    }
    if random.once_in(6) {
        bundle = bundle.set(
            "/process/oomScoreAdj",
            json!(i64::try_from(random.below(1001)).unwrap() - i64::from(random.once_in(40))),
        );
    }
    if random.once_in(3) && has.mount {
        bundle = bundle.readonly();
    }
    if has.uts && random.once_in(4) {
        bundle = bundle.set("/domainname", json!("example.org"));
    }
    bundle
}

fn linux(random: &mut Random, mut bundle: Bundle, has: &Has, runtime: &Runtime) -> Bundle {
    if has.mount && random.once_in(3) {
        let all = ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
        bundle = bundle.set("/linux/rootfsPropagation", json!(random.one_of(&all)));
    }
    if has.mount && random.once_in(3) {
        let paths = [
            "/proc/kcore",
            "/proc",
            "/sys",
            "/proc/sys/net",
            "/etc/passwd",
            "/missing",
            "/tmp",
            "/dev/null",
            "/link",
            "/bin/sh",
            "/proc/self/mem",
        ];
        bundle = bundle.set("/linux/maskedPaths", json!(random.some_of(&paths, 6)));
        bundle = bundle.set("/linux/readonlyPaths", json!(random.some_of(&paths, 6)));
    }
    if random.once_in(4) {
        let devices: Vec<Value> = (0..random.below(4))
            .map(|_| {
                let path = random.one_of(&["/dev/own", "/dev/null", "/dev/net/tun", "/made/node", "/dev/own/", "/link/node", "/dev/fuse"]);
                match random.below(4) {
                    // A fifo for /dev/null makes the program wait for a reader.
                    0 => json!({"type": "p", "path": path.replace("null", "fifo"), "fileMode": 0o600}),
                    1 => json!({"type": "b", "path": path, "major": 7, "minor": 0, "uid": 1000}),
                    2 => json!({"type": "u", "path": path, "major": 1, "minor": 3}),
                    _ => json!({"type": "c", "path": path, "major": 1, "minor": 3, "fileMode": 0o666, "uid": 1, "gid": 2}),
                }
            })
            .collect();
        bundle = bundle.set("/linux/devices", json!(devices));
    }
    if random.once_in(3) {
        let mut sysctl = serde_json::Map::new();
        if has.ipc {
            sysctl.insert("kernel.shmmax".into(), json!("65536"));
        }
        if has.network {
            sysctl.insert(
                random.one_of(&["net.ipv4.ip_forward", "net/ipv4/conf/lo/forwarding", "net.core.somaxconn"]).into(),
                json!("1"),
            );
            if random.once_in(20) {
                sysctl.insert("net.no.such".into(), json!("1"));
            }
        }
        bundle = bundle.set("/linux/sysctl", Value::Object(sysctl));
    }
    let place = random.below(6);
    if place < 2 {
        let name = format!("{}-{}", runtime.tag(), random.below(1_000_000));
        let before = match (runtime.uses_systemd(), place) {
            (true, 0) => "system.slice:random:",
            (true, _) => "::",
            (false, 0) => "/",
            (false, _) => "",
        };
        bundle = bundle.cgroups_path(&format!("{before}{name}"));
    }
    if random.once_in(4) {
        let (name, value) = match random.below(13) {
            0..=3 => ("pids", json!({"limit": ([-1, 1000, 50, 5, 1, 0])[random.below(6)]})),
            4..=6 => ("memory", json!({"limit": ([1 << 26, 1 << 28, 1 << 20, 1 << 12])[random.below(4)]})),
            7..=9 => ("cpu", json!({"shares": random.below(270_000), "quota": 50_000, "period": 100_000})),
            10 => ("cpu", json!({"cpus": random.one_of(&["0", "0-1", "0,1", "99"])})),
            11 => ("hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}])),
            _ => ("blockIO", json!({"weight": random.below(1100)})),
        };
        bundle = bundle.resource(name, value);
    }
    bundle
}

fn attributes(random: &mut Random, mut bundle: Bundle) -> Bundle {
    if random.once_in(12) {
        bundle = bundle.set("/linux/personality", json!({"domain": random.one_of(&["LINUX", "LINUX32"])}));
    }
    if random.once_in(12) {
        let mode = random.one_of(&["MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED"]);
        let nodes = if matches!(mode, "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
        bundle = bundle.set("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes, "flags": []}));
    }
    if random.once_in(12) {
        let scheduler = match random.below(4) {
            0 => json!({"policy": "SCHED_BATCH", "nice": 5}),
            1 => json!({"policy": "SCHED_FIFO", "priority": 1}),
            2 => json!({"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            _ => json!({"policy": "SCHED_OTHER"}),
        };
        bundle = bundle.set("/process/scheduler", scheduler);
    }
    if random.once_in(12) {
        let class = random.one_of(&["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]);
        bundle = bundle.set("/process/ioPriority", json!({"class": class, "priority": random.below(8)}));
    }
    if random.once_in(12) {
        bundle =
            bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": random.one_of(&["0", "0-1", "7"])}));
    }
    if random.once_in(100) {
        bundle = bundle.set("/linux/intelRdt", json!({"closID": "gold"}));
    }
    if random.once_in(100) {
        bundle = bundle.set("/process/apparmorProfile", json!("some-profile"));
    }
    if random.once_in(6) {
        bundle = bundle.set("/annotations", json!({"org.example.a": "b\nc"}));
    }
    bundle
}

fn hooks(random: &mut Random, mut bundle: Bundle) -> Bundle {
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        if random.once_in(3) {
            // In the container, where the name of busybox says what it does.
            let name = if stage == "startContainer" { "true" } else { "hook" };
            let path = if random.once_in(20) { random.one_of(&["/bin/false", "/no/such/hook"]) } else { "/bin/true" };
            bundle = bundle.hook(stage, json!({"path": path, "args": [name, stage], "env": ["A=b"], "timeout": 10}));
        }
    }
    bundle
}

fn seccomp(random: &mut Random) -> Value {
    if random.once_in(3) {
        return serde_json::from_str(include_str!("../../../../sandbox/src/seccomp/testdata/docker.json")).unwrap();
    }
    let names = [
        "mkdir",
        "ptrace",
        "socket",
        "mount",
        "kill",
        "personality",
        "no_such_call",
        "clone3",
        "openat",
        "setuid",
        "chdir",
    ];
    let rules: Vec<Value> = (0..random.below(5))
        .map(|_| {
            let names: Vec<&str> = (0..=random.below(3)).map(|_| random.one_of(&names)).collect();
            let mut rule = json!({"names": names, "action": random.one_of(&["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_KILL_PROCESS"])});
            if random.once_in(2) {
                rule["args"] = json!([{"index": random.below(6), "value": 0xffff_ffff_u64, "op": "SCMP_CMP_EQ"}]);
            }
            rule
        })
        .collect();
    let mut profile = json!({
        "defaultAction": random.one_of(&["SCMP_ACT_ALLOW", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"]),
        "architectures": random.some_of(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_RISCV64"], 3),
        "syscalls": rules,
    });
    if random.once_in(2) {
        profile["flags"] =
            json!(random.some_of(
                &["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
                2
            ));
    }
    profile
}
