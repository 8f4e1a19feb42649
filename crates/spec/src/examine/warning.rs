//! What is right and still does not do what its writer may think.

use super::{Finding, Spec, Value};

/// Everything of the kind. `document` is the text, `spec` what became of it.
pub(super) fn all(document: &Value, spec: &Spec) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |pointer: String, cause: &str| found.push(Finding { pointer, cause: cause.to_owned() });
    let process = spec.process().as_ref();
    if process.is_some_and(|process| process.console_size().is_some() && process.terminal() != Some(true)) {
        warn("/process/consoleSize".into(), "ignored without /process/terminal");
    }
    if process.is_some_and(|process| process.user().umask().is_some_and(|umask| umask > 0o777)) {
        warn("/process/user/umask".into(), "has more than the bits 0777 (it is written in decimal)");
    }
    #[allow(deprecated)] // by the specification
    let prestart = spec.hooks().as_ref().and_then(|hooks| hooks.prestart().as_ref());
    if prestart.is_some_and(|hooks| !hooks.is_empty()) {
        warn("/hooks/prestart".into(), "deprecated in favour of createRuntime and its kin: run all the same");
    }
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    if let Some(memory) = resources.and_then(|resources| resources.memory().as_ref()) {
        #[allow(deprecated)] // by the specification
        let kernel = memory.kernel();
        for (field, given) in [
            ("kernel", kernel.is_some_and(|bytes| bytes != 0)),
            ("kernelTCP", memory.kernel_tcp().is_some_and(|bytes| bytes != 0)),
        ] {
            if given {
                warn(format!("/linux/resources/memory/{field}"), "ignored: the kernel has dropped this limit");
            }
        }
    }
    for (index, mount) in document["mounts"].as_array().into_iter().flatten().enumerate() {
        if mount["destination"].as_str().is_some_and(|path| !path.is_empty() && !path.starts_with('/')) {
            warn(format!("/mounts/{index}/destination"), "is relative: taken as relative to /");
        }
    }
    unknown_capabilities(document, &mut warn);
    found
}

fn unknown_capabilities(document: &Value, warn: &mut impl FnMut(String, &str)) {
    let sets = document["process"]["capabilities"].as_object().into_iter().flatten();
    for (set, names) in sets {
        for (index, name) in names.as_array().into_iter().flatten().enumerate() {
            if serde_json::from_value::<oci_spec::runtime::Capability>(name.clone()).is_err() {
                warn(format!("/process/capabilities/{set}/{index}"), "unknown capability, ignored");
            }
        }
    }
}
