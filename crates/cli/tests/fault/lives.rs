//! Lives of containers that nobody planned: verbs in any order over two names, in one of several configurations, and in one call
//! or another the runtime is killed, or has a system call fail. Whatever comes of it, `delete --force` ends with 0 and
//! nothing is left.
//!
//! `TARE_LIVES=10000` lives so many, `TARE_LIVES_SEED=17` begins there: the seed that a failure prints, alone with `TARE_LIVES=1`.

#![expect(clippy::print_stderr, reason = "which life failed, and what came of the others")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::errno::Errno;
use serde_json::json;
use tare_testkit::{Bundle, Invocation, Output, Residue, Runtime, known, skip};

use crate::ERRNOS;
use crate::tracer::{Fault, Which};
use crate::trial::{MEMORY, bundle, check_failure, follow_command};

/// So many, when nobody asks for more.
const SOME: u64 = 100;
/// Failures after which nothing is learnt any more.
const ENOUGH: usize = 10;

/// xorshift64*: the same life for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Small seeds that follow each other have little in common then; and it must not be zero.
        Self((seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % count
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// What was done and what came of it, over all lives.
#[derive(Default)]
struct Tally {
    calls: usize,
    killed: BTreeMap<&'static str, usize>,
    failed: BTreeMap<&'static str, usize>,
    /// Faults that were to strike after the call had ended.
    missed: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.missed += other.missed;
        for (verb, count) in other.killed {
            *self.killed.entry(verb).or_default() += count;
        }
        for (verb, count) in other.failed {
            *self.failed.entry(verb).or_default() += count;
        }
    }
}

/// The device of a life that has one: this end is moved into the container.
struct Device {
    name: String,
    inside: String,
}

impl Device {
    fn new(worker: usize) -> Option<Self> {
        // Fifteen letters at most.
        let (name, inside) =
            (format!("lv{}x{worker}", std::process::id()), format!("li{}x{worker}", std::process::id()));
        let device = Self { name, inside };
        let made = device.make();
        device.take_away();
        made.then_some(device)
    }

    fn ip(arguments: &[&str]) -> bool {
        Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
    }

    fn make(&self) -> bool {
        Self::ip(&["link", "add", &self.name, "type", "veth"])
    }

    /// It may be gone, with the namespace that it was in.
    fn take_away(&self) {
        Self::ip(&["link", "del", &self.name]);
    }

    fn is_left(&self) -> bool {
        Path::new("/sys/class/net").join(&self.inside).exists()
    }
}

/// What containers are made of: with everything, with little, in the host's process table, with a device of the host's, with a
/// hook that fails.
fn bundles(device: Option<&Device>) -> Vec<Bundle> {
    let mut all = vec![
        bundle(),
        Bundle::sleeper(),
        Bundle::sleeper().without_namespace("pid"),
        Bundle::sleeper().hook_script("poststart", "exit 1").hook_script("poststop", "exit 1"),
        Bundle::script("exit 3"),
    ];
    if let Some(device) = device {
        let moved = json!({device.name.as_str(): {"name": device.inside}});
        all.push(Bundle::sleeper().set("/linux/netDevices", moved));
    }
    all.iter().for_each(Bundle::write);
    all
}

struct World {
    runtime: Runtime,
    bundles: Vec<Bundle>,
    device: Option<Device>,
}

/// A verb and what follows it; `ID` and `BUNDLE` stand for those of the life. Those that make something more often.
const STEPS: [&[&str]; 19] = [
    &["create", "--bundle", "BUNDLE", "ID"],
    &["create", "--bundle", "BUNDLE", "ID"],
    &["start", "ID"],
    &["start", "ID"],
    &["run", "--detach", "--bundle", "BUNDLE", "ID"],
    &["exec", "ID", "true"],
    &["exec", "ID", "true"],
    &["exec", "--detach", "ID", "sleep", "1000"],
    &["pause", "ID"],
    &["pause", "ID"],
    &["resume", "ID"],
    &["update", "--pids-limit", "90", "ID"],
    &["kill", "ID", "KILL"],
    &["kill", "ID", "TERM"],
    &["kill", "--all", "ID", "USR1"],
    &["delete", "ID"],
    &["delete", "--force", "ID"],
    &["state", "ID"],
    &["list", "--format", "json"],
];

impl World {
    fn new(worker: usize) -> Self {
        let device = Device::new(worker);
        Self { runtime: Runtime::from_env(env!("CARGO_BIN_EXE_tare")), bundles: bundles(device.as_ref()), device }
    }

    fn command(&self, words: &[&str], id: &str, bundle: &Bundle) -> Invocation {
        words.iter().fold(self.runtime.raw(), |command, &word| match word {
            "ID" => command.arg(id),
            "BUNDLE" => command.arg(bundle.path()),
            word => command.arg(word),
        })
    }

    /// One life. `story` has its commands as they are run.
    fn live(&self, seed: u64, story: &mut String) -> Tally {
        let mut dice = Dice::new(seed);
        let mut tally = Tally::default();
        let number = dice.below(self.bundles.len());
        let has_device = self.device.is_some() && number + 1 == self.bundles.len();
        if has_device {
            self.device.iter().for_each(|device| assert!(device.make()));
        }
        let ids = [self.runtime.id("l"), self.runtime.id("l")];
        let count = 2 + dice.below(6);
        for index in 0..count {
            // The first makes a container, mostly the one that all the others are about.
            let words = if index == 0 { dice.one_of(&[STEPS[0], STEPS[4]]) } else { dice.one_of(&STEPS) };
            let which = usize::from(dice.below(4) == 0);
            let command = self.command(words, &ids[which], &self.bundles[number]);
            let fault = (dice.below(2) == 0).then(|| fault(words[0], &mut dice));
            writeln!(story, "  {} {which} {fault:?}", words.join(" ")).unwrap();
            tally.calls += 1;
            let verb = words[0];
            let code = if verb == "exec" { 255 } else { 1 };
            let Some((first, fault)) = fault else {
                let output = command.run();
                if !output.success() {
                    check_failure(code, &output, "nothing was wrong");
                }
                continue;
            };
            let (output, tracer) = follow_command(command, None, Which::From(first, fault));
            let Some(struck) = tracer.struck else {
                tally.missed += 1;
                continue;
            };
            writeln!(story, "    {struck:?}").unwrap();
            match fault {
                Fault::Kill => *tally.killed.entry(verb).or_default() += 1,
                Fault::Fail(_) => {
                    *tally.failed.entry(verb).or_default() += 1;
                    if !output.success() && !struck.starting && !MEMORY.contains(&struck.call) && !tracer.silenced {
                        check_failure(code, &output, &format!("{struck:?} {fault}"));
                    }
                }
            }
        }
        self.end(&ids);
        if has_device {
            self.device.iter().for_each(|device| {
                assert!(!device.is_left(), "{} is on the host by the name it has in the container", device.name);
                device.take_away();
            });
        }
        tally
    }

    fn end(&self, ids: &[String]) {
        let deleted: Vec<Output> =
            ids.iter().map(|id| self.runtime.raw().args(["delete", "--force", id]).run().ok()).collect();
        let residue = Residue::of(&self.runtime);
        let left = residue.find_settled();
        let deleted = deleted.iter().map(ToString::to_string).collect::<String>();
        assert!(left.is_empty(), "left behind:\n{}\n{}after {deleted}", left.join("\n"), residue.explain());
    }

    /// What a failed life left is not the next one's.
    fn sweep(&self) {
        Residue::of(&self.runtime).sweep();
        self.device.iter().for_each(Device::take_away);
        let _nothing_there = std::fs::remove_dir_all(self.runtime.root());
    }
}

/// After so many calls. Commands that are refused have few, those that make something many.
fn fault(verb: &str, dice: &mut Dice) -> (usize, Fault) {
    let most = match verb {
        "create" | "run" => dice.one_of(&[60, 300, 700]),
        _ => dice.one_of(&[30, 60, 150]),
    };
    let fault = if dice.below(2) == 0 { Fault::Kill } else { Fault::Fail(dice.one_of::<Errno>(&ERRNOS)) };
    (dice.below(most), fault)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// As many lives as are asked for, one at a time on each processor.
pub(crate) fn each_life() {
    let runtime = Runtime::from_env(env!("CARGO_BIN_EXE_tare"));
    known!(runtime, Runc: "not what is tried here", Crun: "the same", Youki: "the same");
    if !tare_testkit::host::is_root() {
        skip!("makes containers as root");
    }
    let count = setting("TARE_LIVES").unwrap_or(SOME);
    // Others each time.
    let first = setting("TARE_LIVES_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 1000);
    let (next, failed, tally) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(Tally::default()));
    let workers = thread::available_parallelism().map_or(1, usize::from).min(4);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (next, failed, tally) = (&next, &failed, &tally);
            scope.spawn(move || {
                let world = World::new(worker);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().unwrap().len() >= ENOUGH {
                        return;
                    }
                    let mut story = String::new();
                    match catch_unwind(AssertUnwindSafe(|| world.live(seed, &mut story))) {
                        Ok(lived) => tally.lock().unwrap().add(lived),
                        Err(_) => {
                            eprintln!("TARE_LIVES_SEED={seed} TARE_LIVES=1\n{story}");
                            failed.lock().unwrap().push(seed);
                            world.sweep();
                        }
                    }
                }
            });
        }
    });
    let (failed, tally) = (failed.into_inner().unwrap(), tally.into_inner().unwrap());
    let sum = |counts: &BTreeMap<&str, usize>| counts.values().sum::<usize>();
    eprintln!(
        "{count} lives from seed {first}: {} commands, {} killed {:?}, {} with a failing call {:?}, \
         {} ended before their fault; {} lives failed",
        tally.calls,
        sum(&tally.killed),
        tally.killed,
        sum(&tally.failed),
        tally.failed,
        tally.missed,
        failed.len()
    );
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}
