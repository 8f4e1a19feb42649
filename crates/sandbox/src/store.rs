//! The state directory: `<root>/<id>/`, made for `create`, gone after `delete`.
//!
//! | file | written | by |
//! |---|---|---|
//! | `config.json` | once, first: the configuration as it was then | create |
//! | `state.json` | before anything exists outside this directory; again if an update makes something | create, update |
//! | `exec.fifo` | made by create; removed when the program runs | create, start |
//! | `notify/` | the socket of a container that tells when it is ready | create, start |
//! | `criu/` | empty: where CRIU alone sees mounts while it restores | restore |
//! | `init` | once: pid and start time of init, the text of a symbolic link: made, and read, in one call | create |
//! | `updates.json` | by each update: what all of them together have asked for | update |
//! | `updates.lock` | never: updates take turns by it | update |
//!
//! Every file is whole or not there: written under another name and renamed, or made in one call, or, `config.json`, written
//! before `state.json`, without which nobody looks for it. A runtime that is killed at any point leaves what `delete --force`
//! can remove. What a container is doing is not written down but asked of the kernel. The lock is flock(2) on the directory:
//! the kernel drops it with its holder.

mod init;
mod update;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Pid, Uid, UnlinkatFlags, symlinkat, unlinkat};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

pub use self::init::{Init, is_stopped};
pub use self::update::Updating;

use crate::cgroup::{self, describe_process};
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::sys::path::readlinkat;
use crate::{Error, Result};

/// Longest name: a file name, and what a cgroup or systemd unit is named after.
const MAX_ID_BYTES: usize = 255;

/// `state.json`: what is known of a container before it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The annotations of the configuration.
    pub annotations: Arc<BTreeMap<String, String>>,
    /// Where its cgroup is.
    pub cgroup: cgroup::Location,
    /// Its own directories in resctrl, in the order in which to remove them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
    /// Whether its init is pid 1 of a namespace of its own: then killing init kills all.
    pub own_pid_namespace: bool,
    /// What its mounts lie on, if it has no mount namespace of its own or joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers_root: Option<crate::rootfs::CallersRoot>,
    /// Whether there are poststart and poststop hooks: without, nobody decodes `config.json` for them.
    pub hooks: RecordedHooks,
}

/// Which late hooks the configuration has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedHooks {
    /// `hooks.poststart`.
    pub poststart: bool,
    /// `hooks.poststop`.
    pub poststop: bool,
}

/// The directory of all containers.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// The directory of one container, open.
#[derive(Debug)]
pub struct Entry {
    dir: File,
    path: PathBuf,
}

/// An entry under its lock, which goes with the descriptor.
#[derive(Debug)]
pub struct Locked {
    entry: Entry,
}

impl std::ops::Deref for Locked {
    type Target = Entry;
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// Refuses a name that is no plain file name of letters, digits and `_ + - .`: runc's rule, and never a path.
///
/// # Errors
/// `invalid container ID format`, which clients match.
pub fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || id == "." || id == ".." || id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
        return Err(Error::Refused(format!("invalid container ID format: {id:?}")));
    }
    Ok(())
}

