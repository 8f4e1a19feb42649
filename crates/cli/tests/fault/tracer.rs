//! A tracer, ptrace(2), that follows the runtime's own processes from system call to system call, and has one of them go
//! wrong. What they execute in the end, a container's program or a hook, is let go.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, gettid};
use syscalls::Sysno;
use tare_testkit::deadline;

/// A system call of one of the processes, counted from 0 in the order in which they are born, and from 0 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) process: usize,
    pub(crate) ordinal: usize,
    pub(crate) call: Sysno,
    /// Before the program's main, where libc and std go their own ways: no call but theirs was made since exec.
    pub(crate) starting: bool,
}

/// The calls that libc and std make before main.
const STARTING: [Sysno; 18] = [
    Sysno::arch_prctl,
    Sysno::brk,
    Sysno::getrandom,
    Sysno::gettid,
    Sysno::mmap,
    Sysno::mprotect,
    Sysno::munmap,
    Sysno::open,
    Sysno::poll,
    Sysno::prlimit64,
    Sysno::readlink,
    Sysno::rseq,
    Sysno::rt_sigaction,
    Sysno::sched_getaffinity,
    Sysno::set_robust_list,
    Sysno::set_tid_address,
    Sysno::sigaltstack,
    Sysno::uname,
];

/// What a tracee's message is while it stops at the entry of a system call, Linux 5.3: <linux/ptrace.h>.
const PTRACE_EVENTMSG_SYSCALL_ENTRY: libc::c_long = 1;

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL before the call.
    Kill,
    /// It is not made and fails.
    Fail(Errno),
}

/// They always succeed, or never return: their man pages know no error.
const CANNOT_FAIL: [Sysno; 12] = [
    Sysno::exit,
    Sysno::exit_group,
    Sysno::rt_sigreturn,
    Sysno::getpid,
    Sysno::gettid,
    Sysno::getppid,
    Sysno::getuid,
    Sysno::geteuid,
    Sysno::getgid,
    Sysno::getegid,
    Sysno::set_tid_address,
    Sysno::umask,
];

impl Fault {
    /// Whether the kernel could let it happen to this call.
    pub(crate) fn can_strike(self, call: Sysno) -> bool {
        match (self, call) {
            (Self::Kill, _) => true,
            // std ends the process at any other: its hash maps are seeded with it.
            (Self::Fail(errno), Sysno::getrandom) => matches!(errno, Errno::ENOSYS | Errno::EINTR),
            // The same here: there is no other for a sleep.
            (Self::Fail(errno), Sysno::clock_nanosleep) => errno == Errno::EINTR,
            // The same for a directory's. Nothing that we close is written late, which is what its other errors are for.
            (Self::Fail(errno), Sysno::close) => errno == Errno::EINTR,
            (Self::Fail(_), call) => !CANNOT_FAIL.contains(&call),
        }
    }
}

/// Which calls it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    None,
    /// Call `ordinal` of `process`.
    One(usize, usize, Fault),
    /// The first that it can happen to of all calls from this one on.
    From(usize, Fault),
    /// All of this name, as on a kernel that does not have it.
    Each(Sysno, Errno),
}

impl Which {
    /// What happens to the call at `point`, before which there were so many.
    fn fault(self, point: Point, before: usize) -> Option<Fault> {
        match self {
            Self::From(first, fault) if before >= first => Some(fault),
            Self::One(process, ordinal, fault) if (process, ordinal) == (point.process, point.ordinal) => Some(fault),
            Self::Each(call, errno) if call == point.call => Some(Fault::Fail(errno)),
            Self::None | Self::One(..) | Self::From(..) | Self::Each(..) => None,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kill => f.write_str("KILL"),
            Self::Fail(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// The processes under trace. The thread that makes it must be the one that uses it.
#[derive(Debug)]
pub(crate) struct Tracer {
    tracees: BTreeMap<Pid, Tracee>,
    born: usize,
    which: Which,
    /// Every call that was seen.
    pub(crate) points: Vec<Point>,
    /// Where the fault happened.
    pub(crate) struck: Option<Point>,
    /// It happened to a write(2) to standard error: what is wrong cannot be said.
    pub(crate) silenced: bool,
}

#[derive(Debug)]
struct Tracee {
    process: usize,
    calls: usize,
    starting: bool,
    /// The call that the process is in has to end with this.
    result: Option<Errno>,
}

impl Tracer {
    /// One that lets faults happen.
    pub(crate) fn new(which: Which) -> Self {
        Self { tracees: BTreeMap::new(), born: 0, which, points: Vec::new(), struck: None, silenced: false }
    }

    /// From now on a process is traced, with the children it will have.
    pub(crate) fn seize(&mut self, pid: Pid) {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(pid, options).unwrap();
        self.add(pid);
    }

    /// As [`Tracer::seize`], for a process at work: stops it so that its next system calls are seen.
    pub(crate) fn seize_running(&mut self, pid: Pid) {
        self.seize(pid);
        ptrace::interrupt(pid).unwrap();
    }

    fn add(&mut self, pid: Pid) {
        let process = self.born;
        self.tracees.entry(pid).or_insert_with(|| {
            self.born += 1;
            Tracee { process, calls: 0, starting: false, result: None }
        });
    }

    /// Serves the traced processes until `root`, a child of ours, has ended (its status is left to be waited for), then lets the
    /// others go. One that hangs is killed: false.
    pub(crate) fn follow(&mut self, root: Pid) -> bool {
        let (ended, watched) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            let hangs = watched.recv_timeout(deadline()) == Err(mpsc::RecvTimeoutError::Timeout);
            if hangs {
                kill(root, Signal::SIGKILL).unwrap();
            }
            hangs
        });
        // Only what this thread traces or has made: the other tests have children too.
        let ours = WaitPidFlag::__WALL | WaitPidFlag::from_bits_retain(libc::__WNOTHREAD);
        let look = ours | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        loop {
            let seen = waitid(Id::All, look).unwrap();
            let pid = seen.pid().unwrap();
            if pid == root && matches!(seen, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                break;
            }
            let status = waitpid(pid, Some(ours)).unwrap();
            self.serve(pid, status);
        }
        self.tracees.remove(&root);
        self.release();
        drop(ended);
        !watchdog.join().unwrap()
    }

    fn serve(&mut self, pid: Pid, status: WaitStatus) {
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                self.tracees.remove(&pid);
            }
            WaitStatus::PtraceSyscall(_) => {
                self.at_call(pid);
                go_on(pid, None);
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                if is_runtime(pid) {
                    self.tracees.get_mut(&pid).unwrap().starting = true;
                    go_on(pid, None);
                } else if self.points.is_empty() {
                    // The shell in front: that it was spawned is known before this is.
                    ptrace::cont(pid, None).unwrap();
                } else {
                    self.let_go(pid, None);
                }
            }
            WaitStatus::PtraceEvent(_, _, event) => {
                let births = [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE];
                if births.contains(&event)
                    && let Ok(child) = ptrace::getevent(pid)
                {
                    self.add(Pid::from_raw(i32::try_from(child).unwrap()));
                }
                go_on(pid, None);
            }
            WaitStatus::Stopped(_, signal) => go_on(pid, signal),
            other => panic!("{other:?}"),
        }
    }

