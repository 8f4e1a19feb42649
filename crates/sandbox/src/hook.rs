//! Hooks: a program that gets the container's state on its standard input.
//!
//! A hook runs in a process group of its own, with exactly the environment that the configuration gives (never the
//! container's: an image's LD_PRELOAD must not reach a host program, CVE-2025-23266). Its timeout ends the whole group; a
//! grandchild that keeps the output open is not waited for.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;

use crate::deadline::{Deadline, Wait};
use crate::error::{CallContext, Context};
use crate::init::parent::end_child;
use crate::step::Step;
use crate::sys::pidfd::pidfd_open;
use crate::{Error, Result, family, timing};

/// How much of a failed hook's output is quoted, from its end.
const QUOTED_BYTES: usize = 400;

/// Runs the hooks of `step` one after the other, each with `state` (JSON) on its standard input, which is asked for if there are any.
///
/// # Errors
/// The first that cannot be run, exits non-zero, or runs into its timeout or the deadline of all; the rest are not run.
pub fn run_all(step: Step, hooks: &[Hook], state: impl FnOnce() -> Vec<u8>, deadline: Deadline) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state();
    for (index, hook) in hooks.iter().enumerate() {
        run(hook, &state, deadline)
            .during(|| format!("error running {step} hook #{index}: {:?}", hook.path()))
            .at(step)?;
    }
    timing::lap(step);
    Ok(())
}

fn run(hook: &Hook, state: &[u8], deadline: Deadline) -> Result<()> {
    if deadline.passed() {
        return Err(deadline.late("not run"));
    }
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = timeout.map_or(deadline, |seconds| deadline.sooner(Duration::from_secs(seconds)));
    let args = hook.args().as_deref().unwrap_or_default();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command.env(name, value);
    }
    if let Some(traceparent) = timing::traceparent() {
        command.env("TRACEPARENT", traceparent);
    }
    let (status, output) = complete(&mut command, state, deadline)?;
    if status.success() { Ok(()) } else { Err(Error::Refused(format!("{}{}", describe(status), quote(&output)))) }
}

/// Executes a program in a process group of its own, with `input` on its standard input, until it ends by itself. How it
/// ended, and the end of what it has said.
///
/// # Errors
/// It cannot be executed; the deadline passes first, and its whole process group is killed.
pub(crate) fn complete(command: &mut Command, input: &[u8], deadline: Deadline) -> Result<(ExitStatus, Vec<u8>)> {
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().call(|| format!("execve({:?})", command.get_program()))?;
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let ended = converse(&mut child, group, input, deadline);
    let (ended, output) = match ended {
        Ok(talk) => talk,
        Err(error) => {
            end(group);
            return Err(error);
        }
    };
    if ended == Wait::Late {
        let late = family::describe(group);
        end(group);
        return Err(deadline.late(format_args!("{late}{}", quote(&output))));
    }
    let status = child.wait().call(|| "wait4()")?;
    Ok((status, output))
}

/// Kills the hook's whole process group: the hook is ours, unreaped, so that its group still is its group.
fn end(group: Pid) {
    let _may_be_gone = killpg(group, Signal::SIGKILL);
    end_child(group);
}

/// Feeds the state and collects output until the hook itself ends, or the deadline has passed.
fn converse(child: &mut Child, pid: Pid, mut state: &[u8], deadline: Deadline) -> Result<(Wait, Vec<u8>)> {
    let pidfd = pidfd_open(pid).call(|| format!("pidfd_open({pid})"))?;
    let mut stdin = child.stdin.take();
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    for fd in [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)] {
        fd.map(unblock).transpose()?;
    }
    let mut output = Vec::new();
    loop {
        if state.is_empty() {
            stdin = None;
        }
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(stdin.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLOUT)));
        fds.extend(stdout.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(stderr.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        if deadline.poll(&mut fds).call(|| "poll(hook)")? == Wait::Late {
            return Ok((Wait::Late, output));
        }
        let ended = fds[0].any().unwrap_or(false);
        if let Some(pipe) = &mut stdin {
            match pipe.write(state) {
                Ok(count) => state = &state[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // The hook does not read its input: that is its right.
                Err(_) => state = &[],
            }
        }
        drain(&mut stdout, &mut output);
        drain(&mut stderr, &mut output);
        if ended {
            return Ok((Wait::Done, output));
        }
    }
}

fn unblock(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).call(|| "fcntl(F_SETFL, O_NONBLOCK)")
}

