//! newuidmap(1) and newgidmap(1): what writes the maps that a user may not write itself.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Pid, getuid};
use oci_spec::runtime::LinuxIdMapping;

use super::Kind;
use super::subid::{Range, missing, ranges_of};
use crate::deadline::Deadline;
use crate::error::Context;
use crate::sys::path::has_xattr;
use crate::{Error, Result, hook};

impl Kind {
    fn helper(self) -> &'static str {
        match self {
            Self::Uid => "newuidmap",
            Self::Gid => "newgidmap",
        }
    }

    fn grants(self) -> &'static str {
        match self {
            Self::Uid => "/etc/subuid",
            Self::Gid => "/etc/subgid",
        }
    }

    fn usermod_option(self) -> &'static str {
        match self {
            Self::Uid => "--add-subuids",
            Self::Gid => "--add-subgids",
        }
    }
}

/// Has the helper write the map of `pid`.
///
/// # Errors
/// There is none; what it says, and what it lacks; it does not end in time.
pub(super) fn write_map(pid: Pid, kind: Kind, mappings: &[LinuxIdMapping], deadline: Deadline) -> Result<()> {
    let name = kind.helper();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = find(name, &path) else {
        let error = Error::Refused(format!("{}: {name} is needed and not in PATH", describe(mappings)));
        let package = "Debian and Ubuntu: uidmap; Fedora: shadow-utils; Alpine: shadow-uidmap";
        return Err(error.hinted(format!("install it ({package}), or map your own id alone")));
    };
    let numbers = mappings.iter().flat_map(|mapping| [mapping.container_id(), mapping.host_id(), mapping.size()]);
    let mut command = Command::new(&program);
    command.arg(pid.to_string()).args(numbers.map(|number| number.to_string()));
    let (status, output) = hook::complete(&mut command, b"", deadline).during(|| name)?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output);
    let said = said.trim().replace('\n', " | ");
    let said = said.strip_prefix(&format!("{name}: ")).unwrap_or(&said);
    let error = Error::Refused(format!("{}: {name}: {said}", describe(mappings)));
    match lacking(kind, mappings).or_else(|| powerless(&program)) {
        Some(hint) => Err(error.hinted(hint)),
        None => Err(error),
    }
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|path| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}

/// The host's ids of a map: `100000-165535`.
fn describe(mappings: &[LinuxIdMapping]) -> String {
    let range = |mapping: &LinuxIdMapping| {
        let range = Range { first: mapping.host_id().into(), count: mapping.size().into() };
        words(range)
    };
    format!("host ids {}", mappings.iter().map(range).collect::<Vec<_>>().join(", "))
}

fn words(range: Range) -> String {
    match range.count {
        0 | 1 => range.first.to_string(),
        count => format!("{}-{}", range.first, range.first + count - 1),
    }
}

/// The line that is missing in /etc/subuid or /etc/subgid.
fn lacking(kind: Kind, mappings: &[LinuxIdMapping]) -> Option<String> {
    let uid = getuid();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = name_of(&passwd, uid.as_raw());
    let grants = kind.grants();
    let text = std::fs::read_to_string(grants).unwrap_or_default();
    let missing = missing(mappings, kind.own(), &ranges_of(&text, name.unwrap_or_default(), uid.as_raw()))?;
    // Whom another name service knows has a name too: a line may give the number instead.
    let name = name.map_or_else(|| uid.to_string(), str::to_owned);
    Some(format!(
        "{grants} does not grant {} to {name}: add the line {name}:{}:{} (usermod {} {} {name})",
        words(missing),
        missing.first,
        missing.count,
        kind.usermod_option(),
        words(Range { count: missing.count.max(2), ..missing }),
    ))
}

/// The name of a user, passwd(5).
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

/// Why the helper has no privilege.
fn powerless(program: &Path) -> Option<String> {
    if nix::sys::prctl::get_no_new_privs().unwrap_or(false) {
        return Some(format!("no_new_privs is set on tare's caller: {program:?} gets no privileges"));
    }
    if statvfs(program).is_ok_and(|found| found.flags().contains(FsFlags::ST_NOSUID)) {
        return Some(format!("{program:?} is on a file system mounted nosuid"));
    }
    let metadata = program.metadata().ok()?;
    let is_setuid = metadata.permissions().mode() & 0o4000 != 0 && metadata.uid() == 0;
    let has_capabilities = has_file_capabilities(program);
    (!is_setuid && !has_capabilities)
        .then(|| format!("{program:?} has neither the setuid bit nor file capabilities: chmod u+s it as root"))
}

/// What Fedora and others give the helpers in place of the setuid bit, capabilities(7).
fn has_file_capabilities(program: &Path) -> bool {
    CString::new(program.as_os_str().as_bytes()).is_ok_and(|path| has_xattr(&path, c"security.capability"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn a_map_is_described_by_its_host_ids() {
        let mapping =
            |host: u32, size: u32| LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(size).build();
        let map = [mapping(1000, 1).unwrap(), mapping(100_000, 65_536).unwrap()];
        assert_eq!(describe(&map), "host ids 1000, 100000-165535");
    }

    #[test]
    fn a_user_has_the_name_that_passwd_gives_the_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nann:x:1000:1001:,:/home/ann:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("ann"));
        assert_eq!(name_of(passwd, 1001), None);
    }

    #[test]
    fn a_helper_is_an_executable_file_in_path() {
        assert!(find("sh", OsStr::new("/nowhere:/bin")).is_some());
        assert_eq!(find("passwd", OsStr::new("/etc")), None);
        assert_eq!(find("etc", OsStr::new("/")), None);
        assert_eq!(find("sh", OsStr::new("")), None);
    }
}
