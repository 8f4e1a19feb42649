//! sigaction(2), and sets of signals.

use std::mem::MaybeUninit;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

/// What the program that is about to be executed expects at its default: SIGPIPE, which the runtime ignores, and what a shell
/// ignores for a command in the background, and nohup(1) for its own.
const DEFAULT: [Signal; 4] = [Signal::SIGPIPE, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Gives the program that is about to be executed what it expects: no signal blocked, and [`DEFAULT`]. A shell cannot
/// trap what it finds ignored, and pid 1 is not reached by it. Others that the caller ignores, which is rare, stay so.
///
/// # Errors
/// None in practice.
pub fn reset() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in DEFAULT {
        // SAFETY: the default action runs none of our code.
        unsafe { sigaction(signal, &default)? };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Every signal of the kernel, 1 to 64. sigfillset(3) leaves out those that the C library keeps for its threads: glibc 32 and 33, musl 34 too, which
/// is SIGRTMIN everywhere else.
pub fn all() -> SigSet {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a set is nothing but bits, and all are written.
    unsafe {
        all.as_mut_ptr().write_bytes(0xff, 1);
        SigSet::from_sigset_t_unchecked(all.assume_init())
    }
}

extern "C" fn exit_with_signal(signal: libc::c_int) {
    // SAFETY: _exit(2) is async-signal-safe, takes an int and never returns.
    unsafe { libc::_exit(128 + signal) }
}

/// Makes the signals that ask a process to end do so. A container's init that waits for `start` is pid 1 of its
/// namespace, which the kernel shields from every signal it has no handler for; exec removes the handlers again.
///
/// # Errors
/// None in practice.
pub fn exit_when_asked() -> nix::Result<()> {
    let exit = SigAction::new(SigHandler::Handler(exit_with_signal), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the handler only calls _exit(2).
        unsafe { sigaction(signal, &exit)? };
    }
    Ok(())
}
