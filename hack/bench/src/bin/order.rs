//! The functions that a command executes, in the order of their first instruction, so that the linker can put them side by side.
//!
//! `order PROGRAM [ARG...]` steps through the program and what it forks, ptrace(2), until it ends, and prints the linker's names of its
//! functions, a line each. What it executes, a container's program, is let go. The program has its symbols.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{fs, io};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let names = match arguments.next() {
        Some(program) => order(&program, &arguments.collect::<Vec<_>>()),
        None => Err("usage: order PROGRAM [ARG...]".into()),
    };
    let written = names.and_then(|names| Ok(io::stdout().write_all((names.join("\n") + "\n").as_bytes())?));
    if let Err(error) = written {
        let _nobody_reads = writeln!(io::stderr(), "order: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn order(program: &str, arguments: &[String]) -> Done<Vec<String>> {
    let program = fs::canonicalize(program)?;
    let functions = Functions::of(&program)?;
    // Stops itself until it is seized.
    let child = Command::new("sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(first, options)?;
    nix::sys::signal::kill(first, Signal::SIGCONT)?;
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    // Where the program is in memory; its forks have it there too.
    let mut base = None;
    let mut forks = HashSet::new();
    let mut ended = false;
    while !ended || !forks.is_empty() {
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        let resumed = match status {
            WaitStatus::Exited(pid, code) if pid == first => {
                if code != 0 {
                    return Err(format!("it ended with {code}").into());
                }
                ended = true;
                // What it leaves, a container that waits for its start, is let go; that takes a stop.
                forks.iter().try_for_each(|fork| ptrace::interrupt(*fork))
            }
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                forks.remove(&pid);
                Ok(())
            }
            WaitStatus::PtraceEvent(pid, _, event) if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 => {
                if pid == first && base.is_none() {
                    base = Some(begin_of(pid, &program)?);
                    ptrace::step(pid, None)
                } else {
                    forks.remove(&pid);
                    ptrace::detach(pid, None)
                }
            }
            WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, _) => {
                let signal = match status {
                    WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => Some(signal),
                    _ => None,
                };
                if let Some(base) = base
                    && let Ok(registers) = ptrace::getregs(pid)
                    && let Some(name) = functions.at(registers.rip.wrapping_sub(base))
                    && seen.insert(name)
                {
                    names.push(name.to_owned());
                }
                if pid != first {
                    forks.insert(pid);
                }
                if ended {
                    forks.remove(&pid);
                    ptrace::detach(pid, signal)
                } else if base.is_some() {
                    ptrace::step(pid, signal)
                } else {
                    ptrace::cont(pid, signal)
                }
            }
            _ => Ok(()),
        };
        // ESRCH: it was killed meanwhile.
        match resumed {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(names)
}

/// The address of the program's first byte.
fn begin_of(pid: Pid, program: &Path) -> Done<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with(&program.display().to_string())).ok_or("it is not mapped")?;
    let (begin, _) = line.split_once('-').ok_or("no address")?;
    Ok(u64::from_str_radix(begin, 16)?)
}

/// Addresses from the program's first byte, each with the name of what begins there, ascending.
struct Functions(Vec<(u64, String)>);

impl Functions {
    fn of(program: &Path) -> Done<Self> {
        let output = Command::new("nm").arg("--numeric-sort").arg(program).output()?;
        let text = String::from_utf8(output.stdout)?;
        let function = |line: &str| {
            let (address, rest) = line.split_once(' ')?;
            let (kind, name) = rest.split_once(' ')?;
            let address = u64::from_str_radix(address, 16).ok()?;
            matches!(kind, "t" | "T" | "w" | "W" | "i").then(|| (address, name.to_owned()))
        };
        let functions: Vec<_> = text.lines().filter_map(function).collect();
        if functions.is_empty() { Err("the program has no symbols".into()) } else { Ok(Self(functions)) }
    }

    fn at(&self, address: u64) -> Option<&str> {
        let next = self.0.partition_point(|(begin, _)| *begin <= address);
        // The last has nothing behind it: an address beyond is not the program's.
        self.0.get(next).and_then(|_| self.0.get(next.checked_sub(1)?)).map(|(_, name)| name.as_str())
    }
}
