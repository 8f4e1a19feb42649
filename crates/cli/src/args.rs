//! Every verb and flag. Only the verb that was asked for is handed to clap: building the others costs time.

mod bundle;
mod checkpoint;
mod control;
mod create;
mod exec;
mod global;
mod inspect;
mod mounts;
mod update;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

use crate::legacy::{self, Stop};
use crate::report::Failure;

pub(crate) use bundle::{Check, Features, Spec};
pub(crate) use checkpoint::{Checkpoint, Criu, Restore};
pub(crate) use control::{Delete, Kill, Pause, Resume, Start, State};
pub(crate) use create::{Container, Create, Run};
pub(crate) use exec::Exec;
pub(crate) use global::Global;
pub(crate) use inspect::{Events, List, Ps};
pub(crate) use mounts::Mounts;
pub(crate) use update::Update;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Help or the version, to be printed.
    Text(String),
    /// A verb.
    Verb { global: Global, verb: Box<Verb> },
}

macro_rules! verbs {
    ($($(#[$attribute:meta])* $name:literal $variant:ident($args:ty) $stop:expr;)*) => {
        /// A verb with its arguments.
        #[derive(Debug)]
        pub(crate) enum Verb { $($(#[$attribute])* $variant($args),)* }

        impl Verb {
            /// The word on the command line.
            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            fn parse(name: &str, arguments: &[OsString]) -> Option<Result<Self, Rejected>> {
                match name {
                    $($name => Some(parse_arguments::<$args>(command::<$args>($name), arguments, $stop).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }

        /// The whole program for clap: for help, man page and completion.
        pub fn command_tree() -> Command {
            Global::augment_args(program())$(.subcommand(command::<$args>($name)))*
        }
    };
}

verbs! {
    "create" Create(Create) Stop::Never;
    "start" Start(Start) Stop::Never;
    "state" State(State) Stop::Never;
    "kill" Kill(Kill) Stop::AfterFirst;
    "delete" Delete(Delete) Stop::Never;
    "run" Run(Run) Stop::Never;
    "exec" Exec(Exec) Stop::AfterFirst;
    "list" List(List) Stop::Never;
    "ps" Ps(Ps) Stop::AfterFirst;
    "pause" Pause(Pause) Stop::Never;
    "resume" Resume(Resume) Stop::Never;
    "update" Update(Update) Stop::Never;
    "spec" Spec(Spec) Stop::Never;
    "features" Features(Features) Stop::Never;
    "check" Check(Check) Stop::Never;
    "mounts" Mounts(Mounts) Stop::Never;
    "events" Events(Events) Stop::Never;
    "checkpoint" Checkpoint(Checkpoint) Stop::Never;
    "restore" Restore(Restore) Stop::Never;
}

fn program() -> Command {
    Command::new("tare")
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        // Go's last one wins.
        .args_override_self(true)
}

fn command<A: Args>(name: &'static str) -> Command {
    let command = Command::new(name).bin_name(format!("tare {name}")).disable_version_flag(true);
    A::augment_args(command.args_override_self(true))
}

/// Why arguments were not taken.
enum Rejected {
    Help(String),
    Usage(Failure),
}

/// Splits the command line at the verb and parses both halves.
///
/// # Errors
/// A failure of usage, in one line.
pub(crate) fn parse(argv: Vec<OsString>) -> Result<Invocation, Failure> {
    let mut command = Global::augment_args(program());
    let (global, rest) = legacy::split_at_verb(&command, argv.get(1..).unwrap_or_default()).map_err(usage(None))?;
    let global = match command.try_get_matches_from_mut(std::iter::once("tare".into()).chain(global)) {
        Ok(matches) => Global::from_arg_matches(&matches).map_err(|error| usage(None)(one_line(&error)))?,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(help()),
        Err(error) => return Err(usage(None)(one_line(&error))),
    };
    if global.version {
        return Ok(Invocation::Text(version()));
    }
    match parse_rest(&rest) {
        Ok(Some(verb)) => Ok(Invocation::Verb { global, verb: Box::new(verb) }),
        Ok(None) => Ok(help()),
        Err(Rejected::Help(text)) => Ok(Invocation::Text(text)),
        Err(Rejected::Usage(failure)) => Err(failure.in_log_of(&global)),
    }
}

/// The verb and what follows it. None: help for all of them.
fn parse_rest(rest: &[OsString]) -> Result<Option<Verb>, Rejected> {
    let help = ["--help".into()];
    let (name, arguments) = match rest {
        [] => return Ok(None),
        [help] if help == "help" => return Ok(None),
        [word, name, ..] if word == "help" => (name, help.as_slice()),
        [name, arguments @ ..] => (name, arguments),
    };
    let name = name.to_string_lossy();
    let unknown = || {
        let failure = Failure::new(format!("unknown command {name:?}")).hint("tare --help lists them".into());
        Err(Rejected::Usage(failure))
    };
    Verb::parse(&name, arguments).unwrap_or_else(unknown).map(Some)
}

fn parse_arguments<A: Args>(mut command: Command, arguments: &[OsString], stop: Stop) -> Result<A, Rejected> {
    let name = command.get_name().to_owned();
    let reject = |message: String| Rejected::Usage(usage(Some(&name))(message));
    let arguments = legacy::normalize(&command, arguments, stop).map_err(reject)?;
    match command.try_get_matches_from_mut(std::iter::once("tare".into()).chain(arguments)) {
        Ok(matches) => A::from_arg_matches(&matches).map_err(|error| reject(one_line(&error))),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Err(Rejected::Help(error.to_string())),
        Err(error) => {
            let usage_line = command.render_usage().to_string();
            Err(Rejected::Usage(
                usage(Some(&name))(one_line(&error)).hint(usage_line.trim().replace("Usage:", "usage:")),
            ))
        }
    }
}

fn usage(verb: Option<&str>) -> impl FnOnce(String) -> Failure {
    let prefix = verb.map(|verb| format!("{verb}: ")).unwrap_or_default();
    move |message| Failure::new(format!("{prefix}{message}"))
}

/// clap's message without its label, usage and tips.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn help() -> Invocation {
    Invocation::Text(command_tree().render_help().to_string())
}

/// The lines that clients of `--version` look for.
fn version() -> String {
    // Set by hack/build: a build from an unpacked archive has no commit to tell.
    let commit = option_env!("TARE_COMMIT").unwrap_or("unknown");
    format!("tare version {}\ncommit: {commit}\nspec: {}\n", env!("CARGO_PKG_VERSION"), tare_spec::OCI_VERSION)
}

#[cfg(test)]
mod tests;
