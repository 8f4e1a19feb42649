//! What `check` tells of a bundle: everything that is wrong with its config.json, and everything that is ignored. Loading
//! stops at the first error and knows no warnings; this takes its time.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::check::{self, Finding};
use crate::decode::{escape, one_line, plain, pointer, settle, tolerate_spec};
use crate::load::{self, cause};
use crate::position::{Position, locate};
use crate::{Bundle, Error};

mod repair;
mod similar;
mod unknown;
mod warning;

/// How grave a remark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No container can be made of this.
    Error,
    /// Something will not be as its writer may think.
    Warning,
}

/// One thing about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// How grave it is.
    pub severity: Severity,
    /// The JSON pointer of the field.
    pub pointer: String,
    /// Its line, from 1; 0 where it is the file's as a whole.
    pub line: usize,
    /// Its column in bytes, from 1.
    pub column: usize,
    /// What there is to say.
    pub cause: String,
}

impl fmt::Display for Remark {
    /// Without the path of the file: `12:7: warning: /process/argz: unknown field, did you mean "args"?`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let separator = if self.pointer.is_empty() { "" } else { ": " };
        let text = format!("{}{separator}{}", self.pointer, self.cause);
        write!(out, "{}:{}: {severity}: {}", self.line, self.column, one_line(&text))
    }
}

/// A configuration that was looked at.
#[derive(Debug)]
pub struct Examined {
    /// Where it is.
    pub path: PathBuf,
    /// What there is to say, in the order of the file.
    pub remarks: Vec<Remark>,
    /// What would be run, if there is no error.
    pub bundle: Option<Bundle>,
    text: Vec<u8>,
}

impl Examined {
    /// Adds an error that others have found in it.
    pub fn refuse(&mut self, pointer: &str, cause: &str) {
        self.bundle = None;
        self.add(Severity::Error, vec![Finding { pointer: pointer.to_owned(), cause: cause.to_owned() }]);
        self.sort();
    }

    /// Adds a warning that others have about it, unless there is one of the same field.
    pub fn warn(&mut self, pointer: &str, cause: &str) {
        if self.remarks.iter().any(|remark| remark.pointer == pointer) {
            return;
        }
        self.add(Severity::Warning, vec![Finding { pointer: pointer.to_owned(), cause: cause.to_owned() }]);
        self.sort();
    }

    /// Whether a container can be made of it.
    pub fn is_usable(&self) -> bool {
        self.remarks.iter().all(|remark| remark.severity != Severity::Error)
    }

    fn add(&mut self, severity: Severity, findings: Vec<Finding>) {
        for Finding { pointer, cause } in findings {
            let Position { line, column } = locate(&self.text, &pointer);
            self.remarks.push(Remark { severity, pointer, line, column, cause });
        }
    }

    fn sort(&mut self) {
        self.remarks.sort_by_key(|remark| (remark.line, remark.column, remark.severity));
        self.remarks.dedup();
    }
}

/// Looks at `dir/config.json` and the root it names.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn bundle(dir: &Path) -> Result<Examined, Error> {
    let dir = fs::canonicalize(dir).map_err(|error| Error::Invalid(format!("bundle {dir:?}: {}", cause(&error))))?;
    let path = dir.join("config.json");
    let text = fs::read(&path).map_err(|error| Error::Invalid(format!("{}: {}", path.display(), cause(&error))))?;
    let mut examined = Examined { path, remarks: Vec::new(), bundle: None, text };
    // What decoding would log is said by a remark.
    let quiet = tracing::subscriber::NoSubscriber::default();
    if let Some(spec) = tracing::subscriber::with_default(quiet, || examine(&mut examined)) {
        let rootfs = load::rootfs(&dir, &spec);
        let network = load::host_network(&spec);
        let findings: Vec<Finding> = rootfs.as_ref().err().cloned().into_iter().chain(network.err()).collect();
        examined.add(Severity::Error, findings);
        if let (true, Ok(rootfs)) = (examined.is_usable(), rootfs) {
            examined.bundle = Some(Bundle { dir, rootfs, spec, config: examined.text.clone() });
        }
    }
    examined.sort();
    Ok(examined)
}

/// The configuration, if its types are right.
fn examine(examined: &mut Examined) -> Option<Spec> {
    let document: Value = match serde_json::from_slice(&examined.text) {
        Ok(document) => document,
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let cause = plain(&error);
            examined.remarks.push(Remark { severity: Severity::Error, pointer: String::new(), line, column, cause });
            return None;
        }
    };
    examined.add(Severity::Warning, unknown::fields(&document));
    let misplaced = check::all_in_text(&document);
    let (spec, faults) = repair::decode(&document, &misplaced);
    let types_are_right = faults.is_empty() && misplaced.is_empty();
    examined.add(Severity::Error, misplaced);
    examined.add(Severity::Error, faults);
    // What was repaired is not what was meant: only of a whole configuration can be said what contradicts what.
    let mut spec = spec.filter(|_| types_are_right)?;
    settle(&mut spec, &examined.text);
    examined.add(Severity::Error, check::all(&spec));
    examined.add(Severity::Warning, warning::all(&document, &spec));
    Some(spec)
}

#[cfg(test)]
mod tests;
