//! `mounts`.

use std::path::PathBuf;

use clap::Args;

/// Add mounts to a running container, or take them away
#[derive(Debug, Args)]
pub(crate) struct Mounts {
    /// What to do: add or remove
    #[arg(value_name = "add|remove")]
    pub(crate) action: String,
    /// The container's name
    pub(crate) id: String,
    /// A JSON file with mounts as in config.json: the array, or an object with it; remove looks at destinations alone
    pub(crate) file: PathBuf,
}
