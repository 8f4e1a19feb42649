//! The parts of a configuration that come in files of their own: `exec --process`, `update --resources`, `mounts add`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tare_spec::decode;

fuzz_target!(|text: &[u8]| {
    let path = Path::new("file.json");
    let _ = decode::process(path, text);
    let _ = decode::resources(path, text);
    let _ = decode::mounts(path, text);
});
