//! User namespaces: their id maps, and those that are there for nothing but these.

mod helper;
mod subid;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid, pipe2, read};
use oci_spec::runtime::LinuxIdMapping;

use crate::deadline::{Deadline, TO_MAKE};
pub(crate) use helper::name_of;

use crate::error::{CallContext, Context};
use crate::plan::IdMappings;
use crate::sys::capability;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::path::open;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// One of the two kinds of ids, with what goes by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Users.
    Uid,
    /// Groups.
    Gid,
}

impl Kind {
    /// The file below `/proc/<pid>`.
    fn map_file(self) -> &'static str {
        match self {
            Self::Uid => "uid_map",
            Self::Gid => "gid_map",
        }
    }

    /// The field of the configuration.
    fn field(self) -> &'static str {
        match self {
            Self::Uid => "uidMappings",
            Self::Gid => "gidMappings",
        }
    }

    fn own(self) -> u32 {
        match self {
            Self::Uid => geteuid().as_raw(),
            Self::Gid => getegid().as_raw(),
        }
    }

    fn capability(self) -> u32 {
        match self {
            Self::Uid => CAP_SETUID,
            Self::Gid => CAP_SETGID,
        }
    }
}

/// Whether this process is root neither on the host nor anywhere: another user, or root of a user namespace alone.
pub fn is_rootless() -> bool {
    !geteuid().is_root() || is_inside()
}

/// Whether this process is in a user namespace other than the host's: not every id stands for itself. A kernel without
/// user namespaces has no such file.
pub fn is_inside() -> bool {
    let mut map = [0; 128];
    let read = open("/proc/self/uid_map", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|file| read(file, &mut map));
    // What does not fit is not that of the host.
    read.is_ok_and(|length| !String::from_utf8_lossy(&map[..length]).split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Makes a user namespace with these maps in which no process stays: the file alone keeps it, and what is done with it.
///
/// A namespace begins with a process, so one is forked into it. It waits at a pipe, which closes when the maps are
/// written, and when the runtime is killed.
///
/// # Errors
/// The call that failed; the map that the kernel refuses.
pub fn with_mappings(proof: SingleThreaded, maps: &IdMappings) -> Result<OwnedFd> {
    let (wait, word) = pipe2(OFlag::O_CLOEXEC).call(|| "pipe2()")?;
    let side =
        clone3(proof, libc::CLONE_NEWUSER, None, None).map_err(|errno| refused("clone3(CLONE_NEWUSER)", errno))?;
    let Side::Parent(child) = side else {
        drop(word);
        // Ends without a byte, or is interrupted: there is nothing left to do either way.
        let _end = read(&wait, &mut [0]);
        exit_child(0)
    };
    drop(wait);
    let opened = write_maps(child, maps, "", Deadline::after(TO_MAKE)).and_then(|()| {
        let path = format!("/proc/{child}/ns/user");
        File::open(&path).map(OwnedFd::from).call(|| format!("open({path:?})"))
    });
    drop(word);
    waitpid(child, None).call(|| "waitpid(user namespace)")?;
    opened
}

/// Writes the id maps of the user namespace that `pid` is in, user_namespaces(7). `of` goes before the name of the field
/// in an error.
///
/// Who has the privilege over the ids writes what it likes. Anybody may map the one id that is theirs; for groups at the
/// price of setgroups(2), by which a process could leave a group that denies it something (CVE-2014-8989). What is more
/// than that the setuid helpers newuidmap and newgidmap write, by leave of /etc/subuid and /etc/subgid.
///
/// # Errors
/// The kind of mapping, and what the kernel or the helper says to it; a helper that does not end in time.
pub(crate) fn write_maps(pid: Pid, maps: &IdMappings, of: &str, deadline: Deadline) -> Result<()> {
    for (kind, mappings) in [(Kind::Uid, &maps.uid), (Kind::Gid, &maps.gid)] {
        write_map(pid, kind, mappings, deadline).during(|| format!("{of}{}", kind.field()))?;
    }
    Ok(())
}

fn write_map(pid: Pid, kind: Kind, mappings: &[LinuxIdMapping], deadline: Deadline) -> Result<()> {
    if geteuid().is_root() || is_capable(kind) {
        match write_lines(pid, kind, mappings) {
            // Root without the capability is like any other user.
            Err(error) if error.errno() == Some(Errno::EPERM) && !is_capable(kind) => {}
            done => return done,
        }
    }
    if !is_own_alone(mappings, kind.own()) {
        return helper::write_map(pid, kind, mappings, deadline);
    }
    if kind == Kind::Gid {
        write_once(&format!("/proc/{pid}/setgroups"), b"deny")?;
    }
    write_lines(pid, kind, mappings)
}

fn is_capable(kind: Kind) -> bool {
    capability::get().is_ok_and(|sets| sets.effective >> kind.capability() & 1 == 1)
}

/// Whether the map is that of the caller's own id, which the kernel asks no privilege for.
fn is_own_alone(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [only] if only.size() == 1 && only.host_id() == own)
}

fn write_lines(pid: Pid, kind: Kind, mappings: &[LinuxIdMapping]) -> Result<()> {
    let line =
        |mapping: &LinuxIdMapping| format!("{} {} {}\n", mapping.container_id(), mapping.host_id(), mapping.size());
    let lines: String = mappings.iter().map(line).collect();
    write_once(&format!("/proc/{pid}/{}", kind.map_file()), lines.as_bytes())
}

/// Opens and writes in one call each: these files take one write. On the host, whose /proc no container can change.
pub(crate) fn write_once(path: &str, text: &[u8]) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text))
        .call(|| format!("write({path:?}, {:?})", String::from_utf8_lossy(text)))
}

