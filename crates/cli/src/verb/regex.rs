//! `kill --regex`, `delete --regex`: the same for every container whose name matches.

use std::ffi::CString;

use tare_sandbox::container::Runtime;
use tare_sandbox::sys::regex::Regex;

/// Calls `act` for each container that the expression matches; a failure does not spare the others.
///
/// # Errors
/// An expression that is none; what failed, with the names of the containers.
pub(super) fn for_each(
    runtime: &Runtime,
    pattern: &str,
    act: impl Fn(&str) -> tare_sandbox::Result<()>,
) -> Result<(), String> {
    let c_string = |text: &str| CString::new(text).map_err(|_| format!("--regex {text:?} contains a NUL byte"));
    let regex = Regex::new(&c_string(pattern)?).map_err(|cause| format!("--regex {pattern:?}: {cause}"))?;
    let names = match runtime.names() {
        // Nobody has made a container yet.
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => return Ok(()),
        names => names.map_err(|error| error.to_string())?,
    };
    let mut failed = Vec::new();
    for name in names {
        if regex.is_match(&c_string(&name)?)
            && let Err(error) = act(&name)
        {
            failed.push(format!("container {name:?}: {error}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}
