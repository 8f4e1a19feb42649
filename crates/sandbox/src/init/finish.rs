//! The last stretch, the same for init and for exec: from a process in its namespaces to the program.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use nix::unistd::{Gid, Pid, Uid, chdir, fchown, getcwd};

use super::fifo::ExecFifo;
use super::stage_failed;
use super::wire::{FromStage, StageEnd, ToStage};
use crate::caps;
use crate::error::{CallContext, Context};
use crate::memory_policy::MemoryPolicy;
use crate::plan::process::{ProcessPlan, Rlimit, Scheduling};
use crate::seccomp::Filter;
use crate::step::Step;
use crate::sys::ids::{setgroups, setresgid, setresuid};
use crate::sys::{self, exec::exit_child};
use crate::{Error, Result, personality, timing};

/// How much of the container's `/etc/passwd` is looked at.
const PASSWD_BYTES: u64 = 1 << 20;

/// Whether the process is in a user namespace that is not the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// It is: only the parent may raise limits.
    Own,
    /// It is not.
    Host,
}

impl UserNamespace {
    /// From a plain answer.
    pub fn of(own: bool) -> Self {
        if own { Self::Own } else { Self::Host }
    }
}

/// A process that has become all that the configuration describes, but for its program.
#[derive(Debug)]
pub struct Prepared {
    program: CString,
    env: Vec<CString>,
    listener: Listener,
}

/// Who hears of a failure: the parent over the wire, or `start` over the fifo.
#[derive(Debug)]
enum Listener {
    Parent(StageEnd),
    Starter(ExecFifo),
}

/// Becomes the process that the configuration describes, but for its program, and waits for the word. `let_in` is called
/// when it is that process.
///
/// # Errors
/// What failed, with the wire to report it on.
pub fn become_process(
    process: &ProcessPlan,
    user_namespace: UserNamespace,
    preserve_fds: u32,
    mut fifo: Option<ExecFifo>,
    mut wire: StageEnd,
    let_in: impl Fn() -> Result<()>,
) -> Result<Prepared, (StageEnd, Error)> {
    let mut ready = || {
        // After all that is executed for the container, but for the startContainer hooks, which are of it.
        process.labels.set_on_exec().at(Step::Attributes)?;
        // Before the working directory is entered: no descriptor of the host may be a way out (CVE-2024-21626). And
        // before the limits, which may leave no room to move one.
        match &mut fifo {
            Some(fifo) => sys::fd::close_others(preserve_fds, [wire.fd_mut(), fifo.fd_mut()]),
            None => sys::fd::close_others(preserve_fds, [wire.fd_mut()]),
        }
        .call(|| "close_range()")
        .at(Step::Credentials)?;
        match user_namespace {
            _ if process.rlimits.is_empty() && process.scheduling == Scheduling::default() => {}
            UserNamespace::Own => wire.ask(&FromStage::SetLimits).map(drop)?,
            UserNamespace::Host => {
                set_rlimits(Pid::from_raw(0), &process.rlimits)?;
                process.scheduling.set(Pid::from_raw(0)).at(Step::Attributes)?;
            }
        }
        // After the cgroup, whose cpuset has a say in both policy and nodes.
        process.personality.map_or(Ok(()), personality::set).at(Step::Attributes)?;
        process.memory_policy.as_ref().map_or(Ok(()), MemoryPolicy::set).at(Step::Attributes)?;
        timing::lap(Step::Attributes);
        let mut env = process.env.clone();
        add_home(&mut env, process.uid);
        let explain = |error| super::diagnose::search(&process.args[0], &env, error);
        let find = || find_program(&process.args[0], &env).map_err(explain).at(Step::FindProgram);
        let (program, warning) = become_user(process, &wire, find).at(Step::Credentials)?;
        if !warning.is_empty() {
            // The parent's to log: our descriptor of the log is closed by now.
            wire.send(&FromStage::Warning(warning))?;
        }
        timing::lap(Step::Credentials);
        // Before the filter, which may forbid to look at the clock.
        wire.send_laps()?;
        if process.no_new_privileges
            && let Some(filter) = process.seccomp.as_ref().filter(|filter| filter.listener().is_some())
        {
            // The parent is needed for the descriptor, and at the word to start it may be gone.
            load_filter(filter, &wire)?;
        }
        let_in()?;
        Ok((program, env, wire.ask(&FromStage::Ready)?))
    };
    match (ready(), fifo) {
        (Ok((program, env, ToStage::AwaitStart)), Some(fifo)) => {
            Ok(Prepared { program, env, listener: Listener::Starter(fifo) })
        }
        (Ok((program, env, _)), _) => Ok(Prepared { program, env, listener: Listener::Parent(wire) }),
        (Err(error), _) => Err((wire, error)),
    }
}

