//! What limits are written to: the files of a real cgroup, or a list of what would be written.

use std::path::PathBuf;

use nix::errno::Errno;

use super::dir::Dir;
use crate::error::CallContext;
use crate::{Error, Result};

/// Whether limits meet processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occupancy {
    /// `create`: nobody is inside, nothing is in use.
    Empty,
    /// `update`.
    InUse,
}

/// The files of one directory. `field` is the field of the configuration in whose name a file is written.
pub(super) trait Files {
    /// Writes one file.
    fn attempt(&self, field: &str, file: &str, value: &str) -> nix::Result<()>;

    /// The same by a controller of cgroups-rs, which wants the directory's path.
    fn attempt_by(
        &self,
        field: &str,
        file: &str,
        value: &str,
        write: impl FnOnce(PathBuf) -> cgroups_rs::fs::error::Result<()>,
    ) -> cgroups_rs::fs::error::Result<()>;

    /// Reads one file.
    fn peek(&self, file: &str) -> nix::Result<String>;

    /// How an error names a write to `file`.
    fn write_text(&self, file: &str, value: &str) -> String;

    /// Reads one file that has to be there.
    fn look(&self, file: &str) -> Result<String> {
        self.peek(file).call(|| format!("read({file:?})"))
    }
}

/// A directory for each controller.
pub(super) trait Hierarchies {
    type Files: Files;

    /// The directory in the hierarchy of `controller`.
    fn of(&self, controller: &str) -> Option<&Self::Files>;

    /// The same for a field that needs it.
    fn require(&self, controller: &str, field: &str) -> Result<&Self::Files> {
        self.of(controller).ok_or_else(|| {
            Error::Refused(format!("{field}: this host has no cgroup v1 hierarchy with controller {controller:?}"))
        })
    }
}

impl Files for Dir {
    fn attempt(&self, _: &str, file: &str, value: &str) -> nix::Result<()> {
        self.try_write(file, value)
    }

    fn attempt_by(
        &self,
        _: &str,
        _: &str,
        _: &str,
        write: impl FnOnce(PathBuf) -> cgroups_rs::fs::error::Result<()>,
    ) -> cgroups_rs::fs::error::Result<()> {
        write(self.path().into())
    }

    fn peek(&self, file: &str) -> nix::Result<String> {
        self.try_read(file)
    }

    fn write_text(&self, file: &str, value: &str) -> String {
        self.write_text(file, value)
    }

    fn look(&self, file: &str) -> Result<String> {
        self.read(file)
    }
}

/// What the recorder answers to a read: a cgroup that was just made.
pub(super) fn fresh(file: &str) -> nix::Result<String> {
    match file {
        "memory.max" => Ok("max".into()),
        "cpu.max" => Ok("max 100000".into()),
        "memory.current" | "memory.usage_in_bytes" => Ok("0".into()),
        _ => Err(Errno::ENOENT),
    }
}
