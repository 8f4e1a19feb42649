//! `spec`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use serde::Serialize;
use tare_spec::template::{self, Cgroups};

use super::given;
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
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Through oci-spec's type: its members are in the order of the specification.
    let document = template::spec(document).map_err(|error| error.to_string())?;
    document.serialize(&mut serializer).map_err(|error| error.to_string())?;
    text.push(b'\n');

    let path = given(spec.bundle.as_ref()).unwrap_or_default().join("config.json");
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{path:?} exists, remove it first"),
        _ => format!("{path:?}: {}", cause(&error)),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(&text).map_err(failed)
}
