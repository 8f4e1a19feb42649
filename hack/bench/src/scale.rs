//! Many containers that stay.

use crate::Row;
use crate::command::{Bench, Done, Runtime, time};

/// Creates and starts `count` containers of each runtime, one after the other: the first and the last of the times, what the whole crowd
/// costs `list`, and one of it `state`, `kill` and `delete`; and how each of those grows with the crowd.
pub(crate) fn many_containers(bench: &Bench, count: usize, rows: &mut Vec<Row>) -> Done {
    for runtime in &bench.runtimes {
        let mut own = Vec::new();
        match many_of(runtime, bench, count, &mut own) {
            Ok(()) => rows.append(&mut own),
            Err(error) => {
                runtime.clear_away();
                bench.refuse("create, the last of many", runtime, error, rows)?;
            }
        }
    }
    Ok(())
}

fn many_of(runtime: &Runtime, bench: &Bench, count: usize, rows: &mut Vec<Row>) -> Done {
    let few = (count / 50).clamp(1, 20);
    let mut put = |name: &str, what, mut values: Vec<f64>, unit| {
        values.sort_by(f64::total_cmp);
        rows.push(Row::new(what, name, values, unit));
    };
    let mut created = Vec::with_capacity(count);
    // Of crowds of an eighth to all: what each verb takes.
    let mut grown: Vec<(usize, [f64; 4])> = Vec::new();
    for number in 0..count {
        let id = format!("many-{number}");
        created.push(time(runtime.command(&["create", "--bundle", &bench.bundle("sleep")], &id))?);
        time(runtime.command(&["start"], &id))?;
        if [8, 4, 2, 1].map(|part| count / part).contains(&(number + 1)) {
            let [list, state, kill] = in_a_crowd(runtime, few)?.map(median);
            grown.push((number + 1, [list, state, kill, median(created[number + 1 - few..].to_vec())]));
        }
    }
    put(&runtime.name, "create, the first of many", created[..few].to_vec(), "ms");
    put(&runtime.name, "create, the last of many", created[count - few..].to_vec(), "ms");
    let [list, state, kill] = in_a_crowd(runtime, few)?;
    put(&runtime.name, "list of many", list, "ms");
    put(&runtime.name, "state among many", state, "ms");
    put(&runtime.name, "kill among many", kill, "ms");
    let run =
        |number: usize| time(runtime.command(&["run", "--bundle", &bench.bundle("true")], &format!("one-{number}")));
    put(&runtime.name, "run among many", (0..few).map(run).collect::<Done<_>>()?, "ms");
    // What of that is the kernel's; once.
    if runtime.name == bench.runtimes[0].name {
        let floor = |number: usize| time(bench.floor(0, &format!("many-{number}"))?);
        put("floor", "run among many", (0..few).map(floor).collect::<Done<_>>()?, "ms");
    }
    let mut deleted = Vec::with_capacity(count);
    for number in 0..count {
        deleted.push(time(runtime.command(&["delete", "--force"], &format!("many-{number}")))?);
    }
    put(&runtime.name, "delete --force among many", deleted[..few].to_vec(), "ms");
    for (at, what) in ["list grows", "state grows", "kill grows", "create grows"].into_iter().enumerate() {
        let points: Vec<(usize, f64)> = grown.iter().map(|(crowd, times)| (*crowd, times[at])).collect();
        put(&runtime.name, what, vec![exponent(&points)], "= e in n^e");
    }
    Ok(())
}

/// What `list` takes, and `state` and `kill` of some in the crowd.
fn in_a_crowd(runtime: &Runtime, few: usize) -> Done<[Vec<f64>; 3]> {
    let mut taken = [const { Vec::new() }; 3];
    for number in 0..few {
        let id = format!("many-{number}");
        taken[0].push(time(runtime.command(&["list"], ""))?);
        taken[1].push(time(runtime.command(&["state"], &id))?);
        let mut kill = runtime.command(&["kill"], &id);
        // Which a sleep does not notice.
        kill.arg("CONT");
        taken[2].push(time(kill)?);
    }
    Ok(taken)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The slope of the line that is nearest to the points, both logarithms: 0, it does not grow; 1, as the crowd does.
#[allow(clippy::cast_precision_loss)]
fn exponent(points: &[(usize, f64)]) -> f64 {
    let points: Vec<(f64, f64)> = points.iter().map(|(crowd, time)| ((*crowd as f64).ln(), time.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
    slope / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_doubles_with_the_crowd_has_the_exponent_one_and_what_stays_has_none() {
        let near = |points: &[(usize, f64)], expected: f64| (exponent(points) - expected).abs() < 1e-9;
        assert!(near(&[(10, 3.0), (20, 6.0), (40, 12.0)], 1.0));
        assert!(near(&[(10, 3.0), (20, 3.0), (40, 3.0)], 0.0));
        assert!(near(&[(10, 1.0), (20, 4.0), (40, 16.0)], 2.0));
    }
}
