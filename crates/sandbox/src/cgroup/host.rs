//! Which hierarchies this host has, where we are in them, and so where a container goes.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::dir::Dir;
use super::{Directory, Driver, Location};
use crate::error::CallContext;
use crate::{Error, Result};

/// Where every distribution mounts its cgroups.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// One line of /proc/self/cgroup: `4:memory:/user`, `9:name=systemd:/`, `0::/init.scope`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    /// `cpu,cpuacct`, `name=systemd`, empty for cgroup2.
    hierarchy: String,
    /// The cgroup we are in, below the root of the cgroup namespace.
    path: PathBuf,
}

/// One cgroup line of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Where it is mounted.
    point: PathBuf,
    /// Which directory of the hierarchy is seen there: not `/` in a container without a cgroup namespace.
    root: PathBuf,
    /// The controllers and the name among the super block's options; None for cgroup2.
    options: Option<Vec<String>>,
}

/// Works out the directories for `cgroups_path` (`linux.cgroupsPath`) on the host whose cgroups are mounted at or below
/// `root`. Absolute: from the hierarchy's root. Relative or absent (then the name is `id`): v1 from our own cgroup, v2
/// from its parent: ours has processes, so it cannot hand controllers to children ("no internal processes").
pub(super) fn locate(root: &Path, cgroups_path: Option<&Path>, id: &str) -> Result<Location> {
    let wanted = cgroups_path.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(id));
    let inner = clean(wanted);
    if inner.as_os_str().is_empty() {
        return Err(Error::Refused(format!("linux.cgroupsPath: {wanted:?} names no cgroup of its own")));
    }
    let place = if wanted.is_absolute() { Place::FromRoot(&inner) } else { Place::FromOwn(&inner) };
    let kind = statfs(root).call(|| format!("statfs({root:?})"))?.filesystem_type();
    let directories = if kind == CGROUP2_SUPER_MAGIC {
        let own =
            || own_cgroups()?.into_iter().find(|own| own.hierarchy.is_empty()).map(|own| seen(root, own)).transpose();
        vec![place_v2(root, place, own)?]
    } else {
        let own = own_cgroups()?;
        let mut mounts = mounts(root, own.len())?;
        // The mount table lists what another mount covers, too. cgroup2 beside v1 is a help, not a need: out of sight it
        // is left alone.
        mounts.retain(|mount| mount.options.is_some() || is_cgroup2(&mount.point));
        place_v1(&own, &mounts, place)
    };
    if directories.is_empty() {
        return Err(Error::Refused(format!("no cgroup hierarchy is mounted below {root:?}")));
    }
    Ok(Location::new(Driver::Cgroupfs, directories))
}

