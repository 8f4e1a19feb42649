//! Reads an OCI bundle: `config.json` decoded into oci-spec's types, or one line that says what is wrong with it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

pub mod check;
pub mod decode;
pub mod examine;
pub mod features;
pub mod field;
mod load;
pub mod number_list;
mod position;
pub mod template;

pub use load::clean;

/// The version of the runtime specification that is implemented.
pub const OCI_VERSION: &str = "1.3.0";

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One line, complete: path, position, JSON pointer, cause.
    #[error("{0}")]
    Invalid(String),
}

/// A bundle that was read.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle directory, absolute, symlinks resolved.
    pub dir: PathBuf,
    /// `root.path`, absolute, symlinks resolved.
    pub rootfs: PathBuf,
    /// The decoded configuration.
    pub spec: Spec,
    /// The bytes of config.json as they were read, for the snapshot that `exec` and `delete` use.
    pub config: Vec<u8>,
}

impl Bundle {
    /// Reads and checks `dir/config.json`, and finds the root file system.
    ///
    /// # Errors
    /// One line that names file, position and field: `config.json:12:7: /process/args/0: invalid type: integer`.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        load::bundle(dir, None)
    }

    /// As [`Self::load`], with the configuration in a file of its own.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_config(dir: &Path, config: &Path) -> Result<Self, Error> {
        load::bundle(dir, Some(config))
    }
}