impl Store {
    /// The store under `root`. Touches nothing.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Claims the name `id`: exactly one of any number of callers gets it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; a root that cannot be made.
    pub fn claim(&self, id: &str) -> Result<Locked> {
        check_id(id)?;
        let path = self.root.join(id);
        let mode = Mode::from_bits_truncate(0o711);
        match mkdirat(nix::fcntl::AT_FDCWD, &path, mode) {
            Err(Errno::ENOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(&self.root)
                    .call(|| format!("mkdir({:?})", self.root))
                    .map_err(explain)?;
                mkdirat(nix::fcntl::AT_FDCWD, &path, mode)
            }
            made => made,
        }
        .map_err(|errno| match errno {
            Errno::EEXIST => Error::AlreadyExists,
            errno => explain(Error::call(format!("mkdir({path:?})"), errno)),
        })?;
        match self.open(id).and_then(|entry| entry.lock(Deadline::after(Duration::ZERO))) {
            Ok(locked) => Ok(locked),
            // Between our mkdir and our lock somebody deleted the directory: it was there without a state.
            Err(Error::NotExist) => Err(Error::Refused("the container was deleted while it was being created".into())),
            Err(error) => {
                // Empty, or no longer ours alone.
                let _left_to_delete = std::fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// The entry of a container.
    ///
    /// # Errors
    /// [`Error::NotExist`].
    pub fn open(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let path = self.root.join(id);
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match openat(nix::fcntl::AT_FDCWD, &path, flags, Mode::empty()) {
            Ok(dir) => Ok(Entry { dir: dir.into(), path }),
            Err(Errno::ENOENT) => Err(Error::NotExist),
            Err(errno) => Err(Error::call(format!("open({path:?})"), errno)),
        }
    }

    /// The names of all containers, sorted.
    ///
    /// # Errors
    /// The root cannot be read; `ENOENT` when it does not exist.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root).call(|| format!("open({:?})", self.root))? {
            let entry = entry.call(|| format!("getdents64({:?})", self.root))?;
            if let Ok(name) = entry.file_name().into_string()
                && check_id(&name).is_ok()
                && entry.file_type().is_ok_and(|typ| typ.is_dir())
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// What a user can do whose state directory would be root's.
fn explain(error: Error) -> Error {
    match error.errno() {
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            error.hinted("set XDG_RUNTIME_DIR, or give --root a directory of your own")
        }
        _ => error,
    }
}

impl Entry {
    /// Takes the lock of the container, for what changes it.
    ///
    /// # Errors
    /// Another command holds it past `deadline`; [`Error::NotExist`] when that command deleted the container.
    pub fn lock(self, deadline: Deadline) -> Result<Locked> {
        lock_by(&self.dir, &self.path, deadline)?;
        // The holder before us may have removed the directory.
        if fstat(&self.dir).call(|| format!("fstat({:?})", self.path))?.st_nlink == 0 {
            return Err(Error::NotExist);
        }
        Ok(Locked { entry: self })
    }

    /// Whether no command holds the lock now.
    pub fn is_unlocked(&self) -> bool {
        let unlocked = self.dir.try_lock_shared().is_ok();
        if unlocked {
            // Fails for no reason, and would only last until the entry goes.
            let _released = self.dir.unlock();
        }
        unlocked
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, for the fifo.
    pub fn dir(&self) -> impl AsFd + '_ {
        &self.dir
    }

    /// Whose the directory is.
    ///
    /// # Errors
    /// The call failed.
    pub fn owner(&self) -> Result<Uid> {
        Ok(Uid::from_raw(fstat(&self.dir).call(|| format!("fstat({:?})", self.path))?.st_uid))
    }

    /// Reads `state.json`; None when create was killed before it wrote it.
    ///
    /// # Errors
    /// A file that is not what create wrote.
    pub fn record(&self) -> Result<Option<Record>> {
        let record = self.read("state.json", |bytes| serde_json::from_slice(bytes))?.transpose();
        record.map_err(|error| Error::Refused(format!("{:?}: {error}", self.path.join("state.json"))))
    }

    /// Reads `init`; None until init is ready.
    ///
    /// # Errors
    /// A file that is not what create wrote.
    pub fn init(&self) -> Result<Option<Init>> {
        let mut text = [0; 64];
        let text = match readlinkat(self.dir.as_fd(), c"init", &mut text) {
            Ok(text) => text,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(Error::call(format!("readlink({:?})", self.path.join("init")), errno)),
        };
        let malformed = || Error::Refused(format!("{:?}: not a pid and a start time", self.path.join("init")));
        Init::parse(text).map(Some).ok_or_else(malformed)
    }

    /// Reads the configuration as it was at create.
    ///
    /// # Errors
    /// It is missing, or cannot be read.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.path.join("config.json");
        let spec = self.read("config.json", |text| tare_spec::decode::spec(&path, text))?;
        Ok(spec.ok_or_else(|| Error::Refused(format!("{path:?}: no such file")))??)
    }

    /// What `decode` makes of a file; None: there is none.
    fn read<T>(&self, name: &str, decode: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(Error::call(format!("open({:?})", self.path.join(name)), errno)),
        };
        let read = || format!("read({:?})", self.path.join(name));
        let (mut file, mut first) = (File::from(file), [0; 4096]);
        let count = file.read(&mut first).call(read)?;
        // Most fit: of a file of ours less than asked for is all.
        if count < first.len() {
            return Ok(Some(decode(&first[..count])));
        }
        let mut bytes = first.to_vec();
        file.read_to_end(&mut bytes).call(read)?;
        Ok(Some(decode(&bytes)))
    }

    fn write_record(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::Refused(format!("state: {error}")))?;
        self.write("state.json", &bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!(".{name}");
        self.write_in_place(&temporary, bytes)?;
        renameat(&self.dir, temporary.as_str(), &self.dir, name).call(|| format!("rename({:?})", self.path.join(name)))
    }

    fn write_in_place(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::from_bits_truncate(0o600))
            .call(|| format!("open({:?})", self.path.join(name)))?;
        File::from(file).write_all(bytes).call(|| format!("write({:?})", self.path.join(name)))
    }
}

