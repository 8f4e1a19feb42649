//! The tare command line: arguments in, one call of tare-sandbox, one result out.

use std::process::ExitCode;

mod args;
mod global;
mod legacy;
mod log;
mod report;
mod signal;
mod size;
mod time;
mod user;
mod verb;

use args::Invocation;
use report::{Failure, Reporter};

fn main() -> ExitCode {
    let mut reporter = Reporter::default();
    match run(std::env::args_os().collect(), &mut reporter) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ExitCode::from(reporter.report(&failure)),
    }
}

fn run(argv: Vec<std::ffi::OsString>, reporter: &mut Reporter) -> Result<u8, Failure> {
    let (global, verb) = match args::parse(argv)? {
        Invocation::Text(text) => {
            report::print(text.as_bytes())?;
            return Ok(0);
        }
        Invocation::Verb { global, verb } => (global, *verb),
    };
    // SEAL: the one place for `tare_sandbox::seal::ensure()`, before anything is opened:
    //   if matches!(verb, args::Verb::Create(_) | args::Verb::Run(_) | args::Verb::Exec(_)) {
    //       tare_sandbox::seal::ensure().map_err(|error| verb.failed(error))?;
    //   }
    reporter.log = log::Log::open(&global)?;
    log::install(reporter.log.as_ref(), global.debug)?;
    verb::dispatch(&global, &verb)
}
