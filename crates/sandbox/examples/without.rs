//! tare on a kernel that does not have a system call: as `tare-without-CALL` beside `tare` it executes that under a filter
//! which answers CALL with ENOSYS, for all of its processes and what they execute. `hack/without` runs tests on it.

#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use oci_spec::runtime::LinuxSeccomp;
use tare_sandbox::seccomp::Filter;

const PREFIX: &str = "tare-without-";

fn execute() -> Result<(), Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let name = own.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let call = name.strip_prefix(PREFIX).ok_or_else(|| format!("{own:?} is not named {PREFIX}CALL"))?;
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": nix::errno::Errno::ENOSYS as i32}],
    });
    let profile: LinuxSeccomp = serde_json::from_value(profile)?;
    if !nix::unistd::geteuid().is_root() {
        // Or the kernel takes no filter.
        nix::sys::prctl::set_no_new_privs()?;
    }
    Filter::new(&profile)?.load()?;
    Err(Command::new(own.with_file_name("tare")).args(std::env::args_os().skip(1)).exec().into())
}

fn main() -> ExitCode {
    if let Err(error) = execute() {
        eprintln!("without: {error}");
    }
    ExitCode::from(125)
}
