//! Which cgroups are CRIU's to save and to restore: the container's, and never anybody else's.

use std::path::Path;

use nix::unistd::Pid;

use super::rpc::{CgroupMode, CgroupRoot};
use crate::cgroup::Directory;
use crate::error::CallContext;
use crate::{Error, Result};

/// How CRIU is to treat the cgroups of `process`, whose container has `directories`: as `wanted`, by default
/// [`CgroupMode::Soft`]. CRIU takes the cgroup of a process, in every hierarchy, with all below it: where that is not the
/// container's it would write the limits of others.
///
/// # Errors
/// A mode is wanted that cannot be had so.
pub fn mode(wanted: Option<CgroupMode>, process: Pid, directories: &[Directory]) -> Result<CgroupMode> {
    let all_own = lines(&text(process)?).all(|(hierarchy, path)| is_own(hierarchy, path, directories));
    match wanted {
        Some(mode) if all_own || mode == CgroupMode::Ignore => Ok(mode),
        None if all_own => Ok(CgroupMode::Soft),
        None => Ok(CgroupMode::Ignore),
        Some(_) => Err(Error::Refused(
            "--manage-cgroups-mode: the container has no cgroup of its own in every hierarchy: only ignore is possible"
                .into(),
        )),
    }
}

/// Where `process` is in each hierarchy, for each of its controllers.
///
/// # Errors
/// The read that failed.
pub fn roots(process: Pid) -> Result<Vec<CgroupRoot>> {
    let text = text(process)?;
    let roots = lines(&text).flat_map(|(hierarchy, path)| {
        hierarchy.split(',').map(move |name| CgroupRoot { ctrl: Some(name.to_owned()), path: path.to_owned() })
    });
    Ok(roots.collect())
}

fn text(process: Pid) -> Result<String> {
    let path = format!("/proc/{process}/cgroup");
    std::fs::read_to_string(&path).call(|| format!("read({path:?})"))
}

/// `4:cpu,cpuacct:/web`: hierarchy and path of each line, cgroups(7).
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// Whether the path is the container's directory in this hierarchy, or below it.
fn is_own(hierarchy: &str, path: &str, directories: &[Directory]) -> bool {
    let Some(directory) = directories.iter().find(|directory| directory.hierarchy == hierarchy) else { return false };
    let above = Path::new(path).ancestors().filter_map(|path| path.strip_prefix("/").ok());
    above.filter(|path| !path.as_os_str().is_empty()).any(|path| directory.path.ends_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_the_containers_if_it_is_its_directory_or_below() {
        let directory = |hierarchy: &str, path: &str| Directory { hierarchy: hierarchy.into(), path: path.into() };
        let directories =
            [directory("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user/web"), directory("", "/sys/fs/cgroup/web")];
        let of = |text| lines(text).map(|(hierarchy, path)| is_own(hierarchy, path, &directories)).collect::<Vec<_>>();
        assert_eq!(of("4:cpu,cpuacct:/user/web\n0::/web\n"), [true, true]);
        assert_eq!(of("4:cpu,cpuacct:/user/web/init.scope\n0::/web/a/b\n"), [true, true]);
        assert_eq!(of("4:cpu,cpuacct:/user\n0::/\n3:pids:/web\n"), [false, false, false]);
    }
}
