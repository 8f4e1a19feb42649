//! `list`, `ps`, `events`.

use std::ffi::OsString;

use clap::Args;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct List {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// List the processes of a container
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The container's name
    pub(crate) id: String,
    /// Options of ps(1) [default: -ef]
    #[arg(value_name = "OPTIONS")]
    pub(crate) options: Vec<OsString>,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// Print events and statistics of a container (not supported yet)
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[arg(value_name = "ARGS", hide = true)]
    ignored: Vec<OsString>,
}
