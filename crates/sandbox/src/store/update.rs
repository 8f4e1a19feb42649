//! What updates leave behind, and how they take turns.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::LinuxResources;

use super::{Entry, Record, lock_by};
use crate::deadline::Deadline;
use crate::{Error, Result};

/// An entry whose limits nobody else changes meanwhile. Not [`Locked`]: the hooks of a command that holds that may update.
#[derive(Debug)]
pub struct Updating<'a> {
    entry: &'a Entry,
    _lock: File,
}

impl Entry {
    /// Waits for other updates to end.
    ///
    /// # Errors
    /// Another update lasts past `deadline`; [`Error::NotExist`] when the container was deleted.
    pub fn updating(&self, deadline: Deadline) -> Result<Updating<'_>> {
        const NAME: &str = "updates.lock";
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dir, NAME, flags, Mode::from_bits_truncate(0o600)) {
            Ok(file) => {
                let path = self.path.join(NAME);
                let file = File::from(file);
                lock_by(&file, &path, deadline)?;
                Ok(Updating { entry: self, _lock: file })
            }
            Err(Errno::ENOENT) => Err(Error::NotExist),
            Err(errno) => Err(Error::call(format!("open({:?})", self.path.join(NAME)), errno)),
        }
    }

    /// What all updates together have asked for since create; None if there were none.
    ///
    /// # Errors
    /// A file that is not what update wrote.
    pub fn updates(&self) -> Result<Option<LinuxResources>> {
        const NAME: &str = "updates.json";
        let updates = self.read(NAME, |text| tare_spec::decode::resources(&self.path.join(NAME), text))?;
        Ok(updates.transpose()?)
    }
}

impl Updating<'_> {
    /// Writes `updates.json`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn write(&self, updates: &LinuxResources) -> Result<()> {
        let bytes = serde_json::to_vec(updates).map_err(|error| Error::Refused(format!("updates: {error}")))?;
        self.entry.write("updates.json", &bytes)
    }

    /// Writes `state.json` anew: what an update has made for the container is to be removed with it.
    ///
    /// # Errors
    /// The call that failed.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        self.entry.write_record(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn updates_take_turns_and_need_not_wait_for_a_command_that_runs_a_hook() {
        let root = std::env::temp_dir().join(format!("tare-updates-{}", std::process::id()));
        let locked = Store::new(&root).claim("web").unwrap();
        let entry = Store::new(&root).open("web").unwrap();
        assert_eq!(entry.updates().unwrap(), None);
        let resources = serde_json::from_str(r#"{"pids": {"limit": 7}}"#).unwrap();
        let updating = entry.updating(Deadline::after(std::time::Duration::ZERO)).unwrap();
        let error = locked.updating(Deadline::after(std::time::Duration::ZERO)).unwrap_err().to_string();
        updating.write(&resources).unwrap();
        drop(updating);
        let again = entry.updating(Deadline::after(std::time::Duration::ZERO)).map(drop);
        let read = entry.updates();
        std::fs::write(root.join("web/updates.json"), "[]").unwrap();
        let broken = entry.updates().unwrap_err().to_string();
        locked.remove().unwrap();
        let gone = entry.updating(Deadline::after(std::time::Duration::ZERO)).unwrap_err();
        std::fs::remove_dir(&root).unwrap();
        assert!(error.contains("updates.lock\" is locked: another command"), "{error}");
        again.unwrap();
        assert_eq!(read.unwrap(), Some(resources));
        assert!(broken.contains("updates.json"), "{broken}");
        assert!(matches!(gone, Error::NotExist));
    }
}
