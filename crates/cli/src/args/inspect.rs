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

/// Print what a container uses and what happens to it, a line of JSON each
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The container's name
    pub(crate) id: String,
    /// Statistics once, then exit
    #[arg(long)]
    pub(crate) stats: bool,
    /// How often to print statistics: 5s, 500ms, 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub(crate) interval: String,
}
