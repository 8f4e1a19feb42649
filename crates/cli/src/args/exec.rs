//! `exec`.

use std::path::PathBuf;

use clap::Args;

/// Run one more process in a container
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container's name
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(value_name = "ARGS")]
    pub(crate) args: Vec<String>,
    /// Send the terminal's master side over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the process over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// One more environment variable: NAME=value
    #[arg(short, long, value_name = "VAR")]
    pub(crate) env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run as this user: UID[:GID], numbers
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// One more group
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<String>,
    /// Read the process from a JSON file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Write its pid to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// It cannot gain privileges by execve(2)
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// One more capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Pass N more file descriptors after stdio
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Into a cgroup below the container's: [controllers:]path
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Even if the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
}
