//! One call of [`Runtime`] per verb, and its result on stdout.

use tare_sandbox::container::{CreateOptions, RunOptions, Runtime};

use crate::args::{Container, Global, Verb};
use crate::report::{self, Cause, Failure};
use crate::{activation, signal};

mod check;
mod criu;
mod events;
mod exec;
mod list;
mod mounts;
mod ps;
mod regex;
mod spec;
mod update;

/// Does what a verb asks for; the code is that of the container's process where the verb waits for one.
///
/// # Errors
/// What failed, with the verb and the container's name in front.
pub(crate) fn dispatch(global: &Global, verb: &Verb) -> Result<u8, Failure> {
    let result = call(global, verb);
    result.map_err(|cause| verb.failed(cause))
}

impl Verb {
    /// An error of this verb: what was asked for, the cause, the exit code.
    pub(crate) fn failed(&self, cause: impl Into<Cause>) -> Failure {
        let Cause { text: cause, hint } = cause.into();
        let name = self.name();
        let message = match self.id() {
            Some(id) => format!("{name} {id:?}: {cause}"),
            None => format!("{name}: {cause}"),
        };
        // Only so can a caller tell an error of `exec` from the code of the process.
        let code = if matches!(self, Self::Exec(_)) { 255 } else { 1 };
        let failure = Failure::new(message).code(code);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Whether processes of ours enter a container, and how many descriptors after stdio they hand on.
    pub(crate) fn enters_container(&self) -> Option<u32> {
        match self {
            Self::Create(create) => Some(create.container.preserved_fds()),
            Self::Run(run) => Some(run.container.preserved_fds()),
            Self::Exec(exec) => Some(exec.preserve_fds),
            Self::Mounts(_) => Some(0),
            _ => None,
        }
    }

    /// Whether programs of the host are executed though no container is entered: hooks, ps(1), CRIU. They get no descriptor of our
    /// caller's either.
    pub(crate) fn executes_others(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Delete(_) | Self::Ps(_) | Self::Checkpoint(_) | Self::Restore(_))
    }

    /// The container that it is about.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Create(create) => Some(&create.container.id),
            Self::Run(run) => Some(&run.container.id),
            Self::Start(start) => Some(&start.id),
            Self::State(state) => Some(&state.id),
            Self::Kill(kill) => Some(&kill.id),
            Self::Delete(delete) => Some(&delete.id),
            Self::Exec(exec) => Some(&exec.id),
            Self::Ps(ps) => Some(&ps.id),
            Self::Pause(pause) => Some(&pause.id),
            Self::Resume(resume) => Some(&resume.id),
            Self::Update(update) => Some(&update.id),
            Self::Mounts(mounts) => Some(&mounts.id),
            Self::Checkpoint(checkpoint) => Some(&checkpoint.id),
            Self::Restore(restore) => Some(&restore.id),
            Self::Events(events) => Some(&events.id),
            Self::List(_) | Self::Spec(_) | Self::Features(_) | Self::Check(_) => None,
        }
    }
}

/// Calls something in a stack frame of its own. A frame is as large as all that is inlined into it, and each page of it is touched: a
/// verb is to pay for itself, not for all others.
#[inline(never)]
fn apart<T>(call: impl FnOnce() -> T) -> T {
    call()
}

