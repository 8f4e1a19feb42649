//! What the end-to-end tests of tare stand on: bundles, a rootfs, and a runtime driven through its command line alone,
//! so that the same tests prove themselves on runc, crun and youki (`TARE_UNDER_TEST`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test kit fails by panicking")]

mod bundle;
mod command;
mod console;
mod container;
mod criu;
mod fixture;
pub mod host;
mod residue;
mod runtime;
mod skip;
pub mod systemd;
mod wait;

pub use bundle::Bundle;
pub use command::{Invocation, Output, Running};
pub use console::{ConsoleSocket, Pty, Terminal};
pub use container::Container;
pub use criu::Criu;
pub use fixture::TempDir;
pub use residue::Residue;
pub use runtime::{Kind, Runtime};
pub use skip::{record_known, record_skip};
pub use wait::{DEADLINE, deadline, rounds, wait_until};
