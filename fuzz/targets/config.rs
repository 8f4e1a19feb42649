//! config.json, from text to what would be done.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tare_sandbox::cgroup::outline::{Version, usual};
use tare_sandbox::container::CreateOptions;
use tare_sandbox::plan::Plan;
use tare_sandbox::plan::outline::outline;
use tare_spec::{Bundle, check, decode};

fuzz_target!(|text: &[u8]| {
    let path = Path::new("config.json");
    let Ok(spec) = decode::spec(path, text) else { return };
    let _findings = check::all(&spec);
    let mut bundle = Bundle { dir: "/bundle".into(), rootfs: "/bundle/rootfs".into(), spec, config: text.to_vec() };
    if let Ok(plan) = Plan::new("fuzz", &mut bundle, &CreateOptions::default()) {
        for version in [Version::V1, Version::V2] {
            let _refused = outline(&plan, &bundle, &usual(version, None, "fuzz"));
        }
    }
});