fn call(global: &Global, verb: &Verb) -> Result<u8, Cause> {
    let runtime = match verb {
        // These look at nothing that the flags before the verb describe.
        Verb::Spec(spec) => return apart(|| Ok(spec::write(spec).map(|()| 0)?)),
        Verb::Features(_) => return apart(|| Ok(features().map(|()| 0)?)),
        Verb::Check(check) => return apart(|| check::write(global, check)),
        _ => global.runtime()?,
    };
    let done = match verb {
        Verb::Create(create) => apart(|| runtime.create(&create.container.id, &create.container.options())),
        Verb::Start(start) => apart(|| runtime.start(&start.id, activation::notify_socket().as_deref())),
        Verb::Kill(kill) => {
            return apart(|| {
                let signal = signal::parse(&kill.signal)?;
                for_each(&runtime, kill.regex, &kill.id, |id| runtime.kill(id, signal, kill.all))
            });
        }
        Verb::Delete(delete) => {
            return apart(|| for_each(&runtime, delete.regex, &delete.id, |id| runtime.delete(id, delete.force)));
        }
        Verb::Pause(pause) => apart(|| runtime.pause(&pause.id)),
        Verb::Resume(resume) => apart(|| runtime.resume(&resume.id)),
        Verb::Update(update) => return apart(|| Ok(runtime.update(&update.id, &update.change()?).map(|()| 0)?)),
        Verb::Mounts(mounts) => return apart(|| mounts::change(&runtime, mounts).map(|()| 0)),
        Verb::State(state) => return apart(|| Ok(self::state(&runtime, &state.id).map(|()| 0)?)),
        Verb::List(list) => return apart(|| Ok(list::write(&runtime, global, list).map(|()| 0)?)),
        Verb::Ps(ps) => return apart(|| Ok(ps::write(&runtime, ps).map(|()| 0)?)),
        Verb::Events(events) => return apart(|| events::write(&runtime, events).map(|()| 0)),
        Verb::Run(run) => {
            let options = RunOptions { detach: run.detach, keep: run.keep, no_subreaper: run.no_subreaper };
            return apart(|| code(runtime.run(&run.container.id, &run.container.options(), options)));
        }
        Verb::Checkpoint(checkpoint) => {
            return apart(|| Ok(runtime.checkpoint(&checkpoint.id, &checkpoint.options()?).map(|()| 0)?));
        }
        Verb::Restore(restore) => {
            let run = RunOptions { detach: restore.detach, keep: false, no_subreaper: restore.no_subreaper };
            return apart(|| code(runtime.restore(&restore.id, &restore.create_options(), run, &restore.options()?)));
        }
        Verb::Exec(exec) => return apart(|| code(runtime.exec(&exec.id, &exec.options()?))),
        Verb::Spec(_) | Verb::Features(_) | Verb::Check(_) => Ok(()),
    };
    Ok(done.map(|()| 0)?)
}

/// Does something with the container of this name, or with all whose names match it.
fn for_each(
    runtime: &Runtime,
    is_regex: bool,
    name: &str,
    call: impl Fn(&str) -> tare_sandbox::Result<()>,
) -> Result<u8, Cause> {
    match is_regex {
        true => regex::for_each(runtime, name, call)?,
        false => call(name)?,
    }
    Ok(0)
}

/// The code of a process as ours; the kernel keeps eight bits.
fn code(result: tare_sandbox::Result<i32>) -> Result<u8, Cause> {
    Ok(u8::try_from(result? & 0xff).map_err(|error| error.to_string())?)
}

impl Container {
    /// How many descriptors after stdio the container inherits.
    fn preserved_fds(&self) -> u32 {
        self.preserve_fds.saturating_add(activation::listen_fds())
    }

    fn options(&self) -> CreateOptions {
        CreateOptions {
            bundle: self.bundle.clone().unwrap_or_else(|| ".".into()),
            config: self.config.clone(),
            console_socket: self.console_socket.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserved_fds(),
            listen_fds: activation::listen_fds(),
            notify_socket: activation::notify_socket(),
        }
    }
}

fn state(runtime: &Runtime, id: &str) -> Result<(), String> {
    let state = runtime.state(id).map_err(|error| error.to_string())?;
    print_json(&state, "")
}

fn features() -> Result<(), String> {
    let document = tare_spec::features::document().map_err(|error| error.to_string())?;
    let mut document = serde_json::to_value(document).map_err(|error| error.to_string())?;
    drop_nulls(&mut document);
    print_json(&document, "\n")
}

/// oci-spec writes null for what is not announced; the schema wants it absent.
fn drop_nulls(value: &mut serde_json::Value) {
    if let serde_json::Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
        members.values_mut().for_each(drop_nulls);
    }
}

/// Prints JSON, indented by two spaces.
fn print_json(value: &impl serde::Serialize, end: &str) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    print(&(text + end))
}

/// Prints text.
fn print(text: &str) -> Result<(), String> {
    report::print(text.as_bytes()).map_err(|failure| failure.line())
}

#[cfg(test)]
mod tests {
    use crate::args::{Invocation, command_tree, parse};

    #[test]
    fn the_verbs_that_enter_a_container_are_those_that_say_so() {
        let mut enter = Vec::new();
        for command in command_tree().get_subcommands() {
            let name = command.get_name();
            // As many words as the verb takes.
            let parsed = (0..4).find_map(|count| {
                let words = ["tare", name].into_iter().chain(["add", "x", "y"].into_iter().take(count));
                parse(words.map(Into::into).collect()).ok()
            });
            let Some(Invocation::Verb { verb, .. }) = parsed else { panic!("{name} is not a verb") };
            if verb.enters_container().is_some() {
                enter.push(name.to_owned());
            }
        }
        enter.sort();
        assert_eq!(enter, ["create", "exec", "mounts", "run"]);
    }
}