/// flock(2), for as long as it takes.
fn lock_by(file: &File, path: &Path, deadline: Deadline) -> Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // flock(2) has no timeout and a signal-driven one would need a handler: look again, rarely, since
            // commands on one container seldom meet.
            Err(TryLockError::WouldBlock) if !deadline.passed() => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => {
                let by = holder(file).map_or(String::new(), |pid| format!(": {}", describe_process(pid)));
                return Err(deadline.late(format_args!("{path:?} is locked: another command is at work on it{by}")));
            }
            Err(TryLockError::Error(error)) => return Err(error).call(|| format!("flock({path:?})")),
        }
    }
}

/// Who holds the lock, as far as /proc/locks tells: proc_locks(5).
fn holder(file: &File) -> Option<Pid> {
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = fields.as_slice() else { return None };
        let pid = pid.parse().ok().filter(|_| place.ends_with(&inode))?;
        // Zero and less: in another pid namespace, or gone.
        (pid > 0).then(|| Pid::from_raw(pid))
    })
}

impl Locked {
    /// Writes `state.json`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        self.entry.write_record(record)
    }

    /// Writes `config.json`, which is to be there before [`Locked::write_record`].
    ///
    /// # Errors
    /// The call that failed.
    pub fn write_config(&self, bytes: &[u8]) -> Result<()> {
        self.entry.write_in_place("config.json", bytes)
    }

    /// Writes `init`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn write_init(&self, init: Init) -> Result<()> {
        symlinkat(init.to_string().as_str(), &self.entry.dir, "init")
            .call(|| format!("symlink({:?})", self.entry.path.join("init")))
    }

    /// Removes the directory with all that is in it. From then on the name is free.
    ///
    /// # Errors
    /// The call that failed.
    pub fn remove(self) -> Result<()> {
        let path = self.entry.path.clone();
        // What is usually all there is, without asking what there is.
        for name in ["init", "state.json", "config.json"] {
            unlink_if_there(&self.entry.dir, name)?;
        }
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed.call(|| format!("rmdir({path:?})")),
        }
        let names = std::fs::read_dir(&path).call(|| format!("open({path:?})"))?;
        for name in names {
            let name = name.call(|| format!("getdents64({path:?})"))?.file_name();
            match unlinkat(&self.entry.dir, Path::new(&name), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // With the socket.
                Err(Errno::EISDIR) if name == crate::notify::DIRECTORY => {
                    let directory = path.join(&name);
                    std::fs::remove_dir_all(&directory).call(|| format!("unlink({directory:?})"))?;
                }
                // Empty: what was mounted on it went with CRIU.
                Err(Errno::EISDIR) if name == crate::criu::DIRECTORY => {
                    let directory = path.join(&name);
                    std::fs::remove_dir(&directory).call(|| format!("rmdir({directory:?})"))?;
                }
                Err(errno) => return Err(Error::call(format!("unlink({:?})", path.join(&name)), errno)),
            }
        }
        std::fs::remove_dir(&path).call(|| format!("rmdir({path:?})"))
    }
}

