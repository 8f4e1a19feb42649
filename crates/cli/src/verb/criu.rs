//! `checkpoint` and `restore`: from flags to options.

use std::path::PathBuf;

use tare_sandbox::container::{CgroupMode, CheckpointOptions, CreateOptions, CriuOptions, NetworkLock, RestoreOptions};

use crate::activation;
use crate::args::{Checkpoint, Criu, Restore};

/// Where runc puts images that it is told no place for.
const IMAGES: &str = "checkpoint";

impl Checkpoint {
    /// What the flags ask for.
    pub(super) fn options(&self) -> Result<CheckpointOptions, String> {
        Ok(CheckpointOptions {
            criu: self.criu.options()?,
            parent_path: self.parent_path.clone(),
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            status_fd: self.status_fd.filter(|fd| *fd >= 0),
            page_server: self.page_server.as_deref().map(page_server).transpose()?,
            pre_dump: self.pre_dump,
        })
    }
}

impl Restore {
    /// What the flags ask for.
    pub(super) fn options(&self) -> Result<RestoreOptions, String> {
        Ok(RestoreOptions {
            criu: self.criu.options()?,
            tcp_close: self.tcp_close,
            lsm_profile: self.lsm_profile.clone(),
            lsm_mount_context: self.lsm_mount_context.clone(),
        })
    }

    /// Those that create has too.
    pub(super) fn create_options(&self) -> CreateOptions {
        CreateOptions {
            bundle: self.bundle.clone().unwrap_or_else(|| ".".into()),
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            no_pivot: self.no_pivot,
            notify_socket: activation::notify_socket(),
            ..CreateOptions::default()
        }
    }
}

impl Criu {
    fn options(&self) -> Result<CriuOptions, String> {
        Ok(CriuOptions {
            image_path: self.image_path.clone().unwrap_or_else(|| PathBuf::from(IMAGES)),
            work_path: self.work_path.clone(),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            cgroup_mode: self.manage_cgroups_mode.as_deref().map(cgroup_mode).transpose()?,
            empty_network: empty_network(&self.empty_ns)?,
            network_lock: self.network_lock.as_deref().map(network_lock).transpose()?,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
        })
    }
}

fn cgroup_mode(name: &str) -> Result<CgroupMode, String> {
    match name {
        "soft" => Ok(CgroupMode::Soft),
        "full" => Ok(CgroupMode::Full),
        "strict" => Ok(CgroupMode::Strict),
        "ignore" => Ok(CgroupMode::Ignore),
        _ => Err(format!("--manage-cgroups-mode {name:?}: soft, full, strict or ignore")),
    }
}

fn network_lock(name: &str) -> Result<NetworkLock, String> {
    match name {
        "iptables" => Ok(NetworkLock::Iptables),
        "nftables" => Ok(NetworkLock::Nftables),
        "skip" => Ok(NetworkLock::Skip),
        _ => Err(format!("--network-lock {name:?}: iptables, nftables or skip")),
    }
}

fn empty_network(names: &[String]) -> Result<bool, String> {
    match names.iter().find(|name| *name != "network") {
        Some(other) => Err(format!("--empty-ns {other:?}: network is the one that can be")),
        None => Ok(!names.is_empty()),
    }
}

/// `ADDRESS:PORT`; an IPv6 address may stand in brackets.
fn page_server(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("--page-server {text:?}: ADDRESS:PORT");
    let (address, port) = text.rsplit_once(':').filter(|(address, _)| !address.is_empty()).ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    Ok((address.trim_matches(['[', ']']).to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_criu_has_no_meaning_for_are_refused_by_flag() {
        assert_eq!(cgroup_mode("strict"), Ok(CgroupMode::Strict));
        assert_eq!(network_lock("nftables"), Ok(NetworkLock::Nftables));
        assert_eq!(empty_network(&["network".into()]), Ok(true));
        assert_eq!(empty_network(&[]), Ok(false));
        assert!(cgroup_mode("hard").unwrap_err().starts_with("--manage-cgroups-mode"));
        assert!(network_lock("").unwrap_err().starts_with("--network-lock"));
        assert!(empty_network(&["network".into(), "mnt".into()]).unwrap_err().starts_with("--empty-ns \"mnt\""));
    }

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("127.0.0.1:1234"), Ok(("127.0.0.1".into(), 1234)));
        assert_eq!(page_server("[::1]:9"), Ok(("::1".into(), 9)));
        for wrong in ["", "host", ":1", "host:", "host:0", "host:65536", "host:x"] {
            assert!(page_server(wrong).unwrap_err().starts_with("--page-server"), "{wrong}");
        }
    }
}
