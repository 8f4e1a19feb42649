//! `linux.seccomp`: what its types cannot say.

use oci_spec::runtime::{Linux, LinuxSeccomp, LinuxSeccompAction};

use super::{Finding, Result, absolute};

/// A system call has six arguments.
const ARGUMENTS: usize = 6;
/// `MAX_ERRNO`, `<linux/err.h>`: seccomp(2) cuts what is above.
const MOST_ERRNO: u32 = 4095;

pub(super) fn check(linux: &Linux) -> Result {
    let Some(seccomp) = linux.seccomp() else { return Ok(()) };
    errno("/linux/seccomp/defaultErrnoRet", seccomp.default_action(), seccomp.default_errno_ret())?;
    if seccomp.default_action() == LinuxSeccompAction::ScmpActNotify {
        // Nobody could answer: the descriptor to answer on is handed over by calls that would wait for the answer.
        return Err(Finding::new("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    listener(seccomp)?;
    for (index, entry) in seccomp.syscalls().iter().flatten().enumerate() {
        let at = format!("/linux/seccomp/syscalls/{index}");
        if entry.names().is_empty() {
            return Err(Finding::new(format!("{at}/names"), "must not be empty"));
        }
        if let Some(name) = entry.names().iter().position(String::is_empty) {
            return Err(Finding::new(format!("{at}/names/{name}"), "must not be empty"));
        }
        errno(&format!("{at}/errnoRet"), entry.action(), entry.errno_ret())?;
        if entry.action() == LinuxSeccompAction::ScmpActNotify && entry.names().iter().any(|name| name == "write") {
            return Err(Finding::new(format!("{at}/action"), "SCMP_ACT_NOTIFY cannot be used for the write syscall"));
        }
        for (number, arg) in entry.args().iter().flatten().enumerate() {
            if arg.index() >= ARGUMENTS {
                let cause = format!("{}, a system call has arguments 0 to 5", arg.index());
                return Err(Finding::new(format!("{at}/args/{number}/index"), cause));
            }
        }
    }
    Ok(())
}

/// "When the action doesn't support an errno, the runtime MUST print an error and fail."
fn errno(at: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result {
    let most = match action {
        LinuxSeccompAction::ScmpActErrno => MOST_ERRNO,
        // Not an errno to the kernel but a message for the tracer.
        LinuxSeccompAction::ScmpActTrace => u32::from(u16::MAX),
        _ if errno.is_some() => return Err(Finding::new(at, format!("{action} takes no errno"))),
        _ => return Ok(()),
    };
    match errno {
        Some(errno) if errno > most => Err(Finding::new(at, format!("{errno} is above {most}"))),
        _ => Ok(()),
    }
}

fn listener(seccomp: &LinuxSeccomp) -> Result {
    let path = seccomp.listener_path().as_deref().filter(|path| !path.as_os_str().is_empty());
    let entries = || seccomp.syscalls().iter().flatten();
    match path {
        Some(path) => absolute("/linux/seccomp/listenerPath", path),
        None if seccomp.listener_metadata().as_ref().is_some_and(|metadata| !metadata.is_empty()) => {
            Err(Finding::new("/linux/seccomp/listenerMetadata", "needs a listenerPath"))
        }
        None => match entries().position(|entry| entry.action() == LinuxSeccompAction::ScmpActNotify) {
            Some(index) => {
                let pointer = format!("/linux/seccomp/syscalls/{index}/action");
                Err(Finding::new(pointer, "SCMP_ACT_NOTIFY needs a listenerPath in /linux/seccomp"))
            }
            None => Ok(()),
        },
    }
}
