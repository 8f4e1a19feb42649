//! `checkpoint` and `restore`: CRIU's switches under runc's names.

use std::path::PathBuf;

use clap::Args;

/// Save a container with CRIU; it ends there unless told otherwise
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// The container's name
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// Where the images of the pre-dump before this one are, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Leave out connections that are being made
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Link files that were unlinked while open, where possible
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// With --lazy-pages: CRIU writes a zero byte to descriptor FD when it is ready to serve pages
    #[arg(long, value_name = "FD")]
    pub(crate) status_fd: Option<i32>,
    /// Send the pages of memory to the page server at ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) page_server: Option<String>,
    /// Save memory alone, as a first pass; the container runs on
    #[arg(long)]
    pub(crate) pre_dump: bool,
}

/// Bring a saved container back with CRIU
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The container's name
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// The bundle directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Send the terminal's master side over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Return once the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Write init's pid to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Do not use pivot_root(2): for a root on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Close the connections that were open
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// The processes' security label: selinux:LABEL or apparmor:PROFILE
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) lsm_profile: Option<String>,
    /// The SELinux context of mounts
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) lsm_mount_context: Option<String>,
}

/// What checkpoint and restore share.
#[derive(Debug, Args)]
pub(crate) struct Criu {
    /// Where the images are [default: checkpoint in the working directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) image_path: Option<PathBuf>,
    /// Where CRIU works and logs [default: the image path]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Include open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Allow Unix sockets with an end outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a terminal that is the caller's
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Include file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// How cgroups are treated: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// Make a namespace of this type without what was in it: network
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) empty_ns: Vec<String>,
    /// How connections are held meanwhile: iptables, nftables or skip
    #[arg(long, value_name = "METHOD")]
    pub(crate) network_lock: Option<String>,
    /// Remove pages from parent images that later ones have too
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// Bring memory back page by page as it is needed, with userfaultfd(2)
    #[arg(long)]
    pub(crate) lazy_pages: bool,
}
