//! Verbs that take a container and little else.

use clap::Args;

/// Let the process of a created container go
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's name
    pub(crate) id: String,
}

/// Print what a container is doing, as JSON
#[derive(Debug, Args)]
pub(crate) struct State {
    /// The container's name
    pub(crate) id: String,
}

/// Send a signal to a container's init
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The container's name
    pub(crate) id: String,
    /// KILL, SIGKILL or 9
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
    /// To every process in it; a stopped container is no error
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The name is a regular expression, and every container that it matches is meant
    #[arg(short, long)]
    pub(crate) regex: bool,
}

/// Remove a stopped container
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The container's name
    pub(crate) id: String,
    /// Kill it first; an unknown container is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The name is a regular expression, and every container that it matches is meant
    #[arg(short, long)]
    pub(crate) regex: bool,
}

/// Freeze every process of a container
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The container's name
    pub(crate) id: String,
}

/// Thaw every process of a container
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The container's name
    pub(crate) id: String,
}
