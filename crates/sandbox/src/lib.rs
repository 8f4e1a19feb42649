//! Builds exactly the container that an OCI bundle describes, and gets out of the way.
//!
//! The entry points are the methods of [`container::Runtime`]; ARCHITECTURE.md draws the processes
//! behind them and every message they exchange.

pub mod affinity;
pub mod caps;
pub mod cgroup;
pub mod console;
pub mod container;
pub mod criu;
pub mod deadline;
pub mod error;
mod family;
pub mod foreground;
pub mod hook;
pub mod init;
pub mod intel_rdt;
pub mod ioprio;
pub mod label;
pub mod memory_policy;
pub mod net_device;
pub mod notify;
mod peer;
pub mod personality;
pub mod plan;
pub mod procfs;
pub mod rootfs;
pub mod scheduler;
pub mod seal;
pub mod seccomp;
pub mod step;
pub mod store;
pub mod sys;
pub mod timing;
pub mod userns;

pub use error::{Error, Result};