impl Prepared {
    /// Waits for `start`, if that is who gives the word.
    ///
    /// # Errors
    /// The call that failed.
    pub fn await_start(&self) -> Result<()> {
        let Listener::Starter(fifo) = &self.listener else { return Ok(()) };
        sys::signal::exit_when_asked().call(|| "sigaction()")?;
        fifo.wait()
    }

    /// Replaces the process by the program. Returns only on failure.
    pub fn execute(&self, process: &ProcessPlan) -> Error {
        if let Err(error) = sys::signal::reset().call(|| "sigaction()") {
            return error;
        }
        if process.no_new_privileges
            && let Some(filter) = process.seccomp.as_ref().filter(|filter| filter.listener().is_none())
            // Last: from here on every call is the profile's to refuse.
            && let Err(error) = filter.load()
        {
            return error;
        }
        let errno = sys::exec::execve(&self.program, &process.args, &self.env);
        super::diagnose::exec(&self.program, errno)
    }

    /// Reports a failure, and ends the process.
    pub fn fail(&self, error: Error) -> ! {
        match &self.listener {
            Listener::Parent(wire) => stage_failed(wire, error),
            Listener::Starter(fifo) => {
                // A `start` that is gone cannot be told.
                let _gone = fifo.send(&FromStage::Failed(error));
                exit_child(1)
            }
        }
    }
}

/// Sets the resource limits of process `pid`; 0 is the caller.
///
/// # Errors
/// The limit that was refused, by name.
pub fn set_rlimits(pid: Pid, rlimits: &[Rlimit]) -> Result<()> {
    for limit in rlimits {
        sys::rlimit::set(pid, limit.resource, limit.soft, limit.hard)
            .call(|| format!("prlimit({}, soft {}, hard {})", limit.typ, limit.soft, limit.hard))
            .during(|| "process.rlimits")
            .at(Step::Rlimits)?;
    }
    Ok(())
}

/// Loads a filter, and has the parent hand its descriptor to the listener if there is one.
fn load_filter(filter: &Filter, wire: &StageEnd) -> Result<()> {
    if let Some(notifications) = filter.load()? {
        // The parent takes a duplicate. Ours is closed: were it open, a listener that dies would never be missed.
        wire.ask(&FromStage::Listener(notifications.as_raw_fd()))?;
    }
    Ok(())
}

/// Becomes the user of the configuration, in its working directory, with its capabilities and no more. Returns the program
/// that `find` finds with the rights of the user, and a line of what had to be left out, empty if nothing.
///
/// # Errors
/// The call that failed.
fn become_user(
    process: &ProcessPlan,
    wire: &StageEnd,
    find: impl Fn() -> Result<CString>,
) -> Result<(CString, String)> {
    umask(Mode::from_bits_truncate(process.umask));
    give_stdio(process.uid)?;
    // Here with the privilege to enter any directory, below once more as the user.
    let entered = chdir(&process.cwd);
    // While CAP_SETPCAP is in force.
    process.capabilities.limit_bounding()?;
    nix::sys::prctl::set_keepcaps(true).call(|| "prctl(PR_SET_KEEPCAPS)")?;
    set_groups(&process.additional_gids).during(|| "process.user.additionalGids")?;
    setresgid(process.gid)
        .map_err(|errno| unmapped(format!("setresgid({})", process.gid), errno))
        .during(|| "process.user.gid")?;
    setresuid(process.uid)
        .map_err(|errno| unmapped(format!("setresuid({})", process.uid), errno))
        .during(|| "process.user.uid")?;
    match entered {
        // On a network file system the user may enter what root may not.
        Err(Errno::EACCES | Errno::EPERM) => chdir(&process.cwd),
        entered => entered,
    }
    .call(|| format!("chdir({:?})", process.cwd))
    .during(|| "process.cwd")?;
    check_cwd()?;
    if let Some(filter) = process.seccomp.as_ref().filter(|_| !process.no_new_privileges) {
        process.capabilities.put_effective_in_force()?;
        let program = find()?;
        // With CAP_SYS_ADMIN, which the kernel asks of who keeps the way to privileges; so before capabilities are
        // dropped, but after all else that a profile might refuse.
        caps::put_permitted_in_force()?;
        load_filter(filter, wire)?;
        return Ok((program, process.capabilities.apply()?));
    }
    let warning = process.capabilities.apply()?;
    if process.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().call(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
    }
    Ok((find()?, warning))
}

