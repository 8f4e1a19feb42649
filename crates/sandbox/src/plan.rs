//! Pure planning: what the configuration asks for, worked out before anything is touched. No I/O.

pub mod mounts;
