//! The only module tree with `unsafe`: one small file per man-page family.
#![allow(unsafe_code)]

pub mod bpf;
pub mod pidfd;
