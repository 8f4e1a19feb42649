//! The first moment of the program, in place of std's.
//!
//! std prepares for what this program does not do: it measures the stack of the main thread and sets up another one, to say by name that
//! it overflowed. That is some twenty system calls. What is needed of it is here: standard descriptors that are open, and an error instead of death where a reader has gone.

use std::os::fd::{BorrowedFd, IntoRawFd};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

use super::exec::exit_child;
use super::fd::{stderr, stdin, stdout};

/// Defines the program's allocator, [`Heap`](super::heap::Heap), and its `main`, which runs `$main`, a `fn() -> u8`, and ends with the
/// code it returns. For a crate with `#![no_main]`. A stack that overflows ends the program by SIGSEGV, without a message.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[global_allocator]
        static HEAP: $crate::sys::heap::Heap = $crate::sys::heap::Heap::new();

        // What the C library calls. Safe: it is the one `main`, as `no_main` keeps the compiler from making another.
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        pub extern "C" fn main() -> ::std::ffi::c_int {
            $crate::sys::start::run($main)
        }
    };
}

/// Prepares, runs `main` and returns its code. Arguments and environment are in [`std::env`] already.
pub fn run(main: fn() -> u8) -> libc::c_int {
    if prepare().is_err() {
        // Nobody could be told.
        exit_child(1);
    }
    main().into()
}

/// Opens what of stdin, stdout and stderr the caller closed, as the next file opened would take its number; ignores SIGPIPE.
fn prepare() -> nix::Result<()> {
    let mut stdio = [stdin(), stdout(), stderr()].map(|fd: BorrowedFd<'static>| PollFd::new(fd, PollFlags::empty()));
    poll(&mut stdio, PollTimeout::ZERO)?;
    for fd in &stdio {
        if fd.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL)) {
            // The lowest number that is free: this one.
            let _stays_open = open("/dev/null", OFlag::O_RDWR, Mode::empty())?.into_raw_fd();
        }
    }
    // SAFETY: to ignore a signal runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.map(drop)
}
