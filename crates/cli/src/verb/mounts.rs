//! `mounts`.

use std::fs;

use tare_sandbox::container::Runtime;

use crate::args::Mounts;
use crate::report::{Cause, cause};

/// Adds the mounts of the file, or takes them away.
///
/// # Errors
/// An unknown word, a file that cannot be read, the mount that failed.
pub(super) fn change(runtime: &Runtime, mounts: &Mounts) -> Result<(), Cause> {
    let change = match mounts.action.as_str() {
        "add" => Runtime::add_mounts,
        "remove" => Runtime::remove_mounts,
        other => return Err(format!("{other:?} is not add or remove").into()),
    };
    let path = &mounts.file;
    let text = fs::read(path).map_err(|error| format!("{path:?}: {}", cause(&error)))?;
    let list = tare_spec::decode::mounts(path, &text).map_err(|error| error.to_string())?;
    Ok(change(runtime, &mounts.id, &list)?)
}
