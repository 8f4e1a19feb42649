//! The figures as a table with the promises of SPECIFICATION.md beside them, as JSON, and as a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::Row;
use crate::command::{Bench, Done};

/// What is promised of the first runtime: for the row, at most `most` times what `beside` has for `other`; a rate, at least.
struct Promise {
    number: u8,
    what: &'static str,
    most: f64,
    beside: &'static str,
    other: &'static str,
}

const fn promise(number: u8, what: &'static str, most: f64, beside: &'static str, other: &'static str) -> Promise {
    Promise { number, what, most, beside, other }
}

/// The promises of SPECIFICATION.md that are ratios of times.
const PROMISES: &[Promise] = &[
    promise(1, "run", 0.5, "crun", "run"),
    promise(1, "run", 0.15, "runc", "run"),
    promise(1, "run", 1.4, "floor", "run"),
    promise(2, "create", 0.5, "crun", "create"),
    promise(2, "start", 0.5, "crun", "start"),
    promise(2, "delete", 0.5, "crun", "delete"),
    promise(3, "exec", 0.5, "crun", "exec"),
    promise(3, "exec", 0.15, "runc", "exec"),
    promise(4, "state", 0.3, "crun", "state"),
    promise(4, "list of one", 0.3, "crun", "list of one"),
    promise(4, "state", 2.0, "program", "empty"),
    promise(8, "create, the last of many", 1.2, "", "create, the first of many"),
    promise(8, "list of many", 0.3, "crun", "list of many"),
    promise(9, "runs a second, 8 at once", 2.0, "crun", "runs a second, 8 at once"),
    promise(9, "runs a second, 64 at once", 2.0, "crun", "runs a second, 64 at once"),
    promise(10, "run, 1,000 mounts", 0.7, "crun", "run, 1,000 mounts"),
    promise(10, "run, host with 5,000 mounts", 0.7, "crun", "run, host with 5,000 mounts"),
    promise(10, "run, 20 MB config", 0.7, "crun", "run, 20 MB config"),
];

/// The row, if it has figures.
fn find<'r>(rows: &'r [Row], what: &str, runtime: &str) -> Option<&'r Row> {
    rows.iter().find(|row| row.what == what && row.runtime == runtime && !row.values.is_empty())
}

fn names(rows: &[Row]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for row in rows {
        if !names.contains(&row.what) {
            names.push(row.what);
        }
    }
    names
}

/// Where this was.
fn host() -> Done<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cgroup = if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        "cgroup v2"
    } else if Path::new("/sys/fs/cgroup/unified").exists() {
        "cgroup v1 and v2"
    } else {
        "cgroup v1"
    };
    let cpus = std::thread::available_parallelism()?;
    Ok(format!("Linux {}, {cpus} CPUs, {cgroup}", kernel.trim()))
}

/// A table: a line for each row, a column for each runtime: median, 90th percentile, ratio to the first.
pub(crate) fn print(bench: &Bench, rows: &[Row]) -> Done {
    let mut text = format!(
        "{}, {} rounds; median (90th percentile), ratio to {}\n",
        host()?,
        bench.rounds,
        bench.runtimes[0].name
    );
    let mut columns: Vec<&str> = bench.runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    columns.extend(["floor", "program"]);
    write!(text, "{:<28}", "")?;
    columns.iter().try_for_each(|name| write!(text, "{name:>28}"))?;
    text.push('\n');
    for what in names(rows) {
        let first = find(rows, what, columns[0]).map(Row::median);
        write!(text, "{what:<28}")?;
        for name in &columns {
            let cell = find(rows, what, name).map(|row| {
                let ratio = first.map(|first| format!(" {:.2}x", row.median() / first)).unwrap_or_default();
                format!("{:.2} ({:.2}) {}{ratio}", row.median(), row.at(0.9), row.unit)
            });
            write!(text, "{:>28}", cell.unwrap_or_default())?;
        }
        text.push('\n');
    }
    let mut failed: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.failures > 0) {
        let times = match row.values.len() {
            0 => String::new(),
            well => format!(" ({} of {})", row.failures, row.failures + well),
        };
        failed.entry((&row.runtime, &row.reason)).or_default().push(format!("{}{times}", row.what));
    }
    if !failed.is_empty() {
        text.push_str("\nfailed\n");
    }
    for ((runtime, reason), what) in failed {
        writeln!(text, "     {runtime}: {}: {reason}", what.join("; "))?;
    }
    text.push_str("\npromises\n");
    let own = &bench.runtimes[0].name;
    for promise in PROMISES {
        let beside = if promise.beside.is_empty() { own } else { promise.beside };
        let (Some(ours), Some(other)) = (find(rows, promise.what, own), find(rows, promise.other, beside)) else {
            continue;
        };
        let ratio = ours.median() / other.median();
        let rate = ours.unit == "/s";
        let met = if rate { ratio >= promise.most } else { ratio <= promise.most };
        let (bound, verdict) = (if rate { "at least" } else { "at most" }, if met { "met" } else { "NOT MET" });
        writeln!(
            text,
            "{:>3}  {:<28} {ratio:.2} x {} of {beside}, {bound} {:.2}: {verdict}",
            promise.number, promise.what, promise.other, promise.most
        )?;
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

/// All figures.
pub(crate) fn write_json(bench: &Bench, rows: &[Row], path: &Path) -> Done {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut document = json!({ "what": row.what, "runtime": row.runtime });
            if !row.values.is_empty() {
                document["unit"] = json!(row.unit);
                document["count"] = json!(row.values.len());
                for (name, share) in [("minimum", 0.0), ("median", 0.5), ("p90", 0.9)] {
                    document[name] = json!(row.at(share));
                }
            }
            if row.failures > 0 {
                document["failures"] = json!(row.failures);
                document["reason"] = json!(row.reason);
            }
            document
        })
        .collect();
    let document = json!({ "host": host()?, "rounds": bench.rounds, "rows": rows });
    fs::write(path, serde_json::to_string_pretty(&document)? + "\n")?;
    Ok(())
}

/// Bars of what a user waits for, in milliseconds.
pub(crate) fn write_svg(bench: &Bench, rows: &[Row], path: &Path) -> Done {
    const COLOURS: [&str; 6] = ["#2a9d8f", "#e9c46a", "#f4a261", "#e76f51", "#8d99ae", "#b5838d"];
    const WIDE: f64 = 520.0;
    let mut names: Vec<&str> = bench.runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    names.push("floor");
    let groups = ["run", "create", "start", "delete", "exec", "state"];
    let most = groups
        .iter()
        .flat_map(|what| names.iter().filter_map(|name| find(rows, what, name)))
        .map(Row::median)
        .fold(1.0, f64::max);
    let (mut bars, mut y) = (String::new(), 30);
    for what in groups {
        writeln!(bars, r#"<text x="70" y="{}" text-anchor="end">{what}</text>"#, y + 12)?;
        for (name, colour) in names.iter().zip(COLOURS) {
            let Some(row) = find(rows, what, name) else { continue };
            let width = row.median() / most * WIDE;
            writeln!(bars, r#"<rect x="80" y="{y}" width="{width:.1}" height="13" fill="{colour}"/>"#)?;
            writeln!(bars, r#"<text x="{:.1}" y="{}">{:.2} {name}</text>"#, 85.0 + width, y + 11, row.median())?;
            y += 15;
        }
        y += 8;
    }
    let picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"80\" y=\"18\">milliseconds, median of {}; {}</text>\n{bars}</svg>\n",
        bench.rounds,
        host()?
    );
    fs::write(path, picture)?;
    Ok(())
}
