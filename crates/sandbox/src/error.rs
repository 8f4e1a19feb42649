//! One error type: which step, which call on what, which errno, and a hint when we are sure.
//!
//! Libraries return it, the command line prints it, nothing logs it on the way.

use std::fmt;

use nix::errno::Errno;

use crate::step::Step;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command could not be carried out. `Display` prints one line, causes outermost first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a call.
    #[error("{call}: {}", ErrnoText(*errno))]
    Call {
        /// The call with the arguments that matter, as strace would print it: `openat2("/data")`.
        call: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// `source` happened while doing `purpose`.
    #[error("{purpose}: {source}")]
    During {
        /// What was being done, in the words of the configuration: `mount "/srv" on "/data"`.
        purpose: String,
        /// The cause.
        source: Box<Error>,
    },
    /// `source` happened in a named phase of a command.
    #[error("{source}")]
    AtStep {
        /// The phase.
        step: Step,
        /// The cause.
        source: Box<Error>,
    },
    /// `source`, and what to do about it: only where that is sure.
    #[error("{source}")]
    Hinted {
        /// A line for people.
        hint: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The configuration or the request asks for something that cannot be, in one line that names the field.
    #[error("{0}")]
    Refused(String),
    /// No container of that name: clients match `does not exist`.
    #[error("container does not exist")]
    NotExist,
    /// The name is taken: clients match `already exists`.
    #[error("container with given ID already exists")]
    AlreadyExists,
    /// The container's init is gone: clients match `container not running`.
    #[error("container not running")]
    NotRunning,
    /// A child process reported this line over the wire.
    #[error("{message}")]
    Reported {
        /// The phase in which the child was.
        step: Step,
        /// The errno behind the message, if a call was refused.
        errno: Option<Errno>,
        /// The child's error as one line.
        message: String,
    },
    /// The bundle could not be read or breaks the specification.
    #[error(transparent)]
    Spec(#[from] tare_spec::Error),
}

impl Error {
    /// An error of the call `call`.
    pub fn call(call: impl Into<String>, errno: Errno) -> Self {
        Self::Call { call: call.into(), errno }
    }

    /// The same error, with what to do about it.
    pub fn hinted(self, hint: impl Into<String>) -> Self {
        Self::Hinted { hint: hint.into(), source: Box::new(self) }
    }

    /// The errno at the root of the chain, if a call was refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::During { source, .. } | Self::AtStep { source, .. } | Self::Hinted { source, .. } => source.errno(),
            Self::Reported { errno, .. } => *errno,
            _ => None,
        }
    }

    /// The innermost named phase, if one is known.
    pub fn step(&self) -> Option<Step> {
        match self {
            Self::AtStep { step, source } => source.step().or(Some(*step)),
            Self::During { source, .. } | Self::Hinted { source, .. } => source.step(),
            Self::Reported { step, .. } => Some(*step),
            _ => None,
        }
    }

    /// What to do about it, if somebody knew.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Hinted { hint, .. } => Some(hint),
            Self::During { source, .. } | Self::AtStep { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// Adds the purpose to an error on its way up.
pub trait Context<T> {
    /// Wraps the error with what was being done; `purpose` runs only on failure.
    ///
    /// # Errors
    /// The same error, with its purpose in front.
    fn during<S: Into<String>>(self, purpose: impl FnOnce() -> S) -> Result<T>;

    /// Names the phase in which the error happened.
    ///
    /// # Errors
    /// The same error, with its phase.
    fn at(self, step: Step) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn during<S: Into<String>>(self, purpose: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::During { purpose: purpose().into(), source: Box::new(source.into()) })
    }

    fn at(self, step: Step) -> Result<T> {
        self.map_err(|source| Error::AtStep { step, source: Box::new(source.into()) })
    }
}

/// Turns an errno into an [`Error::Call`]; `call` runs only on failure.
pub trait CallContext<T> {
    /// Names the call that failed, as strace would print it.
    ///
    /// # Errors
    /// [`Error::Call`] with the errno.
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T>;
}

impl<T> CallContext<T> for nix::Result<T> {
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::call(call(), errno))
    }
}

impl<T> CallContext<T> for std::io::Result<T> {
    fn call<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Error::call(call(), Errno::from_raw(errno)),
            None => Error::Refused(format!("{}: {error}", call().into())),
        })
    }
}

/// Prints an errno in words and by name: `no such file or directory (ENOENT)`.
pub struct ErrnoText(pub Errno);

impl fmt::Display for ErrnoText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.desc();
        let mut letters = words.chars();
        match letters.next() {
            // An acronym ("RFS specific error") keeps its capitals.
            Some(first) if !letters.clone().next().is_some_and(char::is_uppercase) => {
                write!(out, "{}{}", first.to_lowercase(), letters.as_str())?;
            }
            _ => out.write_str(words)?,
        }
        write!(out, " ({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_outermost_first_and_ends_with_the_errno_in_words_and_by_name() {
        let error = Err::<(), _>(Errno::ENOENT)
            .call(|| "open_tree(\"/srv/data\")")
            .during(|| "mount \"/srv/data\" on \"/data\"")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "mount \"/srv/data\" on \"/data\": open_tree(\"/srv/data\"): no such file or directory (ENOENT)"
        );
        assert_eq!(error.errno(), Some(Errno::ENOENT));
    }
}
