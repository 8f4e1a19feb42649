//! Verbs without a container: `spec`, `features`, `check`.

use std::path::PathBuf;

use clap::Args;

/// Write a config.json to start from
#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// The bundle directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// For a user without privileges
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// Print what this build implements, as JSON
#[derive(Debug, Args)]
pub(crate) struct Features {}

/// Look at a bundle: what is wrong with its config.json, what would be ignored, what would be done
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The bundle directory [default: the working directory]
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Print every step that create and start would take; nothing is run or changed
    #[arg(long)]
    pub(crate) plan: bool,
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// Plan for this version of cgroups and not for the host's: v1 or v2
    #[arg(long, value_name = "VERSION")]
    pub(crate) cgroup_version: Option<String>,
}
