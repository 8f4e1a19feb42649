//! One container at a time, and several at once.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Row;
use crate::command::{Bench, Done, Runtime, quiet, time};

/// GNU time.
const TIME: &str = "/usr/bin/time";

/// Adds what was measured in every round.
struct Series<'r> {
    rows: &'r mut Vec<Row>,
    unit: &'static str,
}

impl Series<'_> {
    fn add(&mut self, what: &'static str, runtime: &str, value: f64) {
        match self.rows.iter_mut().find(|row| row.what == what && row.runtime == runtime) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { what, runtime: runtime.to_owned(), values: vec![value], unit: self.unit }),
        }
    }
}

/// Every verb of a container's life, beside the floor and an empty static program.
pub(crate) fn life(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    for runtime in &bench.runtimes {
        time(runtime.command(&["run", "--detach", "--bundle", &bench.bundle("sleep")], "stays"))?;
    }
    let mut series = Series { rows, unit: "ms" };
    // The first round warms the caches and is not counted.
    for round in 0..=bench.rounds {
        for turn in 0..bench.runtimes.len() {
            let runtime = &bench.runtimes[(turn + round) % bench.runtimes.len()];
            for (what, taken) in one_life(bench, runtime, round)? {
                if round > 0 {
                    series.add(what, &runtime.name, taken);
                }
            }
        }
        let empty = time(quiet(Command::new(bench.directory.join("true/rootfs/bin/true"))))?;
        let floor = time(bench.floor(0, &round.to_string())?)?;
        let many = bench.directory.join("mounts").exists();
        let mounts = many.then(|| time(bench.floor(1000, &round.to_string())?)).transpose()?;
        if round > 0 {
            series.add("empty", "program", empty);
            series.add("run", "floor", floor);
            mounts.into_iter().for_each(|mounts| series.add("run, 1,000 mounts", "floor", mounts));
        }
    }
    for runtime in &bench.runtimes {
        time(runtime.command(&["delete", "--force"], "stays"))?;
    }
    for row in rows {
        row.values.sort_by(f64::total_cmp);
    }
    Ok(())
}

fn one_life(bench: &Bench, runtime: &Runtime, round: usize) -> Done<Vec<(&'static str, f64)>> {
    let id = round.to_string();
    let mut taken = Vec::new();
    for (what, bundle) in [
        ("run", "true"),
        ("run, Docker's seccomp", "seccomp"),
        ("run, 1,000 mounts", "mounts"),
        ("run, 20 MB config", "huge"),
    ] {
        // A guest has only the small ones.
        if bench.directory.join(bundle).exists() {
            taken.push((what, time(runtime.command(&["run", "--bundle", &bench.bundle(bundle)], &id))?));
        }
    }
    let mut exec = runtime.command(&["exec"], "stays");
    exec.arg("/bin/true");
    taken.extend([
        ("create", time(runtime.command(&["create", "--bundle", &bench.bundle("true")], &id))?),
        ("start", time(runtime.command(&["start"], &id))?),
        // A stopped container is what delete is about; --force waits for a true that has not ended yet.
        ("delete", time(runtime.command(&["delete", "--force"], &id))?),
        ("exec", time(exec)?),
        ("state", time(runtime.command(&["state"], "stays"))?),
        ("list of one", time(runtime.command(&["list"], ""))?),
    ]);
    Ok(taken)
}

/// Peak memory and system calls of a `run`.
pub(crate) fn weight(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    if !Path::new(TIME).exists() {
        let _nobody_reads = writeln!(std::io::stderr(), "without {TIME}: memory and system calls are not counted");
        return Ok(());
    }
    for runtime in &bench.runtimes {
        let peak = peak_memory(&runtime.command(&["run", "--bundle", &bench.bundle("true")], "peak"), bench)?;
        rows.push(Row { what: "peak memory", runtime: runtime.name.clone(), values: vec![peak], unit: "MiB" });
        let calls = system_calls(&runtime.command(&["run", "--bundle", &bench.bundle("true")], "traced"), bench)?;
        rows.push(Row { what: "system calls", runtime: runtime.name.clone(), values: vec![calls], unit: "" });
    }
    Ok(())
}

