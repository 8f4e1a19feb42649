//! Containers that nobody wrote. Whatever their configuration: the command ends, with what it was asked for or with one
//! line that says why not, and nothing stays on the host.
//!
//! `TARE_RANDOM=3000` makes so many of each kind, `TARE_RANDOM_SEED=17` begins there: the seed that a failure prints, alone
//! with `TARE_RANDOM=1`.

#![expect(clippy::print_stderr, reason = "which seed failed, and what came of the others")]

mod config;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use tare_testkit::{Bundle, Container, Output, Residue, Runtime, TempDir, known, rounds};

use self::config::Random;
use crate::runtime;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs a case for each seed, and goes on after one that fails: the kinds of failures tell more than the first.
fn each_seed(mut case: impl FnMut(u64, &mut Value)) -> u64 {
    const ENOUGH: usize = 10;
    let (count, first) = (setting("TARE_RANDOM", rounds(100) as u64), setting("TARE_RANDOM_SEED", 1));
    let mut failed = Vec::new();
    for seed in first..first + count {
        let mut config = Value::Null;
        let outcome = catch_unwind(AssertUnwindSafe(|| case(seed, &mut config)));
        if outcome.is_err() || count == 1 {
            eprintln!("TARE_RANDOM_SEED={seed} TARE_RANDOM=1: {config}");
        }
        if outcome.is_err() {
            failed.push(seed);
        }
        assert!(failed.len() < ENOUGH, "seeds {failed:?} failed");
    }
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    count
}

/// What random bundles bind.
fn sources() -> (TempDir, UnixListener) {
    let dir = TempDir::new("sources");
    fs::create_dir_all(dir.join("dir/below")).unwrap();
    fs::create_dir_all(dir.join("tree/a/b")).unwrap();
    fs::write(dir.join("file"), "x").unwrap();
    fs::write(dir.join("tree/a/file"), "x").unwrap();
    symlink("dir", dir.join("link")).unwrap();
    let socket = UnixListener::bind(dir.join("socket")).unwrap();
    (dir, socket)
}

/// What is written to stderr besides warnings.
fn said(output: &Output) -> impl Iterator<Item = &str> {
    output.stderr.lines().filter(|line| !(line.starts_with("time=") && line.contains(" level=warning ")))
}

/// One line on stderr, and perhaps a hint, and the exit code of a failure. Returns the line.
#[track_caller]
fn one_line(output: &Output) -> String {
    let mut lines = said(output);
    let line = lines.next().unwrap_or_default();
    assert!(output.code() == Some(1) && line.starts_with("tare: "), "should fail in one line: {output}");
    assert!(lines.next().is_none_or(|hint| hint.starts_with("  hint: ")) && lines.next().is_none(), "{output}");
    line.to_owned()
}

/// What a refusal is about, without names and numbers: for the count at the end.
fn kind_of(line: &str) -> String {
    let mut quoted = false;
    let bare = line.chars().filter(|c| {
        quoted ^= *c == '"';
        !quoted && *c != '"' && !c.is_ascii_digit()
    });
    bare.collect::<String>().chars().take(110).collect()
}

/// Takes a container through its life. The exit code of its program if the runtime told it, else the line of refusal.
fn live(random: &mut Random, container: &Container, code: i32) -> Result<i32, String> {
    let flags: &[&str] = match random.below(10) {
        0 => &["--no-pivot"],
        1 => &["--no-new-keyring"],
        _ => &[],
    };
    if random.once_in(2) {
        let output = container.call("run", flags);
        // A refusal is code 1 with a line; a program that is not there too.
        if said(&output).any(|line| line.starts_with("tare: ")) {
            return Err(one_line(&output));
        }
        // What is said now is the program's.
        assert!(!output.stderr.contains("panicked at"), "{output}");
        return Ok(output.code().unwrap_or(-1));
    }
    let created = container.call("create", flags);
    if !created.success() {
        return Err(one_line(&created));
    }
    assert_eq!((created.stdout.as_str(), said(&created).next()), ("", None), "{created}");
    container.is("created");
    if random.once_in(4) {
        let deleted = if random.once_in(2) { container.delete() } else { container.delete_force() };
        assert!(deleted.success(), "{deleted}");
        return Ok(code);
    }
    let started = container.start();
    if !started.success() {
        let line = one_line(&started);
        container.delete_force().ok();
        return Err(line);
    }
    let ended = |status: &str| matches!(status, "stopped" | "none");
    if random.once_in(3) {
        // The program may be gone by now, and forbidden by its limits to be joined by another.
        let output = container.exec(["true"]);
        if !output.success() && !output.stderr.is_empty() && output.stderr.starts_with("tare: ") {
            assert!(matches!(output.code(), Some(1 | 126 | 127 | 255)), "{output}");
        }
    }
    if random.once_in(3) {
        container.delete_force().ok();
        return Ok(code);
    }
    tare_testkit::wait_until("the program ends", || ended(&container.status()));
    container.delete().ok();
    Ok(code)
}

