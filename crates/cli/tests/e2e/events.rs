//! events: statistics in runc's shape, and what happens to a container.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tare_testkit::host::{self, CgroupMode};
use tare_testkit::{Bundle, Container, Running, Runtime, known, skip, wait_until};

use crate::runtime;

const NO_EVENTS: &str = "has no events";

/// `events --interval INTERVAL`, at work.
fn watch(container: &Container<'_>, interval: &str) -> Running {
    container.verb("events").args(["--interval", interval, container.id()]).spawn()
}

/// The whole lines so far, each of them JSON.
fn lines(events: &Running) -> Vec<Value> {
    let text = events.stdout_so_far();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(events: &Running, kind: &str) -> usize {
    lines(events).iter().filter(|event| event["type"] == kind).count()
}

/// Every key of an event, as a path with the kind of its value: `data.pids.current: number`. The kernel's own names, of
/// statistics and page sizes, are one.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    found.insert(format!("{path}: {kind}"));
    match value {
        Value::Object(members) if path.ends_with(".raw") || path.ends_with(".hugetlb") => {
            members.values().for_each(|member| keys(member, &format!("{path}.*"), found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(key, member)| keys(member, &format!("{path}.{key}"), found))
        }
        Value::Array(members) => members.iter().for_each(|member| keys(member, &format!("{path}[]"), found)),
        _ => {}
    }
}

fn stats_of(runtime: &Runtime) -> BTreeSet<String> {
    let bundle =
        Bundle::sleeper().resource("pids", json!({"limit": 100})).resource("memory", json!({"limit": 64 << 20}));
    let container = runtime.container(&bundle);
    container.up();
    let output = container.call("events", &["--stats"]).ok();
    assert_eq!(output.lines().len(), 1, "{output}");
    let event = output.json();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], container.id());
    let mut found = BTreeSet::new();
    keys(&event, "event", &mut found);
    found
}

/// What runc 1.1.5 prints on cgroup v1 for a container that sleeps, and every release since then.
const STATS: &str = "event: object; event.type: string; event.id: string; event.data: object; \
    event.data.cpu: object; event.data.cpu.usage: object; event.data.cpu.usage.total: number; \
    event.data.cpu.usage.kernel: number; event.data.cpu.usage.user: number; event.data.cpu.throttling: object; \
    event.data.cpuset: object; \
    event.data.cpuset.cpu_exclusive: number; event.data.cpuset.mem_hardwall: number; \
    event.data.cpuset.mem_exclusive: number; event.data.cpuset.memory_migrate: number; \
    event.data.cpuset.memory_spread_page: number; event.data.cpuset.memory_spread_slab: number; \
    event.data.cpuset.memory_pressure: number; event.data.cpuset.sched_load_balance: number; \
    event.data.cpuset.sched_relax_domain_level: number; \
    event.data.memory: object; event.data.memory.usage: object; event.data.memory.usage.limit: number; \
    event.data.memory.usage.usage: number; event.data.memory.usage.failcnt: number; \
    event.data.memory.swap: object; event.data.memory.swap.limit: number; event.data.memory.swap.failcnt: number; \
    event.data.memory.kernel: object; event.data.memory.kernel.limit: number; \
    event.data.memory.kernel.failcnt: number; event.data.memory.kernelTCP: object; \
    event.data.memory.kernelTCP.limit: number; event.data.memory.kernelTCP.failcnt: number; \
    event.data.memory.raw: object; event.data.memory.raw.*: number; \
    event.data.pids: object; event.data.pids.current: number; event.data.pids.limit: number; \
    event.data.blkio: object; event.data.hugetlb: object; event.data.intel_rdt: object; \
    event.data.network_interfaces: null";

#[test]
fn events_stats_has_runcs_keys() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let found = stats_of(&runtime);
    let expected: BTreeSet<String> = STATS.split("; ").map(|key| key.trim().to_owned()).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    // What is left out when it is nothing, or is not on every host and release.
    let optional = [
        ".psi",
        ".percpu",
        ".cpuset.cpus",
        ".cpuset.mems",
        ".periods",
        ".throttled",
        ".cache",
        ".max",
        ".swap.usage",
        ".kernel.usage",
        ".kernelTCP.usage",
        ".blkio.",
        ".hugetlb.",
        ".event_count",
    ];
    let strange: Vec<_> =
        found.difference(&expected).filter(|key| !optional.iter().any(|part| key.contains(part))).collect();
    assert!(strange.is_empty(), "not in runc: {strange:?}");
}

