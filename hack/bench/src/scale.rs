//! Many containers that stay.

use crate::Row;
use crate::command::{Bench, Done, time};

/// Creates and starts `count` containers of each runtime, one after the other: the first and the last tenth of the times, then what
/// the whole crowd costs `list`, and one of it `state` and `delete`.
pub(crate) fn many_containers(bench: &Bench, count: usize, rows: &mut Vec<Row>) -> Done {
    let few = (count / 50).clamp(1, 20);
    for runtime in &bench.runtimes {
        let mut put = |what, mut values: Vec<f64>, unit| {
            values.sort_by(f64::total_cmp);
            rows.push(Row { what, runtime: runtime.name.clone(), values, unit });
        };
        let mut created = Vec::with_capacity(count);
        for number in 0..count {
            let id = format!("many-{number}");
            created.push(time(runtime.command(&["create", "--bundle", &bench.bundle("sleep")], &id))?);
            time(runtime.command(&["start"], &id))?;
        }
        put("create, the first of many", created[..few].to_vec(), "ms");
        put("create, the last of many", created[count - few..].to_vec(), "ms");
        let mut listed = Vec::new();
        let mut states = Vec::new();
        for number in 0..few {
            listed.push(time(runtime.command(&["list"], ""))?);
            states.push(time(runtime.command(&["state"], &format!("many-{number}")))?);
        }
        put("list of many", listed, "ms");
        put("state among many", states, "ms");
        let mut deleted = Vec::with_capacity(count);
        for number in 0..count {
            deleted.push(time(runtime.command(&["delete", "--force"], &format!("many-{number}")))?);
        }
        put("delete --force among many", deleted[..few].to_vec(), "ms");
    }
    Ok(())
}
