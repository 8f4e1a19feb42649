//! Running a command so that a test can never hang, and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::{TempDir, deadline};

/// A command line being put together. Its output goes to files, not pipes: a container that outlives `create` keeps
/// writing to them, and no reader waits for it.
#[derive(Debug)]
pub struct Invocation {
    /// The runtime and its arguments, without what comes before.
    line: Vec<OsString>,
    /// `sh -c SCRIPT sh` in front: redirections and mounts that std cannot make.
    prefix: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Stdin,
    stdio: Option<[OwnedFd; 3]>,
    capture: PathBuf,
    deadline: Duration,
}

#[derive(Debug)]
enum Stdin {
    Empty,
    Bytes(Vec<u8>),
    Open,
}

impl Invocation {
    /// A command whose captured output lies in `dir`.
    pub fn new(program: impl AsRef<OsStr>, dir: &TempDir) -> Self {
        Self {
            line: vec![program.as_ref().to_owned()],
            prefix: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: Stdin::Empty,
            stdio: None,
            capture: dir.join(format!("output-{}", crate::fixture::next())),
            deadline: deadline(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.line.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs the command from a shell script, as its `"$@"`: `exec "$@" 9</`.
    pub fn through_shell(mut self, script: &str) -> Self {
        let inner = std::mem::take(&mut self.prefix);
        self.prefix = ["sh", "-c", script, "sh"].map(OsString::from).into_iter().chain(inner).collect();
        self
    }

    /// Sets a variable of the runtime's own environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// The runtime's working directory.
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// What to write to its standard input (a pipe).
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    /// Leaves standard input open, a pipe for [`Running::stdin`].
    pub fn stdin_open(mut self) -> Self {
        self.stdin = Stdin::Open;
        self
    }

    /// Uses these three files for stdio (a pty). Nothing is captured then.
    pub fn stdio(mut self, files: [OwnedFd; 3]) -> Self {
        self.stdio = Some(files);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn spawn(self) -> Running {
        let mut words = self.prefix.iter().chain(&self.line);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        if let Some([input, output, error]) = self.stdio {
            command.stdin(input).stdout(output).stderr(error);
        } else {
            command.stdin(match self.stdin {
                // An empty file and not /dev/null: crun 1.8.1 gives stdio to the container's user, the host's too.
                Stdin::Empty => File::create_new(self.capture.with_extension("in")).unwrap().into(),
                Stdin::Bytes(_) | Stdin::Open => Stdio::piped(),
            });
            command.stdout(File::create(self.capture.with_extension("out")).unwrap());
            command.stderr(File::create(self.capture.with_extension("err")).unwrap());
        }
        let what = self.line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Stdin::Bytes(bytes) = self.stdin {
            let mut stdin = child.stdin.take().unwrap();
            // A thread, as the container may never read: it ends when the pipe does.
            std::thread::spawn(move || stdin.write_all(&bytes));
        }
        Running { child, what, capture: self.capture, deadline: self.deadline }
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

/// A command at work. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    capture: PathBuf,
    deadline: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its standard input; see [`Invocation::stdin_open`].
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it wrote to standard output so far.
    pub fn stdout_so_far(&self) -> String {
        read_lossy(&self.capture.with_extension("out"))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If that takes longer than the deadline; the process is killed then.
    pub fn wait(mut self) -> Output {
        let status = self.wait_status();
        Output {
            what: std::mem::take(&mut self.what),
            status,
            stdout: self.stdout_so_far(),
            stderr: read_lossy(&self.capture.with_extension("err")),
        }
    }

    fn wait_status(&mut self) -> ExitStatus {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let end = Instant::now() + self.deadline;
        let timed_out = loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap();
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => break true,
                Ok(_) => break false,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        };
        if timed_out {
            pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        }
        let status = self.child.wait().unwrap();
        assert!(
            !timed_out,
            "{}: hangs; killed after {:?}\n{}{}",
            self.what,
            self.deadline,
            self.stdout_so_far(),
            read_lossy(&self.capture.with_extension("err"))
        );
        status
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "why something was waited for in vain is what it wrote")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{} had written:\n{}", self.what, read_lossy(&self.capture.with_extension("err")));
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Output {
    what: String,
    status: ExitStatus,
    /// Its standard output, the container's included.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code, if it was not killed by a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Expects success.
    ///
    /// # Panics
    /// If it failed, with what it wrote.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.success(), "should succeed: {self}");
        self
    }

    /// Expects this exit code.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "exit code of {self}");
        self
    }

    /// Expects a clean failure that says one of these texts: an exit code of 1..=123 or 255, and no panic.
    ///
    /// # Panics
    /// If it succeeded, died or said something else.
    #[track_caller]
    pub fn fails(self, texts: &[&str]) -> Self {
        let clean = matches!(self.code(), Some(1..=123 | 255));
        let panicked = self.stderr.contains("panicked at") || self.stderr.contains("goroutine ");
        assert!(clean && !panicked, "should fail cleanly: {self}");
        let said = self.stderr.to_lowercase();
        let expected = texts.is_empty() || texts.iter().any(|text| said.contains(&text.to_lowercase()));
        assert!(expected, "should say one of {texts:?}: {self}");
        self
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match self.status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => format!("exit code {}", self.code().unwrap_or(-1)),
        };
        write!(f, "{}\n{end}\n--- stdout\n{}\n--- stderr\n{}", self.what, self.stdout, self.stderr)
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