/// Replaces the supplementary groups.
///
/// Where only the caller's own group is mapped, nobody may: the caller's groups stay then, as nobody's. That is an error
/// only for who wants others.
fn set_groups(gids: &[Gid]) -> Result<()> {
    match setgroups(gids) {
        Err(Errno::EPERM) if gids.is_empty() => Ok(()),
        Err(Errno::EPERM) => {
            let error = Error::call(format!("setgroups({gids:?})"), Errno::EPERM);
            Err(error.hinted("map more than your own group in linux.gidMappings: newgidmap(1) and /etc/subgid"))
        }
        set => set.map_err(|errno| unmapped(format!("setgroups({gids:?})"), errno)),
    }
}

/// The error of a call that takes an id: EINVAL means one that is nobody's in this user namespace.
fn unmapped(call: String, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL => Error::call(format!("{call}: not mapped in the container's user namespace"), errno),
        _ => Error::call(call, errno),
    }
}

/// Refuses a working directory outside the root: CVE-2024-21626, where a leaked descriptor led to the host.
fn check_cwd() -> Result<()> {
    match getcwd() {
        // The kernel prints a directory that the root does not reach as "(unreachable)/…".
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Error::Refused(
            "process.cwd: the working directory is outside the container's root: possible container breakout".into(),
        )),
        Err(errno) => Err(Error::call("getcwd()", errno)),
    }
}

/// Gives standard input, output and error to the user, so that it can open `/dev/stdout`; never `/dev/null`.
fn give_stdio(uid: Uid) -> Result<()> {
    for number in 0..3 {
        let stdio = stdio(number);
        let Ok(stat) = fstat(stdio) else { continue };
        if is_null(&stat) || stat.st_uid == uid.as_raw() {
            continue;
        }
        match fchown(stdio, Some(uid), None) {
            // A descriptor of a file system that has no owners, or that is not ours to give: it works without.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            Err(errno) => return Err(Error::call(format!("fchown({number}, {uid})"), errno)),
        }
    }
    Ok(())
}

/// Replaces descriptors of the host's `/dev/null` by the container's, if that is a real one: what a container holds should
/// be of its own mounts.
///
/// # Errors
/// The call that failed.
pub fn reopen_null() -> Result<()> {
    let mut own = None;
    for number in 0..3 {
        if !fstat(stdio(number)).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        if own.is_none() {
            // Not through a link: it could lead to any device the container has (CVE-2026-88265).
            let opened = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open("/dev/null");
            own = opened.ok().filter(|file| fstat(file).is_ok_and(|stat| is_null(&stat))).map(Into::into);
        }
        let Some(own) = &own else { return Ok(()) };
        sys::fd::become_stdio(own, number).call(|| format!("dup2(null, {number})"))?;
    }
    Ok(())
}

/// Whether this is the null device: a character device 1:3, and not merely some file with that device number.
pub fn is_null(stat: &nix::sys::stat::FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
}

fn stdio(number: i32) -> BorrowedFd<'static> {
    match number {
        0 => sys::fd::stdin(),
        1 => sys::fd::stdout(),
        _ => sys::fd::stderr(),
    }
}

