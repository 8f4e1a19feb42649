use std::process::Command;

use super::*;

/// What `runc spec` writes, brought to what runc of today writes; None if there is no runc.
fn runc_spec(arguments: &[&str]) -> Option<Value> {
    let dir = std::env::temp_dir().join(format!("tare-template-{}-{}", std::process::id(), arguments.len()));
    std::fs::create_dir_all(&dir).unwrap();
    let run = Command::new("runc").arg("spec").args(arguments).arg("--bundle").arg(&dir).output();
    let text = std::fs::read(dir.join("config.json"));
    std::fs::remove_dir_all(&dir).unwrap();
    if run.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        eprintln!("SKIP: runc is not installed, `spec` is not compared with it");
        return None;
    }
    let mut document: Value = serde_json::from_slice(&text.unwrap()).unwrap();
    // Its own version and name.
    document["ociVersion"] = OCI_VERSION.into();
    document["hostname"] = "tare".into();
    // Older ones have an ambient set, still older ones an inheritable one (CVE-2022-29162).
    let capabilities = document["process"]["capabilities"].as_object_mut().unwrap();
    capabilities.remove("ambient");
    capabilities.remove("inheritable");
    let masked = document["linux"]["maskedPaths"].as_array_mut().unwrap();
    // Older ones do not have it.
    if !masked.iter().any(|path| path == "/sys/devices/virtual/tpm") {
        masked.push("/sys/devices/virtual/tpm".into());
    }
    Some(document)
}

#[test]
fn the_document_means_what_that_of_runc_means() {
    let Some(expected) = runc_spec(&[]) else { return };
    assert_eq!(document(Cgroups::of_host()), expected);
}

#[test]
fn the_rootless_document_too() {
    use std::os::unix::fs::MetadataExt;
    let Some(expected) = runc_spec(&["--rootless"]) else { return };
    let own = std::fs::metadata("/proc/self").unwrap();
    assert_eq!(rootless_document(Cgroups::of_host(), own.uid(), own.gid()), expected);
}

#[test]
fn the_text_is_the_document_in_the_order_of_the_specification() {
    for document in [document(Cgroups::Unified), rootless_document(Cgroups::Legacy, 1, 2)] {
        let text = text(&document);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,"));
        assert!(text.ends_with("\n\t\t]\n\t}\n}\n"));
        let at = |key: &str| text.find(&format!("\n\t\"{key}\"")).unwrap();
        let order = ["ociVersion", "process", "root", "hostname", "mounts", "linux"];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])));
    }
}

#[test]
fn every_member_has_its_place() {
    fn check(value: &Value) {
        for (key, member) in value.as_object().into_iter().flatten() {
            assert!(ORDER.contains(&key.as_str()), "{key}");
            check(member);
        }
        value.as_array().into_iter().flatten().for_each(check);
    }
    check(&document(Cgroups::Unified));
    check(&rootless_document(Cgroups::Unified, 1, 2));
}