pub(super) fn is_cgroup2(point: &Path) -> bool {
    statfs(point).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// A cleaned path and what it starts from.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    FromRoot(&'a Path),
    FromOwn(&'a Path),
}

/// The path without `.`, `..` and leading slashes, resolved as if `/` were the hierarchy's root: `/../../x` is `x`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Our own cgroup as the mount at `root` shows it. In a container without a cgroup namespace that is mounted from somewhere
/// below the hierarchy's root, and the path would lead nowhere.
fn seen(root: &Path, own: Own) -> Result<Own> {
    if root.join(clean(&own.path)).exists() {
        return Ok(own);
    }
    let mounts = mounts(root, 1)?;
    let path = mounts.iter().find(|mount| mount.options.is_none()).map(|mount| mount.relative(&own.path));
    Ok(Own { path: path.unwrap_or_default(), ..own })
}

fn place_v2(root: &Path, place: Place<'_>, own: impl FnOnce() -> Result<Option<Own>>) -> Result<Directory> {
    let path = match place {
        Place::FromRoot(inner) => root.join(inner),
        Place::FromOwn(inner) => {
            let own = own()?.ok_or_else(|| Error::Refused("/proc/self/cgroup: no line for cgroup2".into()))?;
            let mut parent = clean(&own.path);
            parent.pop();
            root.join(parent).join(inner)
        }
    };
    Ok(Directory { hierarchy: String::new(), path })
}

/// One directory per hierarchy of the kernel that is mounted; cgroup2 last. A hierarchy that is not mounted is left
/// out: a limit that asks for one of its controllers is refused when it is applied.
fn place_v1(own: &[Own], mounts: &[Mount], place: Place<'_>) -> Vec<Directory> {
    let mut directories: Vec<Directory> = own
        .iter()
        // A named hierarchy other than systemd's belongs to whoever made it.
        .filter(|own| !own.hierarchy.starts_with("name=") || own.hierarchy == "name=systemd")
        .filter_map(|own| {
            let mount = mounts.iter().find(|mount| mount.shows(&own.hierarchy))?;
            let path = match place {
                Place::FromRoot(inner) => mount.point.join(inner),
                Place::FromOwn(inner) => mount.point.join(mount.relative(&own.path)).join(inner),
            };
            Some(Directory { hierarchy: own.hierarchy.clone(), path })
        })
        .collect();
    directories.sort_by_key(|directory| directory.hierarchy.is_empty());
    directories
}

impl Mount {
    fn shows(&self, hierarchy: &str) -> bool {
        match &self.options {
            None => hierarchy.is_empty(),
            // Every controller is in one hierarchy only: the first one settles it.
            Some(options) => {
                hierarchy.split(',').next().is_some_and(|first| options.iter().any(|option| option == first))
            }
        }
    }

    /// Where `own` is below the mount point. /proc/self/cgroup counts from the cgroup namespace's root, the mount shows
    /// what is below its own root; a cgroup outside of that cannot be seen, the mount's root is the nearest.
    fn relative(&self, own: &Path) -> PathBuf {
        own.strip_prefix(&self.root).map(clean).unwrap_or_default()
    }
}

fn own_cgroups() -> Result<Vec<Own>> {
    cgroups_of("self")
}

/// Where `process` is in cgroup2, below the root of the cgroup namespace.
pub(super) fn unified_path_of(process: Pid) -> Result<Option<PathBuf>> {
    let unified = cgroups_of(&process.to_string())?.into_iter().find(|own| own.hierarchy.is_empty());
    Ok(unified.map(|own| own.path))
}

fn cgroups_of(process: &str) -> Result<Vec<Own>> {
    // One record, as the files of cgroupfs are.
    let text = Dir::new(&Path::new("/proc").join(process)).read("cgroup")?;
    Ok(text.lines().filter_map(parse_own).collect())
}

fn parse_own(line: &str) -> Option<Own> {
    let (_, rest) = line.split_once(':')?;
    let (hierarchy, path) = rest.split_once(':')?;
    // The kernel's mark on a cgroup that was removed while we are in it.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    Some(Own { hierarchy: hierarchy.into(), path: path.into() })
}

/// Whether each line of a /proc/PID/cgroup, or of a mountinfo, is understood.
#[cfg(fuzzing)]
pub(super) fn read_proc(text: &str) -> bool {
    text.lines().all(|line| parse_own(line).is_some() || parse_mount(line).is_some())
}

/// The cgroup mounts at or below `root`, the first of every hierarchy. Stops reading once `hierarchies` were found: a
/// host's own are near the front, and a busy host has thousands of lines behind them.
fn mounts(root: &Path, hierarchies: usize) -> Result<Vec<Mount>> {
    const FILE: &str = "/proc/self/mountinfo";
    let mut file = File::open(FILE).call(|| format!("open({FILE:?})"))?;
    let mut found: Vec<Mount> = Vec::new();
    let mut pending = Vec::new();
    let mut chunk = [0u8; 8192];
    loop {
        let count = file.read(&mut chunk).call(|| format!("read({FILE:?})"))?;
        pending.extend_from_slice(&chunk[..count]);
        let whole_lines = pending.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        for line in pending[..whole_lines].split(|&byte| byte == b'\n') {
            let mount = std::str::from_utf8(line).ok().and_then(parse_mount);
            if let Some(mount) = mount
                && mount.point.starts_with(root)
                && !found.iter().any(|earlier| earlier.options == mount.options)
            {
                found.push(mount);
            }
        }
        pending.drain(..whole_lines);
        if count == 0 || found.len() >= hierarchies {
            return Ok(found);
        }
    }
}

/// `31 23 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu`, proc_pid_mountinfo(5).
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let options = match right.next()? {
        "cgroup" => Some(right.nth(1)?.split(',').map(str::to_owned).collect()),
        "cgroup2" => None,
        _ => return None,
    };
    let mut left = left.split(' ').skip(3);
    let root = unescape(left.next()?);
    let point = unescape(left.next()?);
    Some(Mount { point, root, options })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut path = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str =
        "9:name=systemd:/\n4:memory:/api/db05\n2:cpu,cpuacct:/\n7:perf_event:/\n6:name=other:/\n0::/user\n";
    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:1 - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
        36 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        42 31 0:39 / /sys/fs/cgroup/other rw - cgroup cgroup rw,name=other\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn own(text: &str) -> Vec<Own> {
        text.lines().filter_map(parse_own).collect()
    }

    fn placed(own_text: &str, mounts: &str, place: Place<'_>) -> Vec<(String, String)> {
        let mounts: Vec<Mount> = mounts.lines().filter_map(parse_mount).collect();
        place_v1(&own(own_text), &mounts, place)
            .into_iter()
            .map(|directory| (directory.hierarchy, directory.path.to_str().unwrap().to_owned()))
            .collect()
    }

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn v1_relative_paths_start_at_our_own_cgroup_of_each_hierarchy() {
        assert_eq!(
            placed(OWN, MOUNTS, Place::FromOwn(Path::new("web"))),
            pairs([
                ("name=systemd", "/sys/fs/cgroup/systemd/web"),
                ("memory", "/sys/fs/cgroup/memory/api/db05/web"),
                ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/web"),
                ("", "/sys/fs/cgroup/unified/user/web"),
            ])
        );
    }

    #[test]
    fn v1_absolute_paths_start_at_the_root_of_each_hierarchy() {
        let placed = placed(OWN, MOUNTS, Place::FromRoot(Path::new("a/b")));
        assert!(placed.contains(&("memory".into(), "/sys/fs/cgroup/memory/a/b".into())));
        assert_eq!(placed.last().unwrap().1, "/sys/fs/cgroup/unified/a/b");
    }

    #[test]
    fn in_a_container_without_a_cgroup_namespace_the_mounts_root_is_taken_off() {
        let own = "4:memory:/docker/1f/inner\n3:cpuset:/elsewhere\n";
        let mounts = "36 31 0:32 /docker/1f /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            37 31 0:33 /docker/1f /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
        assert_eq!(
            placed(own, mounts, Place::FromOwn(Path::new("web"))),
            pairs([("memory", "/sys/fs/cgroup/memory/inner/web"), ("cpuset", "/sys/fs/cgroup/cpuset/web")])
        );
    }

    #[test]
    fn v2_relative_paths_start_at_the_parent_of_our_own_cgroup() {
        let root = Path::new("/sys/fs/cgroup");
        for (line, expected) in [
            ("0::/", "/sys/fs/cgroup/web"),
            ("0::/a", "/sys/fs/cgroup/web"),
            ("0::/a/b (deleted)", "/sys/fs/cgroup/a/web"),
            ("0::/../../x/y", "/sys/fs/cgroup/x/web"),
        ] {
            let placed = place_v2(root, Place::FromOwn(Path::new("web")), || Ok(parse_own(line))).unwrap();
            assert_eq!(placed.path, Path::new(expected), "{line}");
        }
        let placed = place_v2(root, Place::FromRoot(Path::new("a/web")), || panic!("not needed")).unwrap();
        assert_eq!(placed.path, Path::new("/sys/fs/cgroup/a/web"));
    }

    #[test]
    fn a_path_never_leaves_the_hierarchy() {
        for (path, expected) in [
            ("/../../x", "x"),
            ("../x", "x"),
            ("a/../../b", "b"),
            ("/a//./b/", "a/b"),
            ("/a/..", ""),
            (".", ""),
            ("..", ""),
            ("/", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
        for path in ["/", "/..", "a/.."] {
            let error = locate(Path::new(ROOT), Some(Path::new(path)), "web").unwrap_err();
            assert_eq!(error.to_string(), format!("linux.cgroupsPath: {path:?} names no cgroup of its own"));
        }
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c\x"), Path::new(r"/a b\c\x"));
        assert_eq!(parse_mount("1 2 0:3 / /a rw - ext4 /dev/vda rw"), None);
        assert_eq!(parse_mount("garbage"), None);
    }

    #[test]
    fn an_empty_path_is_an_absent_one() {
        let named = locate(Path::new(ROOT), Some(Path::new("")), "web").unwrap();
        assert_eq!(named, locate(Path::new(ROOT), None, "web").unwrap());
        assert!(named.directories.iter().all(|directory| directory.path.ends_with("web")));
    }
}
