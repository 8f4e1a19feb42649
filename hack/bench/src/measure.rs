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

/// What has failed so often is not tried again.
const PATIENCE: usize = 3;

/// Adds what was measured in every round, in milliseconds. The first round, 0, warms the caches and is not counted.
struct Series<'r> {
    bench: &'r Bench,
    rows: &'r mut Vec<Row>,
    round: usize,
}

impl Series<'_> {
    fn add(&mut self, what: &'static str, runtime: &str, value: f64) {
        if self.round == 0 {
            return;
        }
        match self.rows.iter_mut().find(|row| row.what == what && row.runtime == runtime) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row::new(what, runtime, vec![value], "ms")),
        }
    }

    /// Times a command of a runtime, and whether that went well. What has failed [`PATIENCE`] times is not tried again.
    fn time(&mut self, what: &'static str, runtime: &Runtime, command: Command) -> Done<bool> {
        if self.is_refused(what, runtime) {
            return Ok(false);
        }
        match time(command) {
            Ok(taken) => self.add(what, &runtime.name, taken),
            Err(error) => {
                self.bench.refuse(what, runtime, error, self.rows)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_refused(&self, what: &str, runtime: &Runtime) -> bool {
        self.rows.iter().any(|row| row.what == what && row.runtime == runtime.name && row.failures >= PATIENCE)
    }
}

/// Every verb of a container's life, beside the floor and an empty static program.
pub(crate) fn life(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    for runtime in &bench.runtimes {
        if let Err(error) = time(runtime.command(&["run", "--detach", "--bundle", &bench.bundle("sleep")], "stays")) {
            let reason = format!("run --detach: {error}");
            for what in ["exec", "state", "list of one"] {
                bench.refuse(what, runtime, reason.clone().into(), rows)?;
            }
            rows.iter_mut().filter(|row| row.runtime == runtime.name).for_each(|row| row.failures = PATIENCE);
        }
    }
    let mut series = Series { bench, rows, round: 0 };
    for round in 0..=bench.rounds {
        series.round = round;
        for turn in 0..bench.runtimes.len() {
            one_life(&mut series, &bench.runtimes[(turn + round) % bench.runtimes.len()])?;
        }
        let empty = time(quiet(Command::new(bench.directory.join("true/rootfs/bin/true"))))?;
        let floor = time(bench.floor(0, &round.to_string())?)?;
        let many = bench.directory.join("mounts").exists();
        let mounts = many.then(|| time(bench.floor(1000, &round.to_string())?)).transpose()?;
        series.add("empty", "program", empty);
        series.add("run", "floor", floor);
        mounts.into_iter().for_each(|mounts| series.add("run, 1,000 mounts", "floor", mounts));
    }
    bench.clear_away();
    for row in rows {
        row.values.sort_by(f64::total_cmp);
    }
    Ok(())
}

fn one_life(series: &mut Series, runtime: &Runtime) -> Done {
    let bench = series.bench;
    let id = series.round.to_string();
    for (what, bundle) in [
        ("run", "true"),
        ("run, Docker's seccomp", "seccomp"),
        ("run, 1,000 mounts", "mounts"),
        ("run, 20 MB config", "huge"),
    ] {
        // A guest has only the small ones.
        if bench.directory.join(bundle).exists()
            && !series.time(what, runtime, runtime.command(&["run", "--bundle", &bench.bundle(bundle)], &id))?
        {
            runtime.discard(&id);
        }
    }
    let mut exec = runtime.command(&["exec"], "stays");
    exec.arg("/bin/true");
    if series.time("create", runtime, runtime.command(&["create", "--bundle", &bench.bundle("true")], &id))? {
        series.time("start", runtime, runtime.command(&["start"], &id))?;
        // A stopped container is what delete is about; --force waits for a true that has not ended yet.
        series.time("delete", runtime, runtime.command(&["delete", "--force"], &id))?;
    } else {
        runtime.discard(&id);
    }
    series.time("exec", runtime, exec)?;
    series.time("state", runtime, runtime.command(&["state"], "stays"))?;
    series.time("list of one", runtime, runtime.command(&["list"], ""))?;
    Ok(())
}

/// Peak memory and system calls of a `run`.
pub(crate) fn weight(bench: &Bench, rows: &mut Vec<Row>) -> Done {
    if !Path::new(TIME).exists() {
        let _nobody_reads = writeln!(std::io::stderr(), "without {TIME}: memory and system calls are not counted");
        return Ok(());
    }
    for runtime in &bench.runtimes {
        let run = |id| runtime.command(&["run", "--bundle", &bench.bundle("true")], id);
        for (what, unit, counted) in [
            ("peak memory", "MiB", peak_memory(&run("peak"), bench)),
            ("system calls", "", system_calls(&run("traced"), bench)),
        ] {
            match counted {
                Ok(value) => rows.push(Row::new(what, &runtime.name, vec![value], unit)),
                Err(error) => bench.refuse(what, runtime, error, rows)?,
            }
        }
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
    let mut series = Series { bench, rows, round: 0 };
    for round in 0..=bench.rounds {
        series.round = round;
        let (what, id) = ("run, host with 5,000 mounts", format!("mounts-{round}"));
        for runtime in &bench.runtimes {
            series.time(what, runtime, runtime.command(&["run", "--bundle", &bench.bundle("true")], &id))?;
        }
        let floor = time(bench.floor(0, &id)?)?;
        series.add(what, "floor", floor);
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
        let true_bundle = bench.bundle("true");
        for runtime in &bench.runtimes {
            let run = |id: &str| Ok(runtime.command(&["run", "--bundle", &true_bundle], id));
            match rate(bench, jobs, &run) {
                Ok(rate) => rows.push(Row::new(what, &runtime.name, vec![rate], "/s")),
                Err(error) => {
                    runtime.clear_away();
                    bench.refuse(what, runtime, error, rows)?;
                }
            }
        }
        rows.push(Row::new(what, "floor", vec![rate(bench, jobs, &|id| bench.floor(0, id))?], "/s"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_fails_at_is_a_row_with_the_reason_and_of_the_first_an_error() {
        let directory = std::env::temp_dir();
        let runtimes = ["first", "other"].map(|name| Runtime::new(name.into(), &directory).unwrap()).into();
        let bench = Bench { directory, rounds: 1, floor: "floor".into(), runtimes };
        let [first, other] = &bench.runtimes[..] else { unreachable!() };
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let mut rows = Vec::new();
        let mut series = Series { bench: &bench, rows: &mut rows, round: 1 };
        let fails = "echo this >&2; echo that >&2; exit 3";
        for number in 0..6 {
            series.round = number;
            assert!(series.time("run", first, shell(":")).unwrap());
            // The fourth would go well, but is not tried.
            assert!(!series.time("run", other, shell(if number < 3 { fails } else { ":" })).unwrap());
            assert_eq!(series.time("exec", other, shell(if number == 4 { fails } else { ":" })).unwrap(), number != 4);
        }
        let error = series.time("run", first, shell(fails)).unwrap_err().to_string();
        assert_eq!(error, "that (exit status: 3)");

        let rows = rows.iter().map(|row| (row.what, row.runtime.as_str(), row.values.len(), row.failures));
        assert_eq!(rows.collect::<Vec<_>>(), [("run", "other", 0, 3), ("run", "first", 5, 0), ("exec", "other", 4, 1)]);
    }
}
