//! `tare.json`, beside CRIU's images: what a restore has to know and CRIU does not tell.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::error::CallContext;
use crate::rootfs::Mounted;
use crate::sys::path::open;
use crate::{Error, Result};

const NAME: &str = "tare.json";

/// The form of the file. Another is refused.
const VERSION: u32 = 1;

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    version: u32,
    /// The mounts from outside.
    pub mounted: Mounted,
    /// What init had open as its standard input, output and error, as CRIU names it; empty: nothing from outside.
    pub stdio: [String; 3],
}

impl Description {
    /// A new one.
    pub fn new(mounted: Mounted, stdio: [String; 3]) -> Self {
        Self { version: VERSION, mounted, stdio }
    }
}

/// A directory of images, open.
#[derive(Debug)]
pub struct Images {
    directory: OwnedFd,
    path: PathBuf,
}

impl AsFd for Images {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Images {
    /// Opens the directory; `make` makes it if it is missing.
    ///
    /// # Errors
    /// The call that failed.
    pub fn open(path: &Path, make: bool) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        if make {
            // The memory of the container: nobody else's business.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.call(|| format!("mkdir({path:?})"))?;
        }
        let path = std::path::absolute(path).call(|| format!("getcwd() for {path:?}"))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
        Ok(Self { directory, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the description, over an older one.
    ///
    /// # Errors
    /// The call that failed.
    pub fn write(&self, description: &Description) -> Result<()> {
        let text = serde_json::to_vec(description).map_err(|error| Error::Refused(format!("{NAME}: {error}")))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, NAME, flags, Mode::from_bits_truncate(0o600));
        let call = || format!("write({:?})", self.path.join(NAME));
        File::from(file.call(call)?).write_all(&text).call(call)
    }

    /// Reads the description.
    ///
    /// # Errors
    /// There is none: not a checkpoint, or another runtime's. One that is not what we write.
    pub fn read(&self) -> Result<Description> {
        let path = self.path.join(NAME);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, NAME, flags, Mode::empty()).call(|| format!("open({path:?})"));
        let mut text = Vec::new();
        let file = file.map_err(|error| match error.errno() {
            Some(nix::errno::Errno::ENOENT) => {
                error.hinted("not a checkpoint, a --pre-dump alone, or another runtime's")
            }
            _ => error,
        })?;
        File::from(file).read_to_end(&mut text).call(|| format!("read({path:?})"))?;
        let description: Description =
            serde_json::from_slice(&text).map_err(|error| Error::Refused(format!("{path:?}: {error}")))?;
        if description.version != VERSION {
            let version = description.version;
            return Err(Error::Refused(format!("{path:?}: version {version}, not {VERSION}: written by another tare")));
        }
        Ok(description)
    }
}
