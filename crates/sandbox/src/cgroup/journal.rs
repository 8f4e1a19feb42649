//! Writes that can be taken back: an update that fails half way leaves the limits as they were.

use std::cell::RefCell;
use std::path::PathBuf;

use super::dir::Dir;
use super::files::{Files, Hierarchies};
use crate::Result;
use crate::error::Context;

/// What to write to have a file as it was.
#[derive(Debug)]
struct Former<'a> {
    dir: &'a Dir,
    file: String,
    value: String,
}

/// What the files said before they were written, in order.
#[derive(Debug, Default)]
pub(super) struct Journal<'a>(RefCell<Vec<Former<'a>>>);

impl<'a> Journal<'a> {
    /// The files of `dir`, whose writes are remembered.
    pub(super) fn of(&self, dir: &'a Dir) -> Remembered<'_, 'a> {
        Remembered { dir, journal: self }
    }

    /// Takes everything back if `changed` is an error, the last write first: every state on the way is one that was.
    ///
    /// # Errors
    /// That error; with the names of what could not be taken back.
    pub(super) fn settle<T>(self, changed: Result<T>) -> Result<T> {
        if changed.is_ok() {
            return changed;
        }
        let mut stuck = Vec::new();
        for former in self.0.into_inner().into_iter().rev() {
            if former.dir.try_write(&former.file, &former.value).is_err() {
                stuck.push(former.file);
            }
        }
        if stuck.is_empty() { changed } else { changed.during(|| format!("not put back: {}", stuck.join(", "))) }
    }
}

/// One directory.
#[derive(Debug)]
pub(super) struct Remembered<'j, 'a> {
    dir: &'a Dir,
    journal: &'j Journal<'a>,
}

impl Remembered<'_, '_> {
    /// Notes what undoes a write, once that has happened.
    fn remembering<E>(&self, file: &str, value: &str, write: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        // A file that only takes orders (memory.reclaim) cannot be read: there is nothing to go back to.
        let former = self.dir.try_read(file).ok().and_then(|text| former(file, &text, value));
        write()?;
        if let Some(value) = former {
            self.journal.0.borrow_mut().push(Former { dir: self.dir, file: file.to_owned(), value });
        }
        Ok(())
    }
}

impl Files for Remembered<'_, '_> {
    fn attempt(&self, _: &str, file: &str, value: &str) -> nix::Result<()> {
        self.remembering(file, value, || self.dir.try_write(file, value))
    }

    fn attempt_by(
        &self,
        _: &str,
        file: &str,
        value: &str,
        write: impl FnOnce(PathBuf) -> cgroups_rs::fs::error::Result<()>,
    ) -> cgroups_rs::fs::error::Result<()> {
        self.remembering(file, value, || write(self.dir.path().into()))
    }

    fn peek(&self, file: &str) -> nix::Result<String> {
        self.dir.try_read(file)
    }

    fn write_text(&self, file: &str, value: &str) -> String {
        self.dir.write_text(file, value)
    }

    fn look(&self, file: &str) -> Result<String> {
        self.dir.read(file)
    }
}