#[test]
fn events_stats_has_the_keys_of_the_runc_that_is_here() {
    let runtime = runtime();
    known!(runtime, Runc: "is what we compare with", Crun: NO_EVENTS);
    let runc = Runtime::of("runc");
    if !runc.bare().arg("--version").through_shell("exec \"$@\"").run().success() {
        skip!("no runc to compare with");
    }
    let (ours, theirs) = (stats_of(&runtime), stats_of(&runc));
    // Zero is left out, and whether these are zero is chance: they come with the first read of a file.
    let chance = |key: &&String| key.contains(".memory.cache:") || key.contains(".blkio.io");
    let missing: Vec<_> = theirs.difference(&ours).filter(|key| !chance(key)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    // runc fills psi since 1.2, on v2 alone, and knows neither the cpuset of v2 nor cgroup2 beside v1.
    let newer = [".psi", ".cpuset.cpus", ".cpuset.mems", ".hugetlb.", ".memory.usage.max:"];
    let strange: Vec<_> =
        ours.difference(&theirs).filter(|key| !chance(key) && !newer.iter().any(|part| key.contains(part))).collect();
    assert!(strange.is_empty(), "not in runc: {strange:?}");
}

#[test]
fn events_stats_counts_what_the_container_uses() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = Bundle::script("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1001 & touch /ready; wait")
        .resource("pids", json!({"limit": 55}))
        .resource("memory", json!({"limit": 64 << 20}));
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has worked", || bundle.rootfs().join("ready").exists());
    let data = container.call("events", &["--stats"]).ok().json()["data"].clone();
    assert_eq!(data["pids"], json!({"current": 2, "limit": 55}));
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 4096, "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 1_000_000, "{data}");
}

#[test]
fn events_stats_tell_the_pressure() {
    let runtime = runtime();
    known!(runtime, Runc: "since 1.2, on v2 alone", Crun: NO_EVENTS);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    if host::cgroup_mode() == CgroupMode::V1 || !container.cgroup("").join("cpu.pressure").exists() {
        skip!("no pressure stall information");
    }
    let data = container.call("events", &["--stats"]).ok().json()["data"].clone();
    for resource in ["cpu", "memory", "blkio"] {
        for share in ["some", "full"] {
            for window in ["avg10", "avg60", "avg300", "total"] {
                assert!(data[resource]["psi"][share][window].is_number(), "{resource}.psi.{share}.{window}: {data}");
            }
        }
    }
}

#[test]
fn events_prints_statistics_at_each_interval_and_ends_with_the_container() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let events = watch(&container, "50ms");
    wait_until("three lines", || count(&events, "stats") >= 3);
    container.delete_force().ok();
    let output = events.wait().ok();
    for line in output.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id())));
    }
}

#[test]
fn events_ends_when_init_does_however_long_the_interval() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 on v1 waits for the cgroup to be removed", Crun: NO_EVENTS);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let events = watch(&container, "1h");
    // What tells that it watches, when it prints nothing: the file by which it learns of memory that runs out.
    let fds = format!("/proc/{}/fd", events.pid());
    wait_until("it watches", || {
        let links = std::fs::read_dir(&fds).into_iter().flatten().flatten();
        let mut links = links.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()));
        links.any(|link| link.ends_with("[eventfd]") || link.ends_with("/memory.events"))
    });
    container.kill("KILL").ok();
    assert_eq!(events.wait().ok().text(), "");
    container.is("stopped");
}

/// A container that outgrows its limit once `/go` is there.
fn glutton(end: &str) -> Bundle {
    let script = format!(
        "until [ -e /go ]; do sleep 0.05; done; dd if=/dev/zero of=/dev/null bs=256M count=1; echo $? > /dd; {end}"
    );
    Bundle::script(&script).resource("memory", json!({"limit": 32 << 20, "swap": 32 << 20}))
}

