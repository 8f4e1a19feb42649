//! `list`.

use std::io::ErrorKind;

use tare_sandbox::container::{Runtime, State};

use super::print;
use crate::args::{Global, List};
use crate::report::cause;

/// Prints every container under the root. One that cannot be read costs a warning, not the list.
///
/// # Errors
/// An unknown format, a root that was named and is not there.
pub(super) fn write(runtime: &Runtime, global: &Global, list: &List) -> Result<(), String> {
    if !matches!(list.format.as_str(), "table" | "json") {
        return Err(format!("invalid format {:?}: table or json", list.format));
    }
    // Nobody has made a container yet: fine, unless the caller says that there is a root.
    let listed = match std::fs::metadata(&runtime.root) {
        Ok(_) => runtime.list().map_err(|error| error.to_string())?,
        Err(error) if error.kind() == ErrorKind::NotFound && global.root.is_none() => Vec::new(),
        Err(error) => return Err(format!("--root {:?}: {}", runtime.root, cause(&error))),
    };
    let mut states = Vec::new();
    for (id, state) in listed {
        match state {
            Ok(state) => states.push(state),
            Err(error) => tracing::warn!("list: container {id:?}: {error}"),
        }
    }
    match list.format.as_str() {
        _ if list.quiet => print(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>()),
        // As runc, whose list in Go is then nil.
        "json" if states.is_empty() => print("null\n"),
        "json" => print(&(serde_json::to_string(&states).map_err(|error| error.to_string())? + "\n")),
        _ => print(&table(&states)),
    }
}

fn table(states: &[State]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|state| {
        let status = format!("{:?}", state.status).to_lowercase();
        let bundle = state.bundle.display().to_string();
        [state.id.clone(), state.pid.to_string(), status, bundle, state.created.clone(), state.owner.clone()]
    });
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    // As runc: a column is three wider than its widest cell, and at least 12; the last is not padded.
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().map_or(12, |widest| (widest + 3).max(12))
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tare_sandbox::container::Status;

    #[test]
    fn the_table_is_aligned_as_runc_does_it() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        let state = State {
            oci_version: "1.3.0".into(),
            id: "a-rather-long-name".into(),
            pid: 42,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-21T00:38:28.5Z".into(),
            annotations: std::collections::BTreeMap::new(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&[state]),
            "ID                   PID         STATUS      BUNDLE      CREATED                  OWNER\n\
             a-rather-long-name   42          running     /b          2026-11-21T00:38:28.5Z   root\n"
        );
    }
}
