//! A seccomp profile, from text to a program.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;
use tare_sandbox::seccomp::Filter;

fuzz_target!(|text: &[u8]| {
    if let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(text) {
        let _program_or_refusal = Filter::new(&profile);
    }
});