#[test]
fn events_tells_that_memory_ran_out() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = glutton("sleep 1000");
    let container = runtime.container(&bundle);
    container.up();
    let events = watch(&container, "50ms");
    wait_until("it watches", || count(&events, "stats") >= 1);
    touch(&bundle, "go");
    wait_until("the event", || count(&events, "oom") >= 1);
    let oom = lines(&events).into_iter().find(|event| event["type"] == "oom").unwrap();
    assert_eq!(oom, json!({"type": "oom", "id": container.id()}));
    wait_until("dd was killed", || bundle.rootfs().join("dd").exists());
    container.is("running");
    container.delete_force().ok();
    events.wait().ok();
}

#[test]
fn events_tells_that_init_was_killed_for_memory_before_it_ends() {
    let runtime = runtime();
    known!(runtime, Runc: "1.1.5 may see the end first", Crun: NO_EVENTS);
    let bundle = Bundle::new()
        .args(["sh", "-c", "until [ -e /go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/dev/null bs=256M count=1"])
        .resource("memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    let container = runtime.container(&bundle);
    container.up();
    // systemd removes the cgroup with all that it counted once it is empty, which may be too soon for anybody else.
    let mut stays = runtime.uses_systemd().then(|| Command::new("sleep").arg("1000").spawn().unwrap());
    if let Some(stays) = &stays {
        let memory = if host::cgroup_mode() == CgroupMode::V2 { "" } else { "memory" };
        std::fs::write(container.cgroup(memory).join("cgroup.procs"), stays.id().to_string()).unwrap();
    }
    let events = watch(&container, "50ms");
    wait_until("it watches", || count(&events, "stats") >= 1);
    touch(&bundle, "go");
    let output = events.wait().ok();
    let ooms = output.lines().iter().filter(|line| line.contains("\"oom\"")).count();
    assert_eq!(ooms, 1, "among {} lines", output.lines().len());
    container.wait_for("stopped");
    container.delete().ok();
    if let Some(stays) = &mut stays {
        stays.wait().unwrap();
    }
}

fn touch(bundle: &Bundle, name: &str) {
    std::fs::write(bundle.rootfs().join(name), "").unwrap();
}

#[test]
fn events_of_a_created_and_of_a_paused_container() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.create().ok();
    // runc's init has more than one thread as long as it waits.
    assert!(container.call("events", &["--stats"]).ok().json()["data"]["pids"]["current"].as_u64().unwrap() >= 1);
    container.start().ok();
    container.call("pause", &[]).ok();
    assert!(container.call("events", &["--stats"]).ok().json()["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    container.is("paused");
}

#[test]
fn events_of_what_does_not_run_are_refused() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = Bundle::new();
    let container = runtime.container(&bundle);
    container.call("events", &["--stats"]).fails(&["does not exist"]);
    container.up().wait_for("stopped");
    for args in [&["--stats"][..], &[]] {
        container.call("events", args).fails(&[&format!("container with id {} is not running", container.id())]);
    }
}

#[test]
fn events_refuses_an_interval_that_is_none() {
    let runtime = runtime();
    known!(runtime, Crun: NO_EVENTS);
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for interval in ["0", "0s", "-1s"] {
        container.call("events", &["--interval", interval]).fails(&["duration interval must be greater than 0"]);
        container.call("events", &["--stats", "--interval", interval]).fails(&["greater than 0"]);
    }
    for interval in ["5", "soon"] {
        assert!(!container.call("events", &["--interval", interval]).success(), "{interval}");
    }
}

#[test]
fn cgroup2_events_have_statistics_and_end_with_the_container() {
    if !host::is_root() || host::cgroup_mode() != CgroupMode::Hybrid {
        skip!("needs root, and cgroup2 beside v1: on v2 the tests above are the same");
    }
    let runtime = runtime().on_cgroup2();
    known!(runtime, Runc: "1.1.5 fails without a memory controller", Crun: NO_EVENTS);
    let bundle = Bundle::script("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; touch /ready; sleep 1000");
    let container = runtime.container(&bundle);
    container.up();
    wait_until("it has worked", || bundle.rootfs().join("ready").exists());
    let data = container.call("events", &["--stats"]).ok().json()["data"].clone();
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 1_000_000, "{data}");
    assert!(data["cpu"]["psi"]["some"]["total"].is_number(), "{data}");
    let events = watch(&container, "50ms");
    wait_until("a line", || count(&events, "stats") >= 1);
    container.delete_force().ok();
    events.wait().ok();
}
