//! Class: the process is somebody else, or has capabilities that nobody gave it.

use serde_json::Value;
use tare_testkit::{Bundle, known};

use crate::runtime;

const NONE: &str = "0000000000000000";
/// CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE: the bundle's.
const SET: &str = "0000000020000420";
const CAPABILITIES: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | cut -f2";

/// CVE-2016-3697: a numeric user is looked up as a name in the image's /etc/passwd.
#[test]
fn cve_2016_3697_a_numeric_user_is_a_number() {
    let runtime = runtime();
    let bundle = Bundle::script("id -u; id -g").user(1000, 1000).file("etc/passwd", "1000:x:0:0::/:/bin/sh\n");
    assert_eq!(runtime.run(&bundle).ok().lines(), ["1000", "1000"]);
}

/// CVE-2016-8867: ambient capabilities that were not asked for, for a user who is not root.
#[test]
fn cve_2016_8867_another_user_has_no_capabilities_unless_ambient() {
    let runtime = runtime();
    let output = runtime.run(&Bundle::script(CAPABILITIES).user(1000, 1000)).ok();
    assert_eq!(output.lines(), [NONE, NONE, NONE, SET, NONE]);
}

/// CVE-2022-24769 of the engines: an inheritable set by default. `spec` is ours to write.
#[test]
fn cve_2022_24769_what_spec_writes_has_no_inheritable_set() {
    let runtime = runtime();
    let bundle = Bundle::new();
    runtime.bare().args(["spec", "--bundle"]).arg(bundle.path()).run().ok();
    let written = std::fs::read(bundle.path().join("config.json")).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    let inheritable = &written["process"]["capabilities"]["inheritable"];
    assert!(inheritable.as_array().is_none_or(Vec::is_empty), "{inheritable}");
}

/// CVE-2022-29162 of runc, CVE-2022-27650 of crun, CVE-2025-27612 of youki: the process of an exec has an inheritable set
/// that was not asked for, with `--cap` or without.
#[test]
fn cve_2022_29162_cve_2022_27650_and_cve_2025_27612_exec_has_no_inheritable_capabilities() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for options in [&[][..], &["--cap", "CAP_CHOWN"], &["--user", "1000"]] {
        let output = container.exec_with(options, ["sh", "-c", CAPABILITIES]).ok();
        assert_eq!(output.lines()[0], NONE, "{output}");
    }
}

/// CVE-2026-30892: `exec --user 1` runs as root.
#[test]
fn cve_2026_30892_the_user_of_an_exec_is_the_one_that_is_named() {
    let runtime = runtime();
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for (user, ids) in [("1", "1 0"), ("1000:1000", "1000 1000"), ("0:7", "0 7"), ("2147483647", "2147483647 0")] {
        let output = container.exec_with(&["--user", user], ["sh", "-c", "echo $(id -u) $(id -g)"]);
        assert_eq!(output.ok().text(), ids, "{user}");
    }
}

/// No CVE, of the class of CVE-2026-30892, containerd's CVE-2026-46680 and GO-2025-3528: a number that does not fit wraps
/// round to root, and what is none is taken for 0.
#[test]
fn cve_2026_46680_an_exec_as_what_is_no_user_is_refused() {
    let runtime = runtime();
    known!(runtime, Runc: "4294967296 is 0", Crun "1.8.": "garbage is 0");
    let bundle = Bundle::sleeper();
    let container = runtime.container(&bundle);
    container.up();
    for user in ["4294967296", "18446744073709551616", "-1", "root", "0x10", "1e3", "1:", "1:x", "1:2:3", " 1", "+1"] {
        let output = container.verb("exec").arg(format!("--user={user}")).args([container.id(), "id", "-u"]).run();
        assert_eq!(output.fails(&[]).stdout, "", "{user:?}");
    }
}
