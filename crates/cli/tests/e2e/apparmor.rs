//! Profiles of AppArmor in force. The guest of `hack/vm` has it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;
use tare_testkit::{Bundle, Runtime, TempDir, skip};

use crate::runtime;

/// A profile that lets everything pass but to read /denied, loaded as long as this lives.
struct Profile {
    name: String,
    file: PathBuf,
}

impl Profile {
    fn load(runtime: &Runtime, dir: &TempDir, name: &str) -> Self {
        let name = format!("{}-{name}", runtime.tag());
        let file = dir.join(&name);
        let rules = "file, capability, mount, umount, pivot_root, ptrace, signal, unix, network, deny /denied r,";
        fs::write(&file, format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n"))
            .unwrap();
        let profile = Self { name, file };
        assert!(profile.parser("--replace"), "apparmor_parser");
        profile
    }

    fn parser(&self, action: &str) -> bool {
        let status = Command::new("apparmor_parser").args(["--skip-cache", action]).arg(&self.file).status();
        status.is_ok_and(|status| status.success())
    }

    /// As procfs shows it.
    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        assert!(self.parser("--remove") || std::thread::panicking(), "apparmor_parser");
    }
}

/// Leaves the test on a host without AppArmor, or without what loads a profile.
macro_rules! needs_apparmor {
    () => {
        if !fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y") {
            skip!("a kernel without AppArmor, or it is off");
        }
        let parser = Command::new("apparmor_parser").arg("--version").stdout(Stdio::null()).status();
        if !parser.is_ok_and(|status| status.success()) {
            skip!("no apparmor_parser here");
        }
    };
}

const OWN: &str = "cat /proc/self/attr/apparmor/current";

#[test]
fn init_and_exec_are_confined_by_the_profile_of_the_config() {
    let runtime = runtime();
    needs_apparmor!();
    let dir = TempDir::new("profile");
    let profile = Profile::load(&runtime, &dir, "own");
    for no_new_privileges in [true, false] {
        let bundle = Bundle::sleeper()
            .file("denied", "secret\n")
            .file("open", "open\n")
            .set("/process/apparmorProfile", json!(profile.name))
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let container = runtime.container(&bundle);
        container.up();
        // The file of all modules shows the first that has something to show.
        assert_eq!(container.proc("attr/apparmor/current").trim(), profile.enforced());
        assert_eq!(container.shell(OWN), profile.enforced());
        let output = container.exec(["cat", "/open", "/denied"]);
        assert!(!output.success() && output.stderr.contains("Permission denied"), "{output}");
        assert_eq!(output.text(), "open");
        container.delete_force().ok();
    }
    let bundle = Bundle::script(OWN).set("/process/apparmorProfile", json!(profile.name));
    assert_eq!(runtime.run(&bundle.user_namespace(100_000, 65_536)).ok().text(), profile.enforced());
}

#[test]
fn exec_is_confined_by_the_profile_it_is_given() {
    let runtime = runtime();
    needs_apparmor!();
    let dir = TempDir::new("profile");
    let other = Profile::load(&runtime, &dir, "other");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    assert_eq!(container.exec_with(&["--apparmor", &other.name], ["sh", "-c", OWN]).ok().text(), other.enforced());
    assert_eq!(container.shell(OWN), "unconfined");
    let document = json!({"args": ["sh", "-c", OWN], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
        "apparmorProfile": other.name});
    let file = dir.join("process.json");
    fs::write(&file, document.to_string()).unwrap();
    let output = container.verb("exec").arg("--process").arg(&file).arg(container.id()).run().ok();
    assert_eq!(output.text(), other.enforced());
}

#[test]
fn a_profile_that_is_not_loaded_is_an_error_and_nothing_runs() {
    let runtime = runtime();
    needs_apparmor!();
    let bundle = Bundle::script("echo ran").set("/process/apparmorProfile", json!("tare-no-such-profile"));
    let output = runtime.run(&bundle);
    assert!(!output.success() && output.stdout.is_empty(), "{output}");
    if runtime.is_tare() {
        output.fails(&["process.apparmorProfile: apply profile \"tare-no-such-profile\""]);
    }
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    let output = container.exec_with(&["--apparmor", "tare-no-such-profile"], ["echo", "ran"]);
    assert!(!output.success() && output.stdout.is_empty(), "{output}");
}