/// Reads what is there without waiting; keeps the end of it.
fn drain(pipe: &mut Option<impl Read>, output: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    while let Some(reader) = pipe {
        match reader.read(&mut chunk) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                output.extend_from_slice(&chunk[..count]);
                let surplus = output.len().saturating_sub(QUOTED_BYTES);
                output.drain(..surplus);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(_) => *pipe = None,
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn quote(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(": {}", text.replace('\n', " | ")) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use oci_spec::runtime::HookBuilder;

    const NEVER: Deadline = Deadline::NEVER;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let builder = HookBuilder::default().path("/bin/sh").args(["sh", "-c", script].map(String::from));
        let mut hook = builder.env(["PATH=/bin:/usr/bin".to_owned()]).build().unwrap();
        hook.set_timeout(timeout);
        hook
    }

    #[test]
    fn a_hook_reads_the_state_and_a_failing_one_is_quoted_with_its_place() {
        let state = || br#"{"id":"web"}"#.to_vec();
        run_all(Step::Prestart, &[shell("grep -q '\"id\":\"web\"'", None)], state, NEVER).unwrap();
        let hooks = [shell("true", None), shell("cat; echo bad luck >&2; exit 3", None), shell("exit 4", None)];
        let error = run_all(Step::CreateRuntime, &hooks, state, NEVER).unwrap_err();
        assert_eq!(error.step(), Some(Step::CreateRuntime));
        let text = error.to_string();
        assert!(text.starts_with("error running createRuntime hook #1: \"/bin/sh\": exit status 3"), "{text}");
        assert!(text.contains("bad luck"), "{text}");
    }

    #[test]
    fn a_hook_has_no_environment_but_its_own() {
        let mut hook = shell("test \"$(env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=)\" = PATH=/bin:/usr/bin", None);
        run(&hook, b"{}", NEVER).unwrap();
        hook.set_env(None);
        hook.set_args(Some(["sh", "-c", "test -z \"$HOME$CARGO\""].map(String::from).to_vec()));
        run(&hook, b"{}", NEVER).unwrap();
    }

    #[test]
    fn a_timeout_ends_the_hook_and_a_grandchild_with_the_output_open_is_not_waited_for() {
        let before = Instant::now();
        let error = run(&shell("sleep 60 & sleep 60", Some(1)), b"{}", NEVER).unwrap_err().to_string();
        assert!(error.starts_with("timed out after 1 s: pid "), "{error}");
        assert!(error.contains("\"sleep\" (state S"), "{error}");
        run(&shell("sleep 5 & exit 0", None), b"{}", NEVER).unwrap();
        assert!(before.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn the_deadline_of_all_ends_a_hook_that_has_more_time_and_keeps_the_next_from_running() {
        let soon = Deadline::after(Duration::from_millis(300));
        let error = run(&shell("echo at work; sleep 60", Some(50)), b"{}", soon).unwrap_err().to_string();
        assert!(error.starts_with("timed out after 300 ms: pid ") && error.ends_with(": at work"), "{error}");
        let error = run(&shell("exit 0", None), b"{}", soon).unwrap_err().to_string();
        assert_eq!(error, "timed out after 300 ms: not run");
    }

    #[test]
    fn a_state_larger_than_a_pipe_arrives_whole_and_unread_state_is_no_error() {
        let state = vec![b'x'; 300_000];
        run(&shell("test $(wc -c) = 300000", None), &state, NEVER).unwrap();
        run(&shell("exit 0", None), &state, NEVER).unwrap();
    }

    #[test]
    fn a_hook_that_is_not_there_is_named() {
        let hook = HookBuilder::default().path("/does/not/exist").build().unwrap();
        let error = run_all(Step::Poststop, &[hook], || b"{}".to_vec(), NEVER).unwrap_err().to_string();
        assert!(error.contains("/does/not/exist") && error.ends_with("(ENOENT)"), "{error}");
    }
}
