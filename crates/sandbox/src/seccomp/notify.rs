//! SCMP_ACT_NOTIFY: the descriptor of the notifications goes to the listener of the configuration, with the state of the
//! process it is of (runtime-spec, config-linux.md, "The Container Process State").

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;
use serde::Serialize;

use crate::container::Status;
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::plan::{HookState, HookStateAt};
use crate::sys::pidfd::pidfd_open;
use crate::{Result, peer, sys};

/// The name of the descriptor in the list of the message.
const FD_NAME: &str = oci_spec::runtime::SECCOMP_FD_NAME;

/// `listenerPath` and `listenerMetadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The socket.
    pub path: PathBuf,
    /// What is sent along.
    pub metadata: Option<String>,
}

impl Receiver {
    /// Connects, before anything is forked: it is a path of the host.
    ///
    /// # Errors
    /// Nobody listens, or accepts in time; a path longer than a socket address.
    pub fn listener<'a>(
        &'a self,
        state: &'a HookState,
        status: Status,
        init: Option<Pid>,
        deadline: Deadline,
    ) -> Result<Listener<'a>> {
        let socket = peer::connect_to(&self.path, deadline).during(|| "linux.seccomp.listenerPath")?;
        Ok(Listener { socket, metadata: self.metadata.as_deref(), state, status, init })
    }
}

/// A connection to the listener.
#[derive(Debug)]
pub struct Listener<'a> {
    /// The socket.
    pub socket: OwnedFd,
    /// `listenerMetadata`.
    pub metadata: Option<&'a str>,
    /// The state of the container.
    pub state: &'a HookState,
    /// Its status.
    pub status: Status,
    /// The container's init; None while it is the process itself.
    pub init: Option<Pid>,
}

/// What the specification's `ContainerProcessState` is: of oci-spec's type only the state is not used, which has no room
/// for the order and the absence of members that hooks are shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: HookStateAt<'a>,
}

impl Listener<'_> {
    /// Takes descriptor `number` of `process` and sends it, with the state.
    ///
    /// # Errors
    /// The call that failed; nobody reads it in time.
    pub fn hand_over(&self, process: Pid, number: RawFd, deadline: Deadline) -> Result<()> {
        let pidfd = pidfd_open(process).call(|| format!("pidfd_open({process})"))?;
        let notifications = sys::seccomp::pidfd_getfd(pidfd.as_fd(), number)
            .call(|| format!("pidfd_getfd(pidfd of {process}, {number})"))?;
        let message = serde_json::to_vec(&self.message(process)).unwrap_or_default();
        peer::send_fd(&self.socket, &message, notifications.as_fd(), deadline, "seccomp listener")
            .during(|| "linux.seccomp.listenerPath")?;
        // A listener may read to the end before it looks at the first notification.
        shutdown(self.socket.as_raw_fd(), Shutdown::Both).call(|| "shutdown(seccomp listener)")
    }

    fn message(&self, process: Pid) -> ContainerProcessState<'_> {
        let pid = self.init.unwrap_or(process).as_raw();
        ContainerProcessState {
            oci_version: tare_spec::OCI_VERSION,
            fds: [FD_NAME],
            pid: process.as_raw(),
            metadata: self.metadata,
            state: self.state.at(self.status, pid),
        }
    }
}
