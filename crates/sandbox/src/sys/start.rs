//! The first moment of the program, in place of std's.
//!
//! std prepares for what this program does not do: it measures the stack of the main thread and sets up another one, to say by name that
//! it overflowed. That is some twenty system calls. What is needed of it is here: standard descriptors that are open, an error instead of death where a reader has gone,
//! the words of the command line, and the end of a panic.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::Mode;
use nix::unistd::getpid;

use super::exec::exit_child;
use super::fd::{stderr, stdin, stdout};
use super::path::open;

/// Defines the program's allocator, [`Heap`](super::heap::Heap), and its `main`, which runs `$main`, a `fn() -> u8`, and ends with the
/// code it returns. For a crate with `#![no_main]`. A stack that overflows ends the program by SIGSEGV, without a message.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[global_allocator]
        static HEAP: $crate::sys::heap::Heap = $crate::sys::heap::Heap::new();

        // What the C library calls. Safe: it is the one `main`, as `no_main` keeps the compiler from making another.
        #[allow(unsafe_code, missing_docs, clippy::missing_safety_doc)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: ::std::ffi::c_int,
            words: *mut *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are what the C library calls `main` with.
            unsafe { $crate::sys::start::run($main, count, words) }
        }
    };
}

/// The words of the command line: how many, and where.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Prepares, runs `main` and returns its code.
///
/// # Safety
/// `words` are `count` pointers to strings, which nobody changes: what the C library calls `main` with.
pub unsafe fn run(main: fn() -> u8, count: c_int, words: *mut *const c_char) -> c_int {
    if prepare().is_err() {
        // Nobody could be told.
        exit_child(1);
    }
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        tell(panic);
        abort();
    }));
    WORDS.store(words, Ordering::Relaxed);
    COUNT.store(usize::try_from(count).unwrap_or_default(), Ordering::Relaxed);
    main().into()
}

/// abort(3) of this process, whoever forked it. The C library's own may send the signal to the thread that it takes this for, after
/// a fork of ours its parent's.
fn abort() -> ! {
    let _ignored_in_an_init = kill(getpid(), Signal::SIGABRT);
    exit_child(128 + libc::SIGABRT)
}

/// The words of the command line, the program's name first, which std knows only where the C library hands them to constructors (glibc
/// does, musl does not). None before [`run`].
pub fn args() -> impl Iterator<Item = &'static OsStr> {
    let words = WORDS.load(Ordering::Relaxed);
    // SAFETY: `run`'s caller promised that there are so many strings; they lie on the stack of the process, above `main`'s, to its end.
    let word = move |number| unsafe { CStr::from_ptr(*words.add(number)) };
    (0..COUNT.load(Ordering::Relaxed)).map(move |number| OsStr::from_bytes(word(number).to_bytes()))
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
