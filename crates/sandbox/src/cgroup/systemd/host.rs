//! Which systemd is ours, and where its cgroups begin.

use std::path::{Path, PathBuf};

use super::unit::Bus;
use crate::cgroup::dir::Dir;
use crate::{Error, Result};

/// sd_booted(3).
const RUNNING: &str = "/run/systemd/system";

/// Root has the systemd that is process 1; a user has their own, and so has who is root in a user namespace of a user:
/// there process 1 is in another one.
pub(super) fn bus() -> Bus {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let same_as_init = namespace("self").is_some_and(|own| namespace("1") == Some(own));
    if nix::unistd::geteuid().is_root() && same_as_init { Bus::System } else { Bus::User }
}

/// Who we are outside of the user namespace that we are in: the first line of /proc/self/uid_map that has our uid.
pub(super) fn outer_uid() -> u32 {
    let uid = nix::unistd::geteuid().as_raw();
    let maps = Dir::new(Path::new("/proc/self")).read("uid_map").unwrap_or_default();
    map_uid(uid, &maps).unwrap_or(uid)
}

fn map_uid(uid: u32, maps: &str) -> Option<u32> {
    maps.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inner, outer, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let offset = uid.checked_sub(inner).filter(|offset| *offset < count)?;
        outer.checked_add(offset)
    })
}

/// Refuses a host without systemd, before anything is made. Who says where the bus is knows that one is there.
pub(super) fn require_systemd(bus: Bus) -> Result<()> {
    let given = match bus {
        Bus::System => "DBUS_SYSTEM_BUS_ADDRESS",
        Bus::User => "DBUS_SESSION_BUS_ADDRESS",
    };
    if Path::new(RUNNING).exists() || std::env::var_os(given).is_some() {
        return Ok(());
    }
    Err(Error::Refused(format!("--systemd-cgroup: systemd does not run on this host: there is no {RUNNING:?}")))
}

/// The cgroup below which systemd makes the cgroups of its slices, as it is seen from here: the root usually.
pub(super) fn base(bus: Bus) -> PathBuf {
    let read = |of: &str| Dir::new(&Path::new("/proc").join(of)).read("cgroup").unwrap_or_default();
    match bus {
        // systemd itself is in init.scope below it.
        Bus::System => above_init_scope(&read("1")),
        Bus::User => of_user(&read("self"), outer_uid()),
    }
}

/// The line of /proc/PID/cgroup that is systemd's: its own hierarchy of v1, else cgroup2.
fn systemds_line(text: &str) -> Option<&Path> {
    let line = |prefix: &str| {
        text.lines().find_map(|line| line.split_once(':').and_then(|(_, rest)| rest.strip_prefix(prefix)))
    };
    line("name=systemd:").or_else(|| line(":")).map(Path::new)
}

fn above_init_scope(text: &str) -> PathBuf {
    match systemds_line(text) {
        Some(path) if path.ends_with("init.scope") => path.parent().unwrap_or(Path::new("/")).to_path_buf(),
        _ => "/".into(),
    }
}

/// A user's systemd is a service of the host's. Who was started by it is below; who has logged in is beside.
fn of_user(text: &str, uid: u32) -> PathBuf {
    let service = format!("user@{uid}.service");
    let own = systemds_line(text).unwrap_or(Path::new("/"));
    match own.ancestors().find(|ancestor| ancestor.ends_with(&service)) {
        Some(service) => service.to_path_buf(),
        None => PathBuf::from(format!("/user.slice/user-{uid}.slice/{service}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_uid_outside_is_the_mapped_one() {
        assert_eq!(map_uid(0, "         0       1000          1\n         1     100000      65536\n"), Some(1000));
        assert_eq!(map_uid(5, "0 1000 1\n1 100000 65536\n"), Some(100_004));
        assert_eq!(map_uid(0, "0 0 4294967295\n"), Some(0));
        assert_eq!(map_uid(7, "0 0 1\n"), None);
    }

    #[test]
    fn the_cgroups_of_systemd_are_where_it_is() {
        for (text, base) in [
            ("0::/init.scope\n", "/"),
            ("0::/docker/ab/init.scope\n", "/docker/ab"),
            ("5:name=systemd:/a/init.scope\n4:memory:/x\n0::/b/init.scope\n", "/a"),
            ("0::/\n", "/"),
            ("", "/"),
        ] {
            assert_eq!(above_init_scope(text), Path::new(base), "{text}");
        }
        let service = "/user.slice/user-7.slice/user@7.service";
        for text in ["0::/user.slice/user-7.slice/session-1.scope\n", &format!("0::{service}/app.slice/x.scope\n")] {
            assert_eq!(of_user(text, 7), Path::new(service));
        }
    }
}
