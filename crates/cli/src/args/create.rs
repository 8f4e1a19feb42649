//! `create` and `run`.

use std::path::PathBuf;

use clap::Args;

/// Create a container; its process waits for start
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) container: Container,
    /// Ignored: create leaves nobody to adopt orphans
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

/// What create and run share.
#[derive(Debug, Args)]
pub(crate) struct Container {
    /// The container's name
    pub(crate) id: String,
    /// The bundle directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Read the configuration from FILE instead of config.json in the bundle
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Send the terminal's master side over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the container's init over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Write init's pid to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not use pivot_root(2): for a root on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass N more file descriptors after stdio
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

/// Create a container and run its process
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: Container,
    /// Return once the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the state after the process has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}
