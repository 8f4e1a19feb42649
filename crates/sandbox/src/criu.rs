//! CRIU, which saves the processes of a container and brings them back: driven over its remote procedure calls.
//!
//! `criu swrk FD` is a child of this process that serves one socket. It is asked once, to save or to restore; in between it
//! notifies of what is up to the runtime: hooks in the new namespaces, the terminal's master side.

pub mod cgroups;
pub mod image;
pub mod log;
pub mod propagation;
pub mod rpc;
mod session;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

pub use self::session::{Birth, Notice, Session, Unborn};
use crate::{Error, Result};

/// The program.
const NAME: &str = "criu";

/// Finds CRIU in PATH.
///
/// # Errors
/// It is not there.
pub fn find() -> Result<CString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(NAME));
    let is_program = |candidate: &PathBuf| candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok();
    let Some(found) = candidates.find(is_program) else {
        return Err(Error::Refused("criu: not found in $PATH".into())
            .hinted("checkpoint and restore are done by CRIU (https://criu.org): install it"));
    };
    CString::new(found.as_os_str().as_bytes()).map_err(|_| Error::Refused(format!("{found:?} holds a NUL byte")))
}

/// CRIU's configuration file: what the annotation `org.criu.config` names, or the one of runc.
pub fn config_file(annotation: Option<&str>) -> Option<String> {
    const DEFAULT: &str = "/etc/criu/runc.conf";
    match annotation {
        // Named as empty: none.
        Some("") => None,
        Some(path) => Some(path.to_owned()),
        None => Path::new(DEFAULT).exists().then(|| DEFAULT.to_owned()),
    }
}

/// The directory in the state of a container that is restored on which CRIU alone sees something mounted.
pub const DIRECTORY: &str = "criu";
