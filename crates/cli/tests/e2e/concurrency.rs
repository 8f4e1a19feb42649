//! Many commands at once: on one name, on shared names in any order, on many names. Each does what it says or refuses in one
//! line, what is read is whole, and nothing is left. Nothing here sleeps or depends on how fast the machine is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tare_testkit::{Bundle, Invocation, Output, Residue, Runtime, known, rounds};

/// Commands on names that several have, in a bundle that is written once: [`tare_testkit::Container`] writes it for each.
struct Shared<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
}

impl<'a> Shared<'a> {
    fn new(runtime: &'a Runtime, bundle: &'a Bundle) -> Self {
        bundle.write();
        Self { runtime, bundle }
    }

    fn verb(&self, words: &[&str]) -> Invocation {
        let (verb, rest) = words.split_first().unwrap();
        let invocation = self.runtime.raw().arg(verb);
        let bundle = matches!(*verb, "create" | "run").then(|| ["--bundle".into(), self.bundle.path().to_owned()]);
        invocation.args(bundle.into_iter().flatten()).args(rest)
    }

    fn delete(&self, id: &str) {
        self.verb(&["delete", "--force", id]).run().ok();
    }
}

/// Success, or a refusal; of tare in one line.
#[track_caller]
fn check(runtime: &Runtime, output: Output) {
    if output.success() {
        return;
    }
    let output = output.fails(&[]);
    let one_line = output.stderr.lines().count() == 1 && output.stderr.starts_with("tare: ");
    assert!(!runtime.is_tare() || one_line, "should refuse in one line: {output}");
}

#[test]
fn of_a_hundred_creates_of_one_name_one_wins_and_the_others_refuse() {
    let runtime = crate::runtime();
    known!(runtime, Runc "1.1.": "a create that loses removes, now and then, the cgroup of the one that wins");
    let bundle = Bundle::sleeper();
    let shared = Shared::new(&runtime, &bundle);
    let id = runtime.id("one");
    let creates: Vec<_> = (0..100).map(|_| shared.verb(&["create", &id]).spawn()).collect();
    let outputs: Vec<Output> = creates.into_iter().map(tare_testkit::Running::wait).collect();
    let (won, lost): (Vec<_>, Vec<_>) = outputs.into_iter().partition(Output::success);
    let all = || won.iter().chain(&lost).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((won.len(), lost.len()), (1, 99), "{:?}", all());
    for output in lost {
        let output = output.fails(&["exist"]);
        assert!(!runtime.is_tare() || output.stderr.lines().count() == 1, "{output}");
    }
    // The losers have touched nothing of the winner's.
    assert_eq!(shared.verb(&["state", &id]).run().ok().json()["status"], "created");
    shared.verb(&["start", &id]).run().ok();
    shared.delete(&id);
    Residue::of(&runtime).assert_none();
}

/// The same numbers each time: what differs from run to run is who comes first.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

#[test]
fn storms_on_shared_names_end_in_nothing() {
    const THREADS: u64 = 6;
    const COMMANDS: usize = 50;
    let runtime = crate::runtime();
    known!(
        runtime,
        Runc: "1.1.5 loses the process of a container that is deleted while it is created",
        Crun: "1.8.1's start hangs, or dies of SIGPIPE, when its container is deleted meanwhile"
    );
    let bundle = Bundle::sleeper();
    let shared = Shared::new(&runtime, &bundle);
    let ids = ["a", "b", "c"].map(|name| runtime.id(name));
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (shared, ids) = (&shared, &ids);
            scope.spawn(move || {
                let mut dice = Dice(seed << 32 | 0x9e37_79b9);
                for _ in 0..rounds(COMMANDS) {
                    let id = ids[dice.below(ids.len())].as_str();
                    let words: &[&str] = match dice.below(10) {
                        0..3 => &["create", id],
                        3 => &["run", "--detach", id],
                        4 => &["start", id],
                        5 => &["kill", id, "KILL"],
                        6 => &["kill", "--all", id, "TERM"],
                        7 => &["delete", id],
                        8 => &["delete", "--force", id],
                        _ => &["state", id],
                    };
                    check(shared.runtime, shared.verb(words).run());
                }
            });
        }
    });
    for id in &ids {
        shared.delete(id);
    }
    Residue::of(&runtime).assert_none();
}

#[test]
fn sixty_four_containers_live_at_once() {
    const COUNT: usize = 64;
    let runtime = crate::runtime();
    let bundle = Bundle::sleeper();
    let shared = Shared::new(&runtime, &bundle);
    let ids: Vec<String> = (0..COUNT).map(|_| runtime.id("many")).collect();
    let all_at_once = |words: &[&str]| {
        let running: Vec<_> = ids.iter().map(|id| shared.verb(&[words, &[id.as_str()]].concat()).spawn()).collect();
        for command in running {
            command.wait().ok();
        }
    };
    all_at_once(&["create"]);
    all_at_once(&["start"]);
    let list = shared.verb(&["list", "--format", "json"]).run().ok().json();
    let statuses: Vec<&str> = list.as_array().unwrap().iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, vec!["running"; COUNT]);
    let pids: std::collections::BTreeSet<i64> =
        list.as_array().unwrap().iter().map(|state| state["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids.len(), COUNT);
    all_at_once(&["delete", "--force"]);
    Residue::of(&runtime).assert_none();
}

/// Says that it is over when it is dropped: a panic of the test ends the threads that it would wait for, too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_state_that_is_read_while_it_is_written_is_whole() {
    const LIVES: usize = 12;
    let runtime = crate::runtime();
    known!(runtime, Crun: "1.8.1 says which file it cannot open when a container goes meanwhile");
    let bundle = Bundle::sleeper();
    let shared = Shared::new(&runtime, &bundle);
    let id = runtime.id("watched");
    let over = AtomicBool::new(false);
    // A --root that is not there yet is an error of `list`.
    std::fs::create_dir_all(runtime.root()).unwrap();
    thread::scope(|scope| {
        let ends = Ends(&over);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !over.load(Ordering::Relaxed) {
                        let list = shared.verb(&["list", "--format", "json"]).run().ok().json();
                        // Nothing is `null`, as it is in runc.
                        let listed = list.as_array().map(Vec::as_slice).unwrap_or_default();
                        assert!(listed.iter().all(|state| state["id"] == id.as_str()), "{list}");
                        let state = shared.verb(&["state", &id]).run();
                        if state.success() {
                            assert_eq!(state.json()["id"], id.as_str());
                            seen += 1;
                        } else {
                            state.fails(&["exist"]);
                        }
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..LIVES {
            shared.verb(&["create", &id]).run().ok();
            shared.verb(&["start", &id]).run().ok();
            shared.verb(&["update", "--pids-limit", "50", &id]).run().ok();
            shared.verb(&["kill", &id, "KILL"]).run().ok();
            shared.delete(&id);
        }
        drop(ends);
        let seen: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(seen > 0, "the container was never looked at");
    });
    Residue::of(&runtime).assert_none();
}
