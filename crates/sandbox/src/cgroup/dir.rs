//! One directory of cgroupfs: its files read and written whole, its making and its listing.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{Pid, mkdir, read, write};

use crate::error::CallContext;
use crate::sys::path::open;
use crate::{Error, Result};

/// A directory of cgroupfs. Its files are opened below its fd once [`Dir::hold`] was called, by path until then: for
/// the one or two files that a v1 hierarchy needs, an fd of the directory costs more than it saves.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    fd: OnceCell<OwnedFd>,
}

impl Dir {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), fd: OnceCell::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory itself and keeps it.
    pub(super) fn hold(&self) -> nix::Result<&OwnedFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let fd = self.open_itself()?;
        Ok(self.fd.get_or_init(|| fd))
    }

    /// A new fd of the directory. Not O_PATH: clone3(2) would take that, bpf(2) answers EBADF.
    pub(super) fn open_itself(&self) -> nix::Result<OwnedFd> {
        open(&self.path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    }

    pub(super) fn open(&self, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_CLOEXEC;
        match self.fd.get() {
            Some(fd) => openat(fd, file, flags, Mode::empty()),
            None => open(&self.path.join(file), flags, Mode::empty()),
        }
    }

    /// Every file of cgroupfs but the lists of processes is one record of a seq_file, and that is cut only by the end
    /// of the buffer: a short read is the whole, and the read that would find the end is saved.
    pub(super) fn try_read(&self, file: &str) -> nix::Result<String> {
        read_all(&self.open(file, OFlag::O_RDONLY)?, Until::ShortRead)
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        self.try_read(file).call(|| format!("read({:?})", self.path.join(file)))
    }

    pub(super) fn try_write(&self, file: &str, value: &str) -> nix::Result<()> {
        let fd = self.open(file, OFlag::O_WRONLY)?;
        // A file of cgroupfs takes one write(2) whole or not at all.
        write(fd.as_fd(), value.as_bytes()).map(drop)
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.try_write(file, value).call(|| self.write_text(file, value))
    }

    /// How an error names a write to `file`.
    pub(super) fn write_text(&self, file: &str, value: &str) -> String {
        format!("write({:?}, {value:?})", self.path.join(file))
    }

    /// The processes in this cgroup and all below it. One that is gone is empty.
    pub(super) fn pids(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        for path in tree(&self.path).call(|| format!("readdir({:?})", self.path))? {
            pids.extend(Dir::new(&path).own_pids()?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The processes in this cgroup alone.
    pub(super) fn own_pids(&self) -> Result<Vec<Pid>> {
        let procs = self.open("cgroup.procs", OFlag::O_RDONLY);
        match procs.and_then(|procs| read_all(&procs, Until::End)) {
            Ok(text) => Ok(parse_pids(&text).collect()),
            // ENODEV: removed between open and read. EOPNOTSUPP: a threaded cgroup, whose processes are
            // listed by the domain above it.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(Vec::new()),
            Err(errno) => Err(Error::call(format!("read({:?})", self.path.join("cgroup.procs")), errno)),
        }
    }
}

/// When a file has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The first read that does not fill its buffer.
    ShortRead,
    /// A read of nothing.
    End,
}

/// Reads a file of /proc or cgroupfs whole.
pub(super) fn read_all(fd: &OwnedFd, until: Until) -> nix::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match read(fd, &mut chunk) {
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                if count == 0 || (until == Until::ShortRead && count < chunk.len()) {
                    break;
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    String::from_utf8(bytes).map_err(|_| Errno::EILSEQ)
}

/// The pids of a `cgroup.procs`. 0 stands for a process that our pid namespace does not see.
fn parse_pids(text: &str) -> impl Iterator<Item = Pid> {
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|&pid: &i32| pid > 0).map(Pid::from_raw)
}

/// `path` and every directory below it, children before their parents; nothing if it is gone.
pub(super) fn tree(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    fn visit(path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed while it was read.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            };
            if entry.file_type()?.is_dir() {
                visit(&entry.path(), found)?;
            }
        }
        found.push(path.to_path_buf());
        Ok(())
    }
    let mut found = Vec::new();
    visit(path, &mut found)?;
    Ok(found)
}

/// The directories that a `create` has made; removes them again unless they are [kept](Made::keep).
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// mkdir(2), and the parents that are missing. False if `path` existed.
    ///
    /// # Errors
    /// The mkdir that failed; a parent to be made outside cgroupfs (a hierarchy that was unmounted since).
    pub(super) fn mkdir(&mut self, path: &Path) -> Result<bool> {
        match self.mkdir_one(path) {
            Err(Errno::ENOENT) => {}
            result => return result.call(|| format!("mkdir({path:?})")),
        }
        let mut missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        require_cgroupfs(missing.last().and_then(|highest| highest.parent()).unwrap_or(path))?;
        let mut new = false;
        while let Some(directory) = missing.pop() {
            new = self.mkdir_one(directory).call(|| format!("mkdir({directory:?})"))?;
        }
        Ok(new)
    }

    fn mkdir_one(&mut self, path: &Path) -> nix::Result<bool> {
        match mkdir(path, Mode::from_bits_truncate(0o755)) {
            Ok(()) => self.0.push(path.to_path_buf()),
            Err(Errno::EEXIST) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        Ok(true)
    }

    /// What was made, parents before children.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// Lets them stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            // Best effort on the way out with another error: nobody entered these, so EBUSY would mean that
            // somebody else has begun to use them.
            let _ = nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, &path, nix::unistd::UnlinkatFlags::RemoveDir);
        }
    }
}

fn require_cgroupfs(path: &Path) -> Result<()> {
    if is_cgroupfs(path) {
        return Ok(());
    }
    Err(Error::Refused(format!("{path:?} is not on a cgroup file system")))
}

/// Whether `path` is there and on a cgroup file system.
pub(super) fn is_cgroupfs(path: &Path) -> bool {
    let kind = statfs(path).map(|found| found.filesystem_type());
    kind.is_ok_and(|kind| kind == CGROUP_SUPER_MAGIC || kind == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_other_namespaces_are_left_out() {
        assert_eq!(parse_pids("1\n0\n42\n").map(Pid::as_raw).collect::<Vec<_>>(), [1, 42]);
    }

    #[test]
    fn directories_are_never_made_outside_cgroupfs() {
        let error = Made::default().mkdir(Path::new("/tmp/tare-no-such-dir/child/leaf")).unwrap_err();
        assert_eq!(error.to_string(), "\"/tmp\" is not on a cgroup file system");
        assert!(!Path::new("/tmp/tare-no-such-dir").exists());
    }
}
