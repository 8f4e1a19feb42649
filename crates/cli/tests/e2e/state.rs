//! state and list.

use serde_json::json;
use tare_testkit::Bundle;

use crate::runtime;

#[test]
fn state_has_the_fields_of_the_specification() {
    let runtime = runtime();
    let bundle = Bundle::sleeper().set("/annotations", json!({"org.example.key": "a value"}));
    let container = runtime.container(&bundle);
    container.create().ok();
    let state = container.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], container.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
    assert_eq!(state["annotations"], json!({"org.example.key": "a value"}));
    assert!(state["pid"].as_i64().unwrap() > 1);
    container.start().ok();
    let running = container.state();
    assert_eq!(running["status"], "running");
    assert_eq!(running["pid"], state["pid"]);
    assert_eq!(running["created"], state["created"]);
}
