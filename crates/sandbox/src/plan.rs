//! Pure: from a configuration to what will be done. No I/O, so that every decision is tested by a table.

pub mod namespaces;
pub mod process;
