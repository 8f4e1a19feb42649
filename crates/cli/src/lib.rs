//! The tare command line: arguments in, one call of tare-sandbox, one result out.
//!
//! A library so that the documents of the command line (man pages, shell completion) and the tests of its flags are made
//! from the definitions that the program runs on: [`command_tree`].

#![forbid(unsafe_code)]

mod activation;
mod args;
mod duration;
mod global;
mod legacy;
mod log;
mod report;
mod signal;
mod size;
mod time;
mod timings;
mod user;
mod verb;

use std::ffi::{OsStr, OsString};

use args::Invocation;
use report::{Failure, Reporter};
use tare_sandbox::error::{CallContext, Context};
use tare_sandbox::sys::start;

pub use args::command_tree;

/// The whole program; its exit code.
pub fn main() -> u8 {
    let mut reporter = Reporter::default();
    match run(start::args().map(OsStr::to_owned).collect(), &mut reporter) {
        Ok(code) => code,
        Err(failure) => reporter.report(&failure),
    }
}

/// For fuzzing: whether a command line, without the program's name, is one.
#[cfg(fuzzing)]
pub fn understands<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    args::parse(std::iter::once("tare").chain(words).map(Into::into).collect()).is_ok()
}

fn run(argv: Vec<OsString>, reporter: &mut Reporter) -> Result<u8, Failure> {
    let (global, verb) = match args::parse(argv)? {
        Invocation::Text(text) => {
            report::print(text.as_bytes())?;
            return Ok(0);
        }
        Invocation::Verb { global, verb } => (global, *verb),
    };
    if let Some(preserved) = verb.enters_container() {
        protect(preserved).map_err(|error| verb.failed(error).in_log_of(&global))?;
    } else if verb.executes_others() {
        let closed = tare_sandbox::sys::fd::cloexec_from(3).call(|| "close_range(CLOEXEC)");
        closed.map_err(|error: tare_sandbox::Error| verb.failed(error).in_log_of(&global))?;
    }
    reporter.log = log::Log::open(&global)?;
    log::install(reporter.log.as_ref(), global.debug)?;
    let timings = timings::Timings::begin(&global).map_err(|cause| verb.failed(cause))?;
    let result = verb::dispatch(&global, &verb);
    if let Some(timings) = timings {
        timings.end(&verb, result.is_ok());
    }
    result
}

/// Before anything of a container is touched: nothing of ours can be written from inside one, and no descriptor of our
/// caller's, but those that are to be preserved, gets there or into a hook.
fn protect(preserved_fds: u32) -> tare_sandbox::Result<()> {
    tare_sandbox::seal::ensure()?;
    for number in (3..).take(usize::try_from(preserved_fds).unwrap_or(usize::MAX)) {
        // Before any descriptor of ours has a number.
        tare_sandbox::sys::fd::inherit(number)
            .call(|| format!("fcntl({number}, F_SETFD)"))
            .during(|| format!("--preserve-fds and LISTEN_FDS: {preserved_fds} descriptors"))?;
    }
    tare_sandbox::sys::fd::cloexec_from(3 + preserved_fds).call(|| "close_range(CLOEXEC)")
}
