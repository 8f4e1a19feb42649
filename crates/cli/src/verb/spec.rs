//! `spec`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use tare_spec::template::{self, Cgroups};

use crate::args::Spec;
use crate::report::cause;

/// Writes config.json into the bundle; never over one that is there.
///
/// # Errors
/// What could not be written.
pub(super) fn write(spec: &Spec) -> Result<(), String> {
    let document = if spec.rootless {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        template::rootless_document(Cgroups::of_host(), uid, gid)
    } else {
        template::document(Cgroups::of_host())
    };
    let path = spec.bundle.clone().unwrap_or_default().join("config.json");
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{path:?} exists, remove it first"),
        _ => format!("{path:?}: {}", cause(&error)),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(template::text(&document).as_bytes()).map_err(failed)
}