/// A directory for each hierarchy of v1, by its controllers.
#[derive(Debug)]
pub(super) struct RememberedHierarchies<'j, 'a>(pub(super) Vec<(&'a str, Remembered<'j, 'a>)>);

impl<'j, 'a> Hierarchies for RememberedHierarchies<'j, 'a> {
    type Files = Remembered<'j, 'a>;

    fn of(&self, controller: &str) -> Option<&Self::Files> {
        let of = |(names, _): &&(&str, _)| names.split(',').any(|name| name == controller);
        self.0.iter().find(of).map(|(_, files)| files)
    }
}

/// What is to be written to `file`, which says `text` now, to take back `value`. None if that cannot be known.
fn former(file: &str, text: &str, value: &str) -> Option<String> {
    if file == "memory.oom_control" {
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill_disable "))?;
        return Some(line.to_owned());
    }
    let Some(unset) = unset(file) else {
        let mut lines = text.lines();
        // An empty line, not an empty write: that would not reach the kernel.
        let line = lines.next().filter(|line| !line.is_empty()).unwrap_or("\n");
        return lines.next().is_none().then(|| line.to_owned());
    };
    // A line for each device, by its name; `io.weight` and `io.bfq.weight` have one for all others: `default 100`.
    let (key, _) = value.split_once(' ').unwrap_or(("default", value));
    let line = text.lines().find(|line| line.split(' ').next() == Some(key));
    Some(line.map_or_else(|| format!("{key} {unset}"), str::to_owned))
}

/// For files with a line for each device: what says that a device has none.
fn unset(file: &str) -> Option<&'static str> {
    match file {
        "io.max" => Some("rbps=max wbps=max riops=max wiops=max"),
        "io.weight" | "io.bfq.weight" => Some("default"),
        "rdma.max" => Some("hca_handle=max hca_object=max"),
        "misc.max" => Some("max"),
        "net_prio.ifpriomap" => Some("0"),
        _ if file.starts_with("blkio.throttle.") => Some("0"),
        _ if file.starts_with("blkio.") && file.ends_with("weight_device") => Some("default"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_said_can_be_written_again() {
        for (file, text, value, expected) in [
            ("pids.max", "max\n", "5", Some("max")),
            ("cpu.max", "max 100000\n", "5000", Some("max 100000")),
            ("cpuset.cpus", "\n", "0", Some("\n")),
            ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", "0", Some("1")),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                "8:0 rbps=7",
                Some("8:0 rbps=1 wbps=max riops=max wiops=max"),
            ),
            (
                "io.max",
                "8:0 rbps=1 wbps=2 riops=3 wiops=4\n",
                "8:16 rbps=7",
                Some("8:16 rbps=max wbps=max riops=max wiops=max"),
            ),
            ("io.weight", "default 100\n8:0 7\n", "500", Some("default 100")),
            ("io.weight", "default 100\n8:0 7\n", "8:0 9", Some("8:0 7")),
            ("io.bfq.weight", "default 100\n", "8:0 9", Some("8:0 default")),
            ("blkio.throttle.read_bps_device", "", "8:0 9", Some("8:0 0")),
            ("blkio.bfq.weight_device", "", "8:0 9", Some("8:0 default")),
            ("blkio.bfq.weight", "100\n", "9", Some("100")),
            ("rdma.max", "m hca_handle=max hca_object=7\n", "m hca_handle=2", Some("m hca_handle=max hca_object=7")),
            ("net_prio.ifpriomap", "lo 0\neth0 4\n", "eth0 5", Some("eth0 4")),
            // Of several lines nobody knows which one was meant.
            ("cgroup.stat", "a 1\nb 2\n", "a 3", None),
        ] {
            assert_eq!(former(file, text, value).as_deref(), expected, "{file} {text:?} {value}");
        }
    }

    fn write<'a>(journal: &Journal<'a>, dir: &'a Dir) -> nix::errno::Errno {
        let files = journal.of(dir);
        files.attempt("", "a.max", "2").unwrap();
        files.attempt("", "a.max", "3").unwrap();
        files.attempt("", "b.max", "4").unwrap();
        files.attempt("", "d.max", "5").unwrap_err()
    }

    #[test]
    fn a_failure_puts_everything_back_and_a_success_nothing() {
        let path = std::env::temp_dir().join(format!("tare-journal-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for file in ["a.max", "b.max", "c.max"] {
            std::fs::write(path.join(file), "1").unwrap();
        }
        let dir = Dir::new(&path);
        let read = || ["a.max", "b.max"].map(|file| std::fs::read_to_string(path.join(file)).unwrap());
        let journal = Journal::default();
        write(&journal, &dir);
        journal.settle(Ok(())).unwrap();
        let after_success = read();
        let journal = Journal::default();
        for file in ["a.max", "b.max"] {
            std::fs::write(path.join(file), "1").unwrap();
        }
        let errno = write(&journal, &dir);
        let error = journal.settle::<()>(Err(crate::Error::call("write", errno))).unwrap_err();
        let after_failure = read();
        // What cannot be put back is named.
        let journal = Journal::default();
        journal.of(&dir).attempt("", "c.max", "2").unwrap();
        std::fs::remove_file(path.join("c.max")).unwrap();
        let stuck = journal.settle::<()>(Err(crate::Error::NotExist)).unwrap_err().to_string();
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(after_success, ["3", "4"]);
        assert_eq!(after_failure, ["1", "1"]);
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
        assert_eq!(stuck, "not put back: c.max: container does not exist");
    }
}