#[test]
fn random_valid_configurations_run_or_are_refused_in_one_line_and_leave_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: "another line for a failure", Crun: "another line for a failure");
    let (sources, _socket) = sources();
    let mut refusals: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut ran = 0;
    let count = each_seed(|seed, config| {
        let mut random = Random(seed);
        let (bundle, code) = config::bundle(&mut random, sources.path(), &runtime);
        *config = bundle.config();
        let container = runtime.container(&bundle);
        match live(&mut random, &container, code) {
            Ok(told) => {
                // A limit, a filter or a mount may have ended the program early; with 2 ends a shell that cannot fork.
                let cannot_fork = bundle.config().pointer("/linux/resources/pids").is_some() && told == 2;
                assert!(told == code || told > 100 || cannot_fork, "told {told}, meant {code}");
                ran += u64::from(told == code);
            }
            Err(line) => {
                let (count, _) = refusals.entry(kind_of(&line)).or_insert((0, format!("{seed}: {line}")));
                *count += 1;
            }
        }
        assert_nothing_is_left(&runtime, &bundle);
    });
    eprintln!("{ran} of {count} ran; refused:");
    refusals.values().for_each(|(count, line)| eprintln!("{count:5} {line}"));
    assert!(count < 100 || (count / 3..count - count / 50).contains(&ran), "{ran} of {count} ran: shows little");
}

/// No state, process, cgroup, and no mount, neither in the bundle nor elsewhere.
#[track_caller]
fn assert_nothing_is_left(runtime: &Runtime, bundle: &Bundle) {
    Residue::of(runtime).assert_none();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = bundle.path().to_str().unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(path)).collect();
    assert!(left.is_empty(), "mounts are left: {left:#?}");
}

/// What a broken bundle is made of.
fn wrong_value(random: &mut Random) -> Value {
    match random.below(10) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(-1),
        4 => json!(1.5),
        5 => json!(u64::MAX),
        6 => json!(""),
        7 => json!("é\u{1F980}\n\u{0}"),
        8 => json!("SCMP_ACT_NOTHING"),
        _ => json!(true),
    }
}

/// Every place in a document, but for those that say where on the host to work: a container that came of a random answer
/// to that would not be a test of this runtime.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let members: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, member)| (name.replace('/', "~1"), member)).collect(),
        Value::Array(elements) => elements.iter().enumerate().map(|(index, one)| (index.to_string(), one)).collect(),
        _ => Vec::new(),
    };
    for (name, member) in members {
        let pointer = format!("{at}/{name}");
        let fixed = ["/root/path", "/linux/namespaces", "/linux/cgroupsPath", "/process/args", "/hooks"];
        if fixed.iter().any(|fixed| pointer.starts_with(fixed)) {
            continue;
        }
        if !matches!(pointer.as_str(), "/root" | "/linux" | "/process" | "/mounts") {
            found.push(pointer.clone());
        }
        places(member, &pointer, found);
    }
}

/// Changes the type or the value of something, drops it, or contradicts it.
fn spoil(random: &mut Random, config: &mut Value) {
    let contradictions = [
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}})),
        ("/linux/rootfsPropagation", json!("sideways")),
        ("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ("/linux/netDevices", json!({"eth0": {"name": "a/b"}})),
        ("/linux/personality", json!({"domain": "OS2"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        ("/linux/intelRdt", json!({"closID": "../x"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "3-1"})),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 3})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9})),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])),
        ("/process/oomScoreAdj", json!(1001)),
        ("/process/cwd", json!("relative")),
        ("/process/execCPUAffinity", json!({"initial": "x"})),
        ("/ociVersion", json!("2.0.0")),
        ("/mounts", json!([{"destination": ""}])),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/", "options": ["bind"], "uidMappings": [{}]}]),
        ),
        ("/hostname", json!("x".repeat(65))),
    ];
    if random.once_in(3) {
        let (pointer, value) = &contradictions[random.below(contradictions.len())];
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        if let Some(parent) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.insert(name.to_owned(), value.clone());
        }
        return;
    }
    let mut all = Vec::new();
    places(config, "", &mut all);
    let pointer = all[random.below(all.len())].clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    if random.once_in(4) {
        if let Some(parent) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.remove(&name.replace("~1", "/"));
        }
    } else {
        *config.pointer_mut(&pointer).unwrap() = wrong_value(random);
    }
}

#[test]
fn random_broken_configurations_end_in_one_line_or_in_a_container_and_leave_nothing() {
    let runtime = runtime();
    known!(runtime, Runc: "another line for a failure", Crun: "another line for a failure");
    let (sources, _socket) = sources();
    let (mut refused, mut by_check) = (0, 0);
    let count = each_seed(|seed, config| {
        let mut random = Random(seed);
        let (bundle, _) = config::bundle(&mut random, sources.path(), &runtime);
        let broken = 1 + random.below(3);
        let bundle = bundle.edit(|config| (0..broken).for_each(|_| spoil(&mut random, config)));
        *config = bundle.config();
        let container = runtime.container(&bundle);
        let created = container.create();
        let checked = runtime.raw().args(["check", "--plan"]).arg(bundle.path()).run();
        assert!(matches!(checked.code(), Some(0 | 1)), "{checked}");
        if created.success() {
            container.delete_force().ok();
        } else {
            one_line(&created);
            refused += 1;
            by_check += u64::from(!checked.success());
        }
        // What `check` refuses is not for `create` to take.
        assert!(checked.success() || !created.success(), "{checked}");
        assert!(said(&checked).all(|line| line.starts_with("tare: ")), "{checked}");
        assert_nothing_is_left(&runtime, &bundle);
    });
    eprintln!("of {count} {refused} were refused, {by_check} of them by check");
    assert!(count < 100 || refused > count / 2, "{refused} of {count} were refused: shows little");
}