/// `run` on a host with 5,000 mounts, beside the floor there: what a new mount namespace copies, and what reads the table pays. They are
/// made in a mount namespace of this program's own, in which it stays: so this comes last.
pub(crate) fn many_mounts(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    const MOUNTS: usize = 5000;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none)?;
    let directory = bench.directory.join("many");
    std::fs::create_dir(&directory)?;
    mount(none, &directory, Some("tmpfs"), MsFlags::empty(), none)?;
    for number in 0..MOUNTS {
        let target = directory.join(number.to_string());
        std::fs::create_dir(&target)?;
        mount(Some(&target), &target, none, MsFlags::MS_BIND, none)?;
    }
    let mut series = Series { rows, unit: "ms" };
    for round in 0..=bench.rounds {
        for runtime in &bench.runtimes {
            let id = format!("mounts-{round}");
            let taken = time(runtime.command(&["run", "--bundle", &bench.bundle("true")], &id))?;
            if round > 0 {
                series.add("run, host with 5,000 mounts", &runtime.name, taken);
            }
        }
        let floor = time(bench.floor(0, &format!("mounts-{round}"))?)?;
        if round > 0 {
            series.add("run, host with 5,000 mounts", "floor", floor);
        }
    }
    for row in rows {
        row.values.sort_by(f64::total_cmp);
    }
    Ok(())
}

/// The command line behind a program that observes it.
fn behind(observer: Command, observed: &Command) -> Command {
    let mut command = observer;
    command.arg(observed.get_program()).args(observed.get_args());
    quiet(command)
}

/// The largest of all processes, as wait4(2) tells of a child and of those it waited for.
fn peak_memory(command: &Command, bench: &Bench) -> Done<f64> {
    let output = bench.directory.join("time");
    let mut observer = Command::new(TIME);
    observer.args(["-f", "%M", "-o"]).arg(&output);
    time(behind(observer, command))?;
    let kibibytes: f64 = std::fs::read_to_string(&output)?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}

/// Of all processes; those of the container itself, about fifteen, are among them.
fn system_calls(command: &Command, bench: &Bench) -> Done<f64> {
    let output = bench.directory.join("strace");
    let mut observer = Command::new("strace");
    observer.arg("-f").arg("-c").arg("-U").arg("calls,name").arg("-o").arg(&output);
    time(behind(observer, command))?;
    let text = std::fs::read_to_string(&output)?;
    let total = text.lines().find_map(|line| line.trim().strip_suffix(" total")).ok_or("strace counted nothing")?;
    Ok(total.trim().parse()?)
}

/// How many containers a second run to their end, 1, 8 and 64 at once, beside the floor.
pub(crate) fn at_once(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    for (what, jobs) in
        [("runs a second, 1 at once", 1), ("runs a second, 8 at once", 8), ("runs a second, 64 at once", 64)]
    {
        let mut put = |runtime: &str, rate| {
            rows.push(Row { what, runtime: runtime.to_owned(), values: vec![rate], unit: "/s" });
        };
        let true_bundle = bench.bundle("true");
        for runtime in &bench.runtimes {
            let run = |id: &str| Ok(runtime.command(&["run", "--bundle", &true_bundle], id));
            put(&runtime.name, rate(bench, jobs, &run)?);
        }
        put("floor", rate(bench, jobs, &|id| bench.floor(0, id))?);
    }
    Ok(())
}

/// Runs the command, with a name each time, `jobs` at once; how many a second. Each job runs it four times at least, so that most of the
/// time all are at work.
fn rate(bench: &Bench, jobs: usize, command: &(dyn Fn(&str) -> Done<Command> + Sync)) -> Done<f64> {
    let each = bench.rounds.div_ceil(jobs).max(4);
    let begin = Instant::now();
    std::thread::scope(|scope| -> Done {
        let work =
            |job: usize| (0..each).try_for_each(|number| command(&format!("{job}-{number}")).and_then(time).map(drop));
        let workers: Vec<_> =
            (0..jobs).map(|job| scope.spawn(move || work(job).map_err(|error| error.to_string()))).collect();
        for worker in workers {
            worker.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })?;
    #[allow(clippy::cast_precision_loss)]
    Ok((jobs * each) as f64 / begin.elapsed().as_secs_f64())
}
