//! A program whose forked child panics. `tests/panics.rs` runs it.

#![no_main]

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use tare_sandbox::sys::clone::{Side, clone3};
use tare_sandbox::sys::thread::SingleThreaded;

tare_sandbox::program!(forks);

/// 0 where SIGABRT ended the child, and the child alone.
fn forks() -> u8 {
    let Ok(proof) = SingleThreaded::verify() else { return 2 };
    match clone3(proof, 0, None, None) {
        Ok(Side::Child) => panic!("in the child"),
        Ok(Side::Parent(child)) => match waitpid(child, None) {
            Ok(WaitStatus::Signaled(_, Signal::SIGABRT, _)) => 0,
            _ => 1,
        },
        Err(_) => 2,
    }
}