/// Removes what is at `path` in `dir`, if it is there.
///
/// # Errors
/// The call that failed.
pub fn unlink_if_there(dir: impl AsFd, name: &str) -> Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::call(format!("unlink({name:?})"), errno)),
    }
}

/// Writes a pid file: the number without a newline, whole or not at all, over whatever was there.
///
/// # Errors
/// The call that failed.
pub fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::Refused(format!("{path:?} does not name a file")))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .call(|| format!("write({temporary:?})"))
        .and_then(|()| std::fs::rename(&temporary, path).call(|| format!("rename({temporary:?}, {path:?})")));
    if written.is_err() {
        let _nothing_more_to_do = std::fs::remove_file(&temporary);
    }
    written.during(|| format!("pid file {path:?}"))
}

/// Whether the directory entry is there, without following a link.
///
/// # Errors
/// The call that failed.
pub fn exists(dir: impl AsFd, name: &str) -> Result<bool> {
    match nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(Error::call(format!("stat({name:?})"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tare-store-{}-{name}", std::process::id()));
        let _may_not_exist = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn names_that_are_paths_or_worse_are_refused() {
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "a/b", "/abs", "a\nb", "a b", "é", "a\0", long.as_str()] {
            assert!(check_id(bad).unwrap_err().to_string().starts_with("invalid container ID format"), "{bad:?}");
        }
        for good in ["a", "web_1.0+x-y", "..a", "0123"] {
            check_id(good).unwrap();
        }
    }

    #[test]
    fn of_two_claims_one_wins_and_after_removal_the_name_is_free() {
        let root = scratch("claim");
        let store = Store::new(&root);
        let first = store.claim("web").unwrap();
        assert!(matches!(store.claim("web"), Err(Error::AlreadyExists)));
        assert!(!store.open("web").unwrap().is_unlocked());
        assert_eq!(store.names().unwrap(), ["web"]);
        first.remove().unwrap();
        assert!(matches!(store.open("web"), Err(Error::NotExist)));
        store.claim("web").unwrap().remove().unwrap();
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn who_waits_for_the_lock_of_a_deleted_container_learns_that_it_is_gone() {
        let root = scratch("gone");
        let store = Store::new(&root);
        let locked = store.claim("web").unwrap();
        let waiting = store.open("web").unwrap();
        locked.remove().unwrap();
        assert!(matches!(waiting.lock(Deadline::after(Duration::ZERO)), Err(Error::NotExist)));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn init_is_read_back_and_a_process_is_told_from_another_with_its_pid() {
        let root = scratch("init");
        let locked = Store::new(&root).claim("web").unwrap();
        assert_eq!(locked.init().unwrap(), None);
        let own = Init::of(nix::unistd::getpid()).unwrap();
        locked.write_init(own).unwrap();
        assert_eq!(locked.init().unwrap(), Some(own));
        assert!(own.is_alive().unwrap());
        assert!(!Init { start_time: own.start_time + 1, ..own }.is_alive().unwrap());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_pid_file_replaces_what_was_there_and_has_no_newline() {
        let path = scratch("pidfile");
        std::fs::write(&path, "something longer").unwrap();
        write_pid_file(&path, Pid::from_raw(42)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"42");
        std::fs::remove_file(path).unwrap();
    }
}
