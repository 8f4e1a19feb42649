//! `ps`.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use tare_sandbox::container::Runtime;

use super::print;
use crate::args::Ps;
use crate::report::cause;

/// Prints the container's processes: their pids, or what the host's ps(1) says of them.
///
/// # Errors
/// An unknown format, a ps(1) that fails or prints no pids.
pub(super) fn write(runtime: &Runtime, ps: &Ps) -> Result<(), String> {
    if !matches!(ps.format.as_str(), "table" | "json") {
        return Err(format!("invalid format {:?}: table or json", ps.format));
    }
    let pids = runtime.ps(&ps.id).map_err(|error| error.to_string())?;
    if ps.format == "json" {
        let list = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        // As runc, whose list in Go is then nil.
        return print(&if pids.is_empty() { "null\n".into() } else { format!("[{list}]\n") });
    }
    let default = [OsString::from("-ef")];
    let options: &[OsString] = if ps.options.is_empty() { &default } else { &ps.options };
    let output = Command::new("ps").args(options).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("run ps: {}", cause(&error)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(format!("ps: {}: {said}", output.status));
    }
    print(&rows(&String::from_utf8_lossy(&output.stdout), &pids)?)
}

/// The header and the rows of these processes.
fn rows(table: &str, pids: &[i32]) -> Result<String, String> {
    let header = table.lines().next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or("ps: the output has no PID column")?;
    let mut text = format!("{header}\n");
    for row in table.lines().skip(1) {
        let pid = row.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(row);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_picked_by_the_pid_column() {
        let table = "UID          PID    PPID CMD\nroot           1       0 init\nroot          42       1 sh 1\n";
        assert_eq!(rows(table, &[42]), Ok("UID          PID    PPID CMD\nroot          42       1 sh 1\n".into()));
        assert_eq!(rows(table, &[]), Ok("UID          PID    PPID CMD\n".into()));
        assert!(rows("UID CMD\nroot sh\n", &[1]).is_err());
        assert!(rows("", &[1]).is_err());
    }
}
