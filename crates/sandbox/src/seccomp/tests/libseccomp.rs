//! Equal decisions with libseccomp's program, for the default profiles, every number and a grid of arguments.
//!
//! libseccomp is asked through a small C program, compiled here: the tests link no library of the host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use seccompiler::sock_filter;

use super::super::arch::Abi;
use super::super::compile::compile;
use super::super::profile::Profile;
use super::ENOSYS;
use super::interpreter::Call;
use super::profiles::{PROFILES, grid, looks_at_arguments, parse};

const ARCHITECTURES: [(Abi, Abi, &str); 5] = [
    (Abi::X86_64, Abi::X86_64, "x86_64"),
    (Abi::X86_64, Abi::X86, "x86"),
    (Abi::X86_64, Abi::X32, "x32"),
    (Abi::Aarch64, Abi::Aarch64, "aarch64"),
    (Abi::Aarch64, Abi::Arm, "arm"),
];

/// Compiles the helper; None when this host has no libseccomp to develop with.
fn helper() -> Option<PathBuf> {
    let dir = std::env::temp_dir().join(format!("tare-libseccomp-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, program) = (dir.join("helper.c"), dir.join("helper"));
    std::fs::write(&source, include_str!("libseccomp.c")).unwrap();
    let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).arg("-lseccomp").output();
    compiled.is_ok_and(|output| output.status.success()).then_some(program)
}

/// libseccomp's program, and the names it does not know.
fn ask(helper: &Path, profile: &LinuxSeccomp, architecture: &str) -> (Vec<sock_filter>, Vec<String>) {
    let number = |action: Action, errno: Option<u32>| action.as_u32(errno);
    let default = number(profile.default_action(), profile.default_errno_ret());
    let mut rules = String::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = number(entry.action(), entry.errno_ret());
        let args = entry.args().as_deref().unwrap_or_default();
        for name in entry.names().iter().filter(|_| action != default) {
            rules.push_str(&format!("{name} {action} {}", args.len()));
            for arg in args {
                let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
                rules.push_str(&format!(" {} {} {value} {two}", arg.index(), arg.op() as u32));
            }
            rules.push('\n');
        }
    }
    let mut child = Command::new(helper)
        .args([architecture, &default.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{architecture}: {output:?}");
    let program = output.stdout.chunks_exact(8).map(|raw| sock_filter {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    });
    let unknown = String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    (program.collect(), unknown)
}

#[test]
fn the_default_profiles_are_decided_as_libseccomp_decides() {
    let Some(helper) = helper() else {
        tare_testkit::skip!("no C compiler or no libseccomp to develop with (libseccomp-dev)");
    };
    for (name, text) in PROFILES {
        for (native, abi, architecture) in ARCHITECTURES {
            let mut profile = parse(text);
            let (theirs, unknown) = ask(&helper, &profile, architecture);
            // The newer names are left out on both sides; the model is what they are tested with.
            let mut entries = profile.syscalls().clone().unwrap();
            for entry in &mut entries {
                let names = entry.names().iter().filter(|name| !unknown.contains(name)).cloned().collect();
                entry.set_names(names);
            }
            profile.set_syscalls(Some(entries));
            let listed = format!("SCMP_ARCH_{}", architecture.to_uppercase());
            profile.set_architectures(serde_json::from_value(serde_json::json!([listed])).unwrap());
            let resolved = Profile::new(&profile, native);
            let newest = resolved.calls.iter().find(|calls| calls.abi == abi).and_then(|calls| calls.newest).unwrap();
            let ours = compile(&resolved);
            let grid = grid(&profile);
            let mut compared = 0;
            for number in (0..1024).chain([0xe_ffff]).chain(0xf_0000..0xf_0010) {
                if (abi, abi.number("map_shadow_stack")) == (Abi::X32, Some(number)) {
                    // In the kernel's headers, but not in libseccomp's table of x32.
                    continue;
                }
                let looks = looks_at_arguments(&profile, abi, number);
                for value in if looks { &grid } else { &grid[..1] } {
                    let args = [*value, 0, 0, 0, 0, 0];
                    let call = Call { arch: abi.audit(), number: abi.base() | number, args };
                    let (our, their) = (call.run(&ours), call.run(&theirs));
                    let is_new = number > newest && (abi != Abi::Arm || number < 0xf_0000);
                    // What libseccomp's program would say is runc's stub to say in front of it.
                    assert_eq!(our, if is_new { ENOSYS } else { their }, "{name} {architecture}: {call:x?}");
                    compared += 1;
                }
            }
            if abi == Abi::X86_64 {
                for number in [1 << 30, (1 << 30) + 1, u32::MAX - 1, u32::MAX] {
                    let call = Call { arch: abi.audit(), number, args: [0; 6] };
                    assert_eq!(call.run(&ours), call.run(&theirs), "{name} {architecture}: {call:x?}");
                }
            }
            let (our, their) = (ours.len(), theirs.len());
            eprintln!(
                "{name} {architecture}: {compared} decisions, {our} instructions, libseccomp {their}, {unknown:?} left out"
            );
        }
    }
    std::fs::remove_dir_all(helper.parent().unwrap()).unwrap();
}
