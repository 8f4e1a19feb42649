//! What a service manager says in the environment: sd_listen_fds(3), sd_notify(3).

use std::env;
use std::path::PathBuf;

/// How many sockets after stdio are meant for us, to be passed on to the container: LISTEN_FDS, if LISTEN_PID says that it
/// was set for this process and not for one that started us.
pub(crate) fn listen_fds() -> u32 {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// The socket of the service manager that wants to know when the container is ready.
pub(crate) fn notify_socket() -> Option<PathBuf> {
    env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()).map(PathBuf::from)
}
