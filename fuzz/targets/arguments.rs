//! The command line, a word a line: users, signals, sizes, durations and the rest of the flags' values.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = tare_cli::understands(text.lines());
});
