//! Every verb and flag. Only the verb that was asked for is handed to clap: building the others costs time.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

use crate::legacy::{self, Stop};
use crate::report::Failure;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Help or the version, to be printed.
    Text(String),
    /// A verb.
    Verb { global: Global, verb: Box<Verb> },
}

/// Runs containers from OCI bundles
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Log every step
    #[arg(long)]
    pub(crate) debug: bool,
    /// Append errors and messages to FILE; an error is written to stderr too
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The format of that file: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: String,
    /// Where the state of containers is kept [default: /run/tare]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Let systemd make cgroups; cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Who makes cgroups: cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER")]
    pub(crate) cgroup_manager: Option<String>,
    /// Ignore cgroups that may not be written: true, false or auto
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    pub(crate) rootless: String,
    /// Print the version
    #[arg(short, long)]
    pub(crate) version: bool,
    /// Ignored: where CRIU is
    #[arg(long, hide = true, value_name = "PATH")]
    pub(crate) criu: Option<PathBuf>,
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
        pub(crate) fn command_tree() -> Command {
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
    #[expect(dead_code, reason = "parsed for --help alone")]
    "events" Events(Events) Stop::Verbatim;
    #[expect(dead_code, reason = "parsed for --help alone")]
    "checkpoint" Checkpoint(Checkpoint) Stop::Verbatim;
    #[expect(dead_code, reason = "parsed for --help alone")]
    "restore" Restore(Restore) Stop::Verbatim;
}

/// Create a container; its process waits for start
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) container: Container,
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

/// What create and run share.
#[derive(Debug, Args)]
pub(crate) struct Container {
    /// The container's name
    pub(crate) id: String,
    /// The bundle directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Send the terminal's master side over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the container's init over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Write init's pid to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not use pivot_root(2): for a root on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass N more file descriptors after stdio
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

/// Create a container and run its process
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: Container,
    /// Return once the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the state after the process has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do not adopt the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

/// Let the process of a created container go
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's name
    pub(crate) id: String,
}

/// Print what a container is doing, as JSON
#[derive(Debug, Args)]
pub(crate) struct State {
    /// The container's name
    pub(crate) id: String,
}

/// Send a signal to a container's init
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The container's name
    pub(crate) id: String,
    /// KILL, SIGKILL or 9
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
    /// To every process in it; a stopped container is no error
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// Remove a stopped container
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The container's name
    pub(crate) id: String,
    /// Kill it first; an unknown container is no error
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Run one more process in a container
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container's name
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(value_name = "ARGS")]
    pub(crate) args: Vec<String>,
    /// Send the terminal's master side over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Send a pidfd of the process over this AF_UNIX socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// One more environment variable: NAME=value
    #[arg(short, long, value_name = "VAR")]
    pub(crate) env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run as this user: UID[:GID], numbers
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// One more group
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<String>,
    /// Read the process from a JSON file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Write its pid to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// It cannot gain privileges by execve(2)
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// One more capability
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Pass N more file descriptors after stdio
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Into a cgroup below the container's: [controllers:]path
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Even if the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
}

/// List containers
#[derive(Debug, Args)]
pub(crate) struct List {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
    /// Only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// List the processes of a container
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The container's name
    pub(crate) id: String,
    /// Options of ps(1) [default: -ef]
    #[arg(value_name = "OPTIONS")]
    pub(crate) options: Vec<OsString>,
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: String,
}

/// Freeze every process of a container
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The container's name
    pub(crate) id: String,
}

/// Thaw every process of a container
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The container's name
    pub(crate) id: String,
}

/// Change the limits of a container
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The container's name
    pub(crate) id: String,
    /// Read them from a JSON file (linux.resources), or from stdin if it is -; the other flags are then ignored
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<String>,
    /// CFS period in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_period: Option<String>,
    /// CFS quota in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_quota: Option<String>,
    /// CFS burst in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_burst: Option<String>,
    /// CPU shares
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<String>,
    /// Real-time period in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_period: Option<String>,
    /// Real-time runtime in microseconds
    #[arg(long, value_name = "USEC")]
    pub(crate) cpu_rt_runtime: Option<String>,
    /// 1: SCHED_IDLE, 0: not
    #[arg(long, value_name = "IDLE")]
    pub(crate) cpu_idle: Option<String>,
    /// CPUs to use: 0-3,7
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit, with a unit (512m), -1 for none
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap together, -1 for no limit
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_swap: Option<String>,
    /// Most processes, -1 for no limit
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<String>,
    #[arg(long, hide = true, value_name = "SIZE")]
    pub(crate) kernel_memory: Option<String>,
    #[arg(long, hide = true, value_name = "SIZE")]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Intel RDT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Intel RDT schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
}

/// Write a config.json to start from
#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// The bundle directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// For a user without privileges
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// Print what this build implements, as JSON
#[derive(Debug, Args)]
pub(crate) struct Features {}

/// Look at a bundle: what is wrong with its config.json, what would be ignored, what would be done
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The bundle directory [default: the working directory]
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Print every step that create and start would take; nothing is run or changed
    #[arg(long)]
    pub(crate) plan: bool,
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// Plan for this version of cgroups and not for the host's: v1 or v2
    #[arg(long, value_name = "VERSION")]
    pub(crate) cgroup_version: Option<String>,
}

/// Print events and statistics of a container (not supported yet)
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[arg(value_name = "ARGS", hide = true)]
    ignored: Vec<OsString>,
}

/// Save a container with CRIU (not supported yet)
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[arg(value_name = "ARGS", hide = true)]
    ignored: Vec<OsString>,
}

/// Bring a saved container back with CRIU (not supported yet)
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[arg(value_name = "ARGS", hide = true)]
    ignored: Vec<OsString>,
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
