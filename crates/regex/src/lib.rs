//! regex-lite under the name of regex: see `[patch.crates-io]` in the workspace's manifest, and docs/dependencies.md.

#![forbid(unsafe_code)]

pub use regex_lite::*;