/// The error of a call that was to make a user namespace, with the switch that forbids it if there is one.
pub(crate) fn refused(call: &str, errno: Errno) -> Error {
    let sysctl = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let error = Error::call(call, errno);
    match reason(errno, sysctl) {
        Some(hint) => error.hinted(hint),
        None => error,
    }
}

/// Why the kernel makes no user namespace, as far as its switches tell. `sysctl` gives the value of one, empty if there
/// is none of that name.
fn reason(errno: Errno, sysctl: impl Fn(&str) -> String) -> Option<String> {
    let is = |name: &str, value: &str| sysctl(name).trim() == value;
    match errno {
        // From the outermost to the innermost; the first that is set is enough.
        Errno::EPERM if is("kernel/unprivileged_userns_clone", "0") => {
            Some("this host lets only root make user namespaces: sysctl kernel.unprivileged_userns_clone=1".into())
        }
        Errno::EPERM | Errno::EACCES if is("kernel/apparmor_restrict_unprivileged_userns", "1") => Some(
            "AppArmor restricts user namespaces on this host: sysctl kernel.apparmor_restrict_unprivileged_userns=0, \
             or a profile for tare that allows userns"
                .into(),
        ),
        Errno::EPERM => Some(
            "a seccomp filter or security module around tare forbids user namespaces, its root is a chroot(2), or its \
             own ids are not mapped"
                .into(),
        ),
        Errno::ENOSPC | Errno::EUSERS if is("user/max_user_namespaces", "0") => {
            Some("user namespaces are switched off on this host: sysctl user.max_user_namespaces=15000".into())
        }
        Errno::ENOSPC | Errno::EUSERS => Some(
            "more user namespaces than sysctl user.max_user_namespaces allows a user, or 32 of them inside each other"
                .into(),
        ),
        Errno::EINVAL => Some("this kernel has no user namespaces: it needs CONFIG_USER_NS".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn ones_own_id_alone_needs_no_helper() {
        assert!(is_own_alone(&[mapping(0, 1000, 1)], 1000));
        assert!(is_own_alone(&[mapping(7, 1000, 1)], 1000));
        assert!(!is_own_alone(&[mapping(0, 1001, 1)], 1000));
        assert!(!is_own_alone(&[mapping(0, 1000, 2)], 1000));
        assert!(!is_own_alone(&[mapping(0, 1000, 1), mapping(1, 100_000, 1)], 1000));
        assert!(!is_own_alone(&[], 1000));
    }

    #[test]
    fn the_switch_that_forbids_user_namespaces_is_named() {
        let with = |set: &'static str, value: &'static str| {
            move |name: &str| if name == set { format!("{value}\n") } else { String::new() }
        };
        for (errno, set, value, word) in [
            (Errno::EPERM, "kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
            (
                Errno::EPERM,
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Errno::EPERM, "kernel/unprivileged_userns_clone", "1", "chroot(2)"),
            (Errno::ENOSPC, "user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
            (Errno::ENOSPC, "user/max_user_namespaces", "5", "inside each other"),
            (Errno::EINVAL, "", "", "CONFIG_USER_NS"),
        ] {
            let reason = reason(errno, with(set, value)).unwrap();
            assert!(reason.contains(word), "{errno} {set}={value}: {reason}");
        }
        assert_eq!(reason(Errno::ENOMEM, with("", "")), None);
    }
}