/// Adds HOME when the environment has none, from the container's `/etc/passwd`, else `/`.
fn add_home(env: &mut Vec<CString>, uid: Uid) {
    let is_home = |variable: &CString| variable.as_bytes().starts_with(b"HOME=");
    if env.iter().any(|variable| is_home(variable) && variable.as_bytes().len() > 5) {
        return;
    }
    env.retain(|variable| !is_home(variable));
    let home = home_of(uid).unwrap_or_else(|| b"/".to_vec());
    env.extend(CString::new([b"HOME=".as_slice(), &home].concat()));
}

/// Field 6 of the line of `uid` in the container's `/etc/passwd`, passwd(5). The file is hostile: it may be a fifo that
/// never opens or larger than memory.
fn home_of(uid: Uid) -> Option<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd").ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    // Most fit, and are read in one go.
    let mut text = Vec::with_capacity(4096);
    file.take(PASSWD_BYTES).read_to_end(&mut text).ok()?;
    let wanted = uid.to_string();
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.nth(2)? == wanted.as_bytes()).then(|| fields.nth(2).map(<[u8]>::to_vec))?
    })
}

/// The file to execute for `args[0]`, searched for as execvp(3) would with the PATH of `env`.
///
/// # Errors
/// The texts of runc, which clients match: `executable file not found in $PATH`, `no such file or directory`,
/// `permission denied`.
fn find_program(name: &CStr, env: &[CString]) -> Result<CString> {
    let shown = name.to_string_lossy();
    let refuse = |why: &str| Error::Refused(format!("exec: \"{shown}\": {why}"));
    if name.to_bytes().contains(&b'/') {
        return match executable(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(refuse(&format!("stat {shown}: no such file or directory"))),
            Err(Errno::EISDIR) => Err(refuse("is a directory")),
            Err(Errno::EACCES) => Err(refuse("permission denied")),
            Err(errno) => Err(refuse(&errno.to_string())),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let mut denied = false;
    for dir in path.split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { b".".as_slice() } else { dir };
        let candidate = Path::new(std::ffi::OsStr::from_bytes(dir)).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match executable(&candidate) {
            Ok(()) => return CString::new(candidate.as_os_str().as_bytes()).map_err(|_| refuse("contains a NUL byte")),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(refuse(if denied { "permission denied" } else { "executable file not found in $PATH" }))
}

fn executable(path: &Path) -> nix::Result<()> {
    let metadata =
        std::fs::metadata(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let typ = metadata.file_type();
    if typ.is_dir() {
        return Err(Errno::EISDIR);
    }
    if typ.is_fifo() || typ.is_socket() || metadata.mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    // The user's own right, with the effective ids.
    nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, nix::unistd::AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<CString> {
        values.iter().map(|value| CString::new(*value).unwrap()).collect()
    }

    #[test]
    fn a_program_is_found_as_execvp_finds_it() {
        let env = strings(&["PATH=/nowhere:/bin:/usr/bin"]);
        assert!(find_program(c"sh", &env).unwrap().to_bytes().ends_with(b"/sh"));
        assert_eq!(find_program(c"/bin/sh", &[]).unwrap().as_c_str(), c"/bin/sh");
        for (name, text) in [
            (c"no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
            (c"/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
            (c"/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
            (c"/etc", "exec: \"/etc\": is a directory"),
        ] {
            assert_eq!(find_program(name, &env).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn home_is_kept_when_given_and_filled_when_missing_or_empty() {
        let mut env = strings(&["A=1", "HOME=/given"]);
        add_home(&mut env, Uid::from_raw(0));
        assert_eq!(env, strings(&["A=1", "HOME=/given"]));
        let mut env = strings(&["HOME=", "A=1"]);
        add_home(&mut env, Uid::from_raw(0));
        assert_eq!(env, strings(&["A=1", "HOME=/root"]));
        let mut env = Vec::new();
        add_home(&mut env, Uid::from_raw(4_000_000_000));
        assert_eq!(env, strings(&["HOME=/"]));
    }

    #[test]
    fn only_the_null_device_is_null() {
        assert!(is_null(&nix::sys::stat::stat("/dev/null").unwrap()));
        assert!(!is_null(&nix::sys::stat::stat("/dev/zero").unwrap()));
        assert!(!is_null(&nix::sys::stat::stat("/etc/passwd").unwrap()));
    }
}
