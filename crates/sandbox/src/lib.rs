//! Builds exactly the container that an OCI bundle describes, and gets out of the way.
//!
//! The entry points are the methods of [`container::Runtime`]; ARCHITECTURE.md draws the processes
//! behind them and every message they exchange.

pub mod cgroup;
pub mod container;
pub mod error;
pub mod plan;
pub mod rootfs;
pub mod step;
pub mod sys;

pub use error::{Error, Result};
