//! One verb under trace, again and again, with a fault at another point each time.

#![expect(clippy::print_stderr, reason = "what was tried, and what came of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde_json::json;
use syscalls::Sysno;
use tare_testkit::{Bundle, Container, Invocation, Output, Residue, Runtime, known, skip};

use crate::tracer::{Fault, Point, Tracer, Which};

/// Who has no memory cannot go on: std ends the process with SIGABRT.
pub(crate) const MEMORY: [Sysno; 5] = [Sysno::brk, Sysno::mmap, Sysno::mprotect, Sysno::mremap, Sysno::munmap];

/// How many points a test tries when nobody asks for all.
const SOME: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Run,
    Start,
    Exec,
    Pause,
    Resume,
    Update,
    Kill,
    Delete,
}

const VERBS: [Verb; 9] = [
    Verb::Create,
    Verb::Run,
    Verb::Start,
    Verb::Exec,
    Verb::Pause,
    Verb::Resume,
    Verb::Update,
    Verb::Kill,
    Verb::Delete,
];

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Start => "start",
            Self::Exec => "exec",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Kill => "kill",
            Self::Delete => "delete",
        }
    }

    /// Brings the container to where the verb finds it.
    fn prepare(self, container: &Container) {
        match self {
            Self::Create | Self::Run => {}
            Self::Start => {
                container.create().ok();
            }
            Self::Resume => {
                container.up().call("pause", &[]).ok();
            }
            Self::Exec | Self::Pause | Self::Update | Self::Kill | Self::Delete => {
                container.up();
            }
        }
    }

    /// What follows the verb.
    fn arguments(self, id: &str) -> Vec<&str> {
        match self {
            Self::Exec => vec![id, "true"],
            Self::Kill => vec![id, "KILL"],
            Self::Delete => vec!["--force", id],
            Self::Update => vec!["--memory", "50000000", "--pids-limit", "90", id],
            Self::Run => vec!["--detach", id],
            Self::Create | Self::Start | Self::Pause | Self::Resume => vec![id],
        }
    }

    /// The code of a failure.
    fn failure(self) -> i32 {
        if self == Self::Exec { 255 } else { 1 }
    }
}

/// A container with something of everything that the runtime sets up.
pub(crate) fn bundle() -> Bundle {
    let limits = json!({"limit": 1 << 27});
    let rule = json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO"});
    let hook = json!([{"path": "/bin/true"}]);
    Bundle::sleeper()
        .readonly()
        .user_namespace(100_000, 65_536)
        .bind("/etc", "/mnt", &["rbind", "ro", "nosuid"])
        .mount(json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))
        .resource("memory", limits)
        .resource("pids", json!({"limit": 100}))
        .edit(|config| {
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            config["hooks"] = json!({"createRuntime": hook, "poststart": hook, "poststop": hook});
        })
}

fn of_all(points: Vec<Point>, faults: &[Fault]) -> Vec<(Point, Fault)> {
    points
        .into_iter()
        .flat_map(|point| faults.iter().map(move |&fault| (point, fault)))
        .filter(|(point, fault)| fault.can_strike(point.call))
        .collect()
}

