use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::template::{self, Cgroups};

/// The remarks on a configuration, without looking at files.
fn remarks(text: &str) -> Vec<String> {
    let mut examined =
        Examined { path: "config.json".into(), remarks: Vec::new(), bundle: None, text: text.as_bytes().to_vec() };
    examine(&mut examined);
    examined.sort();
    examined.remarks.iter().map(ToString::to_string).collect()
}

fn with(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut document = template::document(Cgroups::Legacy);
    change(&mut document);
    // One line, so that columns do not matter here.
    remarks(&document.to_string()).iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

#[test]
fn of_the_templates_there_is_nothing_to_say() {
    assert_eq!(remarks(&template::document(Cgroups::Legacy).to_string()), Vec::<String>::new());
    assert_eq!(remarks(&template::document(Cgroups::Unified).to_string()), Vec::<String>::new());
    assert_eq!(remarks(&template::rootless_document(Cgroups::Unified, 1000, 1000).to_string()), Vec::<String>::new());
}

#[test]
fn a_slip_is_a_warning_with_its_place_and_what_may_be_meant() {
    let text = "{\n  \"ociVersion\": \"1.0.0\",\n  \"proces\": {}\n}";
    let said = remarks(text);
    assert!(said.contains(&"1:1: error: /linux: required".to_owned()));
    assert!(said.contains(&"3:13: warning: /proces: unknown field, ignored, did you mean \"process\"?".to_owned()));
    for (pointer, name, remark) in [
        ("/process", "Args", "/process/Args: unknown field, ignored, did you mean \"args\"?"),
        ("/process", "hostname", "/process/hostname: unknown field, ignored, did you mean /hostname?"),
        ("/mounts/0", "option", "/mounts/0/option: unknown field, ignored, did you mean \"options\"?"),
        ("/linux/resources", "blkio", "/linux/resources/blkio: unknown field, ignored, did you mean \"blockIO\"?"),
        ("", "x-future", "/x-future: unknown field, ignored"),
        ("/linux", "a/b~c", "/linux/a~1b~0c: unknown field, ignored"),
        ("", "uidMappings", "/uidMappings: unknown field, ignored"),
        ("", "windows", "/windows: is for another platform: ignored"),
        ("", "freebsd", "/freebsd: is for another platform: ignored"),
    ] {
        let said = with(|document| document.pointer_mut(pointer).unwrap()[name] = json!([]));
        assert_eq!(said, [format!("warning: {remark}")], "{pointer} {name}");
    }
    let free = with(|document| document["annotations"] = json!({"anything": "goes"}));
    assert_eq!(free, Vec::<String>::new());
}

#[test]
fn what_is_for_others_is_said_to_be_ignored() {
    let said = with(|document| {
        for platform in ["windows", "solaris", "zos", "vm", "freebsd"] {
            document[platform] = json!({"x": [7]});
        }
        document["process"]["commandLine"] = json!("cmd");
        document["process"]["user"]["username"] = json!("me");
    });
    assert_eq!(said.len(), 7, "{said:#?}");
    assert!(said.iter().all(|line| line.starts_with("warning: ") && line.ends_with("for another platform: ignored")));
}

#[test]
fn what_the_kernel_has_dropped_is_said_to_be_ignored() {
    let memory = json!({"kernel": 5, "kernelTCP": 6, "limit": -1});
    let said = with(|document| document["linux"]["resources"]["memory"] = memory);
    assert_eq!(said.len(), 2, "{said:#?}");
    for field in ["kernel", "kernelTCP"] {
        let start = format!("warning: /linux/resources/memory/{field}: ignored: ");
        assert!(said.iter().any(|line| line.starts_with(&start)), "{said:#?}");
    }
}

#[test]
fn every_error_is_told_and_none_that_follows_from_another() {
    let said = with(|document| {
        document["process"]["args"] = json!("sh");
        document["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "hard": "many", "soft": 1},
            {"type": "RLIMIT_CORES", "hard": 1, "soft": 1},
            {"hard": 1, "soft": 1},
            {"type": "RLIMIT_AS", "hard": 1, "soft": 1.5},
        ]);
        document["mounts"][2] = json!(7);
        document["mounts"][4]["destination"] = json!(8);
        document["linux"]["namespaces"][0]["type"] = json!("netwrok");
        document["linux"]["resources"]["cpu"] = json!([1]);
    });
    let expected = [
        "/linux/namespaces/0/type: unknown word \"netwrok\", did you mean \"network\"?",
        "/linux/resources/cpu: invalid type: array, expected an object",
        "/mounts/2: invalid type: integer `7`, expected an object",
        "/mounts/4/destination: invalid type: integer `8`, expected path string",
        "/process/args: invalid type: string \"sh\", expected an array",
        "/process/rlimits/0/hard: invalid type: string \"many\", expected u64",
        "/process/rlimits/1/type: unknown word \"RLIMIT_CORES\", did you mean \"RLIMIT_CORE\"?",
        "/process/rlimits/2: required field \"type\" is missing",
        "/process/rlimits/3/soft: invalid type: floating point `1.5`, expected u64",
    ];
    let mut said: Vec<&str> = said.iter().map(|line| line.strip_prefix("error: ").unwrap()).collect();
    said.sort_unstable();
    assert_eq!(said, expected);
}

#[test]
fn contradictions_are_told_together() {
    let said = with(|document| {
        document["linux"]["namespaces"] = json!([{"type": "pid"}]);
        document["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        document["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        document["linux"]["rootfsPropagation"] = json!("slave");
        document["process"]["env"] = json!(["A"]);
        document["process"]["consoleSize"] = json!({"height": 1, "width": 1});
        document["process"]["terminal"] = json!(false);
    });
    for expected in [
        "error: /hostname: needs a uts namespace in /linux/namespaces",
        "error: /linux/uidMappings: needs a user namespace in /linux/namespaces",
        "error: /linux/sysctl/net.ipv4.ip_forward: needs a network namespace in /linux/namespaces",
        "error: /linux/rootfsPropagation: needs a mount namespace in /linux/namespaces",
        "error: /linux/maskedPaths: needs a mount namespace in /linux/namespaces",
        "error: /linux/readonlyPaths: needs a mount namespace in /linux/namespaces",
        "error: /root/readonly: needs a mount namespace in /linux/namespaces",
        "error: /process/env/0: \"A\" is not NAME=value",
        "warning: /process/consoleSize: ignored without /process/terminal",
    ] {
        assert!(said.iter().any(|line| line == expected), "{expected}: {said:#?}");
    }
    assert_eq!(said.len(), 9, "{said:#?}");
}

#[test]
fn what_is_no_document_is_one_error() {
    for text in ["", "{", "null", "[]", "7", "{\"process\": nul}"] {
        let said = remarks(text);
        assert!(!said.is_empty() && said.iter().all(|line| line.contains(": error: ")), "{text}: {said:?}");
    }
    assert!(bundle(Path::new("/nowhere")).unwrap_err().to_string().contains("(ENOENT)"));
}

#[test]
fn more_mistakes_than_anybody_reads_end_too() {
    let said = with(|document| document["process"]["env"] = json!(vec![7; 1000]));
    assert!((100..=110).contains(&said.len()), "{}", said.len());
}
