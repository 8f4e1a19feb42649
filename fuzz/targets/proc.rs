//! What the kernel writes, with names in it that others chose: mountinfo, /proc/PID/cgroup.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = tare_sandbox::cgroup::read_proc(text);
});
