//! The flags before the verb.

use std::path::PathBuf;

use clap::Args;

/// Runs containers from OCI bundles
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Log every step
    #[arg(long)]
    pub(crate) debug: bool,
    /// Append errors and messages to FILE; an error is written to stderr too
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The format of that file: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: String,
    /// Where the state of containers is kept [default: /run/tare]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Let systemd make cgroups; cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who makes cgroups: cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER")]
    pub(crate) cgroup_manager: Option<String>,
    /// Ignore cgroups that may not be written: true, false or auto
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    pub(crate) rootless: String,
    /// How long a command may wait for hooks, cgroups, systemd and the container's init, all in all; 0: as long as it takes
    /// [default: 5m for create, run, start, exec and restore, else 30s]
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// Append to FILE what each phase of the command took: a span of OpenTelemetry as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) timings: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    pub(crate) version: bool,
    /// Ignored: where CRIU is
    #[arg(long, hide = true, value_name = "PATH")]
    pub(crate) criu: Option<PathBuf>,
}
