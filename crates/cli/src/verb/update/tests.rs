use clap::{Args, Command, FromArgMatches};

use super::*;

fn update(line: &str) -> Update {
    let words = std::iter::once("update").chain(line.split(' '));
    let matches = Update::augment_args(Command::new("update")).try_get_matches_from(words).unwrap();
    Update::from_arg_matches(&matches).unwrap()
}

fn change(line: &str) -> Result<container::Update, String> {
    update(line).change()
}

fn limits(line: &str) -> Result<serde_json::Value, String> {
    Ok(serde_json::to_value(change(line)?.resources).unwrap())
}

#[test]
fn cache_and_bandwidth_are_asked_for_by_what_is_not_empty() {
    let both = change("--l3-cache-schema=L3:0=f --mem-bw-schema=MB:0=20 web").unwrap();
    assert_eq!(both.l3_cache_schema.as_deref(), Some("L3:0=f"));
    assert_eq!(both.mem_bw_schema.as_deref(), Some("MB:0=20"));
    let none = change("--l3-cache-schema= web").unwrap();
    assert_eq!((none.l3_cache_schema, none.mem_bw_schema), (None, None));
}

#[test]
fn flags_become_limits_and_nothing_else_is_touched() {
    use serde_json::json;
    let cases = [
        ("web", json!({})),
        ("--memory=64m web", json!({"memory": {"limit": 64 << 20}})),
        ("--memory=-1 web", json!({"memory": {"limit": -1}})),
        ("--memory=-1 --memory-swap=1g web", json!({"memory": {"limit": -1, "swap": 1 << 30}})),
        ("--memory-reservation=1k web", json!({"memory": {"reservation": 1024}})),
        ("--cpu-quota=-1 --cpu-period=100000 web", json!({"cpu": {"quota": -1, "period": 100_000}})),
        ("--cpu-share=512 --cpu-burst=0 --cpu-idle=1 web", json!({"cpu": {"shares": 512, "burst": 0, "idle": 1}})),
        ("--cpuset-cpus=0-1 --cpuset-mems=0 web", json!({"cpu": {"cpus": "0-1", "mems": "0"}})),
        (
            "--cpu-rt-period=1000000 --cpu-rt-runtime=950000 web",
            json!({"cpu": {"realtimePeriod": 1_000_000, "realtimeRuntime": 950_000}}),
        ),
        ("--pids-limit=-1 web", json!({"pids": {"limit": -1}})),
        ("--blkio-weight=0 web", json!({})),
        ("--blkio-weight=10 web", json!({"blockIO": {"weight": 10}})),
        ("--kernel-memory=1m --kernel-memory-tcp=1m web", json!({})),
    ];
    for (line, expected) in cases {
        assert_eq!(limits(line), Ok(expected), "{line}");
    }
    for line in ["--memory=x web", "--cpu-share=-1 web", "--pids-limit=many web", "--blkio-weight=70000 web"] {
        assert!(limits(line).unwrap_err().starts_with(line.split('=').next().unwrap()), "{line}");
    }
}

#[test]
fn a_file_of_limits_is_read_and_its_errors_have_a_place() {
    let path = std::env::temp_dir().join(format!("tare-update-{}.json", std::process::id()));
    let flag = format!("--resources={} --memory=1g web", path.display());
    std::fs::write(&path, r#"{"memory": {"limit": -1, "swap": null}, "pids": {}}"#).unwrap();
    let read = limits(&flag);
    std::fs::write(&path, "{\n  \"cpu\": {\"shares\": \"many\"}\n}").unwrap();
    let refused = limits(&flag).unwrap_err();
    let arrays = [" []", r#"{"pids": [7]}"#].map(|text| {
        std::fs::write(&path, text).unwrap();
        limits(&flag).unwrap_err()
    });
    std::fs::remove_file(&path).unwrap();
    assert!(arrays.iter().all(|error| error.contains("invalid type: array, expected an object")), "{arrays:?}");
    assert_eq!(read, Ok(serde_json::json!({"memory": {"limit": -1}})));
    let place = format!("{}:2:21: /cpu/shares: invalid type: string \"many\", expected u64", path.display());
    assert_eq!(refused, place);
}

#[test]
fn schemata_of_intel_rdt_are_taken_as_words() {
    let change = update("--l3-cache-schema=L3:0=f --mem-bw-schema=MB:0=70 web").change().unwrap();
    assert_eq!((change.l3_cache_schema.as_deref(), change.mem_bw_schema.as_deref()), (Some("L3:0=f"), Some("MB:0=70")));
    let none = update("--l3-cache-schema= web").change().unwrap();
    assert_eq!((none.l3_cache_schema, none.mem_bw_schema), (None, None));
}