    fn at_call(&mut self, pid: Pid) {
        // A child may stop before its parent tells of the birth.
        self.add(pid);
        let tracee = self.tracees.get_mut(&pid).unwrap();
        let (Ok(message), Ok(mut registers)) = (ptrace::getevent(pid), ptrace::getregs(pid)) else { return };
        if message != PTRACE_EVENTMSG_SYSCALL_ENTRY {
            if let Some(errno) = tracee.result.take() {
                registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                let _killed_meanwhile = ptrace::setregs(pid, registers);
            }
            return;
        }
        let number = usize::try_from(registers.orig_rax).unwrap();
        let call = Sysno::new(number).unwrap_or_else(|| panic!("system call {number}"));
        tracee.starting &= STARTING.contains(&call);
        let point = Point { process: tracee.process, ordinal: tracee.calls, call, starting: tracee.starting };
        tracee.calls += 1;
        let before = self.points.len();
        self.points.push(point);
        // The n-th call is not the same one in each run.
        let fault = self.which.fault(point, before).filter(|fault| fault.can_strike(call));
        let Some(fault) = fault.filter(|_| self.struck.is_none() || matches!(self.which, Which::Each(..))) else {
            return;
        };
        self.struck = Some(point);
        self.silenced |= call == Sysno::write && registers.rdi == 2;
        match fault {
            Fault::Kill => kill(pid, Signal::SIGKILL).unwrap(),
            Fault::Fail(errno) => {
                tracee.result = Some(errno);
                // close(2) closes whatever it says. Of the others none is made: no call has this number.
                if call != Sysno::close {
                    registers.orig_rax = u64::MAX;
                }
                let _killed_meanwhile = ptrace::setregs(pid, registers);
            }
        }
    }

    fn let_go(&mut self, pid: Pid, signal: Option<Signal>) {
        // Fails when the process has been killed meanwhile.
        let _gone = ptrace::detach(pid, signal);
        self.tracees.remove(&pid);
    }

    /// Ends the trace of all that are left.
    fn release(&mut self) {
        loop {
            // Those too that nobody told of: their parent was killed, or is let go below, in the moment of their birth.
            traced_by_this_thread().for_each(|pid| self.add(pid));
            if self.tracees.is_empty() {
                return;
            }
            for pid in self.tracees.keys().copied().collect::<Vec<_>>() {
                // Fails when it has ended; then the wait below tells so.
                let _ended = ptrace::interrupt(pid);
                match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::Stopped(_, signal)) => self.let_go(pid, Some(signal)),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => {
                        self.tracees.remove(&pid);
                    }
                    Ok(_) => self.let_go(pid, None),
                }
            }
        }
    }
}

/// The processes that are traced by this thread and have not ended, as /proc tells.
fn traced_by_this_thread() -> impl Iterator<Item = Pid> {
    let tracer = format!("TracerPid:\t{}", gettid());
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.map(Pid::from_raw).filter(move |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == tracer) && !status.contains("\nState:\tZ")
    })
}

fn go_on(pid: Pid, signal: impl Into<Option<Signal>>) {
    // Fails when the process has been killed meanwhile.
    let _gone = ptrace::syscall(pid, signal);
}

/// Whether what a process has begun to execute is the runtime, and no program of a container or hook.
fn is_runtime(pid: Pid) -> bool {
    let executed = format!("/proc/{pid}/exe");
    let is_copy = fs::read_link(&executed).is_ok_and(|path| path.to_string_lossy().contains("memfd:tare"));
    let same = |file: fs::Metadata| {
        let program = fs::metadata(crate::program()).unwrap();
        (file.dev(), file.ino()) == (program.dev(), program.ino())
    };
    is_copy || fs::metadata(&executed).is_ok_and(same)
}