/// Tries each fault at each point of a verb, or at some, or at the one that was asked for.
pub(crate) fn each_point(verb: Verb, faults: &[Fault]) {
    let runtime = Runtime::from_env(env!("CARGO_BIN_EXE_tare"));
    known!(runtime, Runc: "not what is tried here", Crun: "the same", Youki: "the same");
    if !tare_testkit::host::is_root() {
        skip!("makes containers as root");
    }
    let asked = std::env::var("TARE_FAULT").unwrap_or_default();
    let trial = Trial { verb, runtime, bundle: bundle() };
    let all = of_all(trial.points(), faults);
    let name = |(point, fault): &(Point, Fault)| format!("{}/{}/{}/{fault}", verb.name(), point.process, point.ordinal);
    let chosen: Vec<_> = match asked.as_str() {
        "all" => all,
        "" => some(&all, SOME),
        part if part_of(part).is_some() => {
            let (part, of) = part_of(part).unwrap();
            all.into_iter().skip(part - 1).step_by(of).collect()
        }
        number if number.parse::<usize>().is_ok() => some(&all, number.parse().unwrap()),
        one => all.into_iter().filter(|candidate| name(candidate) == one).collect(),
    };
    let mut failed = Vec::new();
    // Calls that failed without failing the verb.
    let mut survived: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for candidate in &chosen {
        let outcome = catch_unwind(AssertUnwindSafe(|| trial.at(candidate.0, candidate.1)));
        if let Ok(Some((call, errno))) = outcome {
            survived.entry(call.name()).or_default().insert(format!("{errno:?}"));
        }
        if outcome.is_err() {
            eprintln!("TARE_FAULT={} ({})", name(candidate), candidate.0.call);
            failed.push(format!("{} ({})", name(candidate), candidate.0.call));
            trial.sweep();
        }
        assert!(failed.len() < 100, "failed: {failed:#?}");
    }
    let mut report = format!("{}: {} points tried, {} failed", verb.name(), chosen.len(), failed.len());
    for (call, errnos) in &survived {
        write!(report, "\n  went on without {call}: {}", errnos.iter().cloned().collect::<Vec<_>>().join(" ")).unwrap();
    }
    eprintln!("{report}");
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// `2/8`: the second of eight parts of all, for eight who try them at once.
fn part_of(asked: &str) -> Option<(usize, usize)> {
    let (part, of) = asked.split_once('/')?;
    let (part, of) = (part.parse().ok()?, of.parse().ok()?);
    assert!((1..=of).contains(&part), "TARE_FAULT={asked}: there is no such part");
    Some((part, of))
}

/// As many as a test can afford, spread evenly, others in each run.
fn some(all: &[(Point, Fault)], count: usize) -> Vec<(Point, Fault)> {
    // Odd: not the same few of the faults, which are of an even number, at each.
    let step = (all.len() / count).max(1) | 1;
    let begin = usize::try_from(std::process::id()).unwrap() % step;
    all.iter().skip(begin).step_by(step).copied().collect()
}

struct Trial {
    verb: Verb,
    runtime: Runtime,
    bundle: Bundle,
}

impl Trial {
    /// The system calls of the verb when nothing goes wrong.
    fn points(&self) -> Vec<Point> {
        let container = self.runtime.container(&self.bundle);
        self.verb.prepare(&container);
        let (output, tracer) = follow(self.verb, &container, Which::None);
        output.ok();
        tracer.points
    }

    /// One trial. The call that failed without failing the verb.
    fn at(&self, point: Point, fault: Fault) -> Option<(Sysno, Errno)> {
        let container = self.runtime.container(&self.bundle);
        self.verb.prepare(&container);
        let (output, tracer) = follow(self.verb, &container, Which::One(point.process, point.ordinal, fault));
        let Some(struck) = tracer.struck else {
            // Two runs are not the same to the last call: this one was shorter.
            container.delete_force().ok();
            return None;
        };
        let residue = Residue::of(&self.runtime);
        let mut survived = None;
        if let Fault::Fail(errno) = fault {
            survived = output.success().then_some((struck.call, errno));
            if !output.success() {
                if !struck.starting && !MEMORY.contains(&struck.call) {
                    check_failure(self.verb.failure(), &output, &format!("{struck:?} {errno:?}"));
                }
                if matches!(self.verb, Verb::Create | Verb::Run) {
                    let left = residue.find_settled();
                    assert!(
                        left.is_empty(),
                        "{struck:?} {errno:?}: {output}\nleft behind:\n{}\n{}",
                        left.join("\n"),
                        residue.explain()
                    );
                }
            }
        }
        let deleted = container.delete_force().ok();
        let left = residue.find_settled();
        assert!(
            left.is_empty(),
            "{struck:?}: {output}\nthen {deleted}\nleft behind:\n{}\n{}",
            left.join("\n"),
            residue.explain()
        );
        survived
    }

    /// What a failed trial left is not the next one's.
    fn sweep(&self) {
        Residue::of(&self.runtime).sweep();
    }
}

/// Runs the verb under trace; what came of it, and what was seen. The container is left as it then is.
fn follow(verb: Verb, container: &Container, which: Which) -> (Output, Tracer) {
    let init = (verb == Verb::Start).then(|| Pid::from_raw(container.pid()));
    follow_command(container.verb(verb.name()).args(verb.arguments(container.id())), init, which)
}

/// Runs a command under trace, together with the init that it is to start.
pub(crate) fn follow_command(command: Invocation, init: Option<Pid>, which: Which) -> (Output, Tracer) {
    let mut tracer = Tracer::new(which);
    // Waits until it is traced: read(2) ends with the newline, and the container gets no pipe.
    let mut running = command.through_shell("read -r _; exec \"$@\" </dev/null").stdin_open().spawn();
    let root = Pid::from_raw(i32::try_from(running.pid()).unwrap());
    tracer.seize(root);
    if let Some(init) = init {
        tracer.seize_running(init);
    }
    running.stdin().unwrap().write_all(b"\n").unwrap();
    let ended = tracer.follow(root);
    let output = running.wait();
    assert!(ended, "hangs: {output}");
    (output, tracer)
}

/// One line, and the code of a failure; besides warnings.
pub(crate) fn check_failure(code: i32, output: &Output, why: &str) {
    let mut lines =
        output.stderr.lines().filter(|line| !(line.starts_with("time=") && line.contains(" level=warning ")));
    let line = lines.next().unwrap_or_default();
    let hints = lines.all(|line| line.starts_with("  hint: "));
    assert!(
        output.code() == Some(code) && line.starts_with("tare: ") && hints,
        "should fail in one line, {why}: {output}"
    );
}

/// A container that asks for nothing is not made on a kernel without a call that deleting it takes.
pub(crate) fn not_made_without(call: Sysno) {
    let runtime = Runtime::from_env(env!("CARGO_BIN_EXE_tare"));
    known!(runtime, Runc: "not what is tried here", Crun: "the same", Youki: "the same");
    if !tare_testkit::host::is_root() {
        skip!("makes containers as root");
    }
    let bundle = Bundle::sleeper();
    for verb in [Verb::Create, Verb::Run] {
        let container = runtime.container(&bundle);
        let (output, _) = follow(verb, &container, Which::Each(call, Errno::ENOSYS));
        let output = output.fails(&["(ENOSYS)"]);
        check_failure(verb.failure(), &output, call.name());
        container.is("none");
    }
}

/// A container's life on a kernel, or under a filter of system calls, that does not have `call`: each verb does what it is
/// for all the same, but for those that are named here, which say so.
pub(crate) fn without(call: Sysno, refused: &[Verb]) {
    let runtime = Runtime::from_env(env!("CARGO_BIN_EXE_tare"));
    known!(runtime, Runc: "not what is tried here", Crun: "the same", Youki: "the same");
    if !tare_testkit::host::is_root() {
        skip!("makes containers as root");
    }
    let bundle = bundle();
    let missing = Which::Each(call, Errno::ENOSYS);
    let mut refusing = Vec::new();
    for verb in VERBS {
        let container = runtime.container(&bundle);
        verb.prepare(&container);
        let (output, tracer) = follow(verb, &container, missing);
        if !output.success() {
            check_failure(verb.failure(), &output, &format!("{:?}", tracer.struck));
            refusing.push(verb);
        }
        container.delete_force().ok();
        Residue::of(&runtime).assert_none();
    }
    assert_eq!(refusing, refused, "do not go without {call}");
}
