//! Frames of the stages, which share a container's fate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_sandbox::init::wire::{FRAME_BYTES, decode};

fuzz_target!(|bytes: &[u8]| {
    let mut frame = [0; FRAME_BYTES];
    let length = bytes.len().min(FRAME_BYTES);
    frame[..length].copy_from_slice(&bytes[..length]);
    let _ = decode(&frame);
});
