//! The one place that prints an error: a line on stderr, and one in the log.

use std::io::{self, Write};

use nix::errno::Errno;
use tare_sandbox::error::ErrnoText;

use crate::args::Global;
use crate::log::{Level, Log};

/// Why the program ends with a code other than the container's.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// For a failure from before the log was opened.
    global: Option<Box<Global>>,
}

impl Failure {
    /// A failure in one line; the exit code is 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, global: None }
    }

    /// Adds a line for people, which does not go into the log.
    pub(crate) fn hint(mut self, hint: String) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Sets the exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Says which flags name the log.
    pub(crate) fn in_log_of(mut self, global: &Global) -> Self {
        self.global = Some(Box::new(global.clone()));
        self
    }

    /// What goes into the log and, after the name of the program, to stderr: always one line.
    pub(crate) fn line(&self) -> String {
        self.message.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Why a verb failed, before it is known in whose name that is said.
#[derive(Debug)]
pub(crate) struct Cause {
    /// One line.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text, hint: None }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<tare_sandbox::Error> for Cause {
    fn from(error: tare_sandbox::Error) -> Self {
        Self { text: error.to_string(), hint: error.hint().map(|hint| format!("hint: {hint}")) }
    }
}

/// Prints errors.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// The log, once it is open.
    pub(crate) log: Option<Log>,
}

impl Reporter {
    /// Prints a failure and returns its exit code.
    pub(crate) fn report(&self, failure: &Failure) -> u8 {
        let line = failure.line();
        let mut text = format!("tare: {line}\n");
        if let Some(hint) = &failure.hint {
            text.push_str("  ");
            text.push_str(hint);
            text.push('\n');
        }
        // A closed stderr must not hide the exit code.
        let _ = io::stderr().write_all(text.as_bytes());
        let opened = match (&self.log, &failure.global) {
            (None, Some(global)) => Log::open(global).ok().flatten(),
            _ => None,
        };
        if let Some(log) = self.log.as_ref().or(opened.as_ref()) {
            log.write(Level::Error, &line);
        }
        failure.code
    }
}

/// An I/O error in words and by name: `no such file or directory (ENOENT)`.
pub(crate) fn cause(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => ErrnoText(Errno::from_raw(errno)).to_string(),
        None => error.to_string(),
    }
}

/// Writes a result to stdout.
///
/// # Errors
/// stdout is closed or full.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // Whoever read it has enough: `tare list | head -n 1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(format!("write stdout: {}", cause(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let failure = Failure::new("create \"web\": ps said:\n  two lines\n").code(255);
        assert_eq!(failure.line(), "create \"web\": ps said: two lines");
        assert_eq!(failure.code, 255);
    }
}
