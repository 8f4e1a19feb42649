//! Giving a cgroup away: its new owner may make cgroups below it and move processes among them, and cannot change its limits.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation>

use std::os::unix::fs::chown;
use std::path::Path;

use nix::errno::Errno;

use super::Location;
use crate::Result;
use crate::error::{CallContext, Context};

/// The kernel's own list, since Linux 4.15, of the files that go with the directory.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// Makes the host's user `uid` the owner of the container's cgroup. On cgroup v2 alone: v1 gives away what it should not.
///
/// # Errors
/// The call that failed.
pub fn delegate(location: &Location, uid: u32) -> Result<()> {
    let [only] = location.directories.as_slice() else { return Ok(()) };
    if !only.hierarchy.is_empty() {
        return Ok(());
    }
    give(&only.path, &files(Path::new(LIST))?, uid).during(|| format!("give the cgroup to user {uid}"))
}

fn files(list: &Path) -> Result<Vec<String>> {
    match std::fs::read_to_string(list) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        // An older kernel: those of cgroups(7).
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            Ok(["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"].map(str::to_owned).into())
        }
        Err(error) => Err(error).call(|| format!("read({list:?})")),
    }
}

fn give(directory: &Path, files: &[String], uid: u32) -> Result<()> {
    chown(directory, Some(uid), None).call(|| format!("chown({directory:?}, {uid})"))?;
    for file in files {
        let path = directory.join(file);
        match chown(&path, Some(uid), None) {
            // Those of a controller that is not enabled here.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            given => given.call(|| format!("chown({path:?}, {uid})"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::scratch::{Scratch, enter_pure_cgroup2, needs_v1};
    use std::os::unix::fs::MetadataExt;

    fn owner(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().uid()
    }

    #[test]
    fn the_directory_and_the_files_of_the_list_change_hands_on_v2() {
        enter_pure_cgroup2();
        let scratch = Scratch::created();
        delegate(scratch.0.location(), 1234).unwrap();
        let dir = scratch.dir("");
        assert_eq!(owner(&dir), 1234);
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let listed = files(Path::new(LIST)).unwrap().contains(&name);
            assert_eq!(owner(&entry.path()), if listed { 1234 } else { 0 }, "{name}");
        }
    }

    #[test]
    fn nothing_changes_hands_on_v1() {
        needs_v1!();
        let scratch = Scratch::created();
        delegate(scratch.0.location(), 1234).unwrap();
        assert!(scratch.0.location().directories.iter().all(|directory| owner(&directory.path) == 0));
    }

    #[test]
    fn a_kernel_without_the_list_has_its_first_three_entries() {
        let files = files(Path::new("/nonexistent/delegate")).unwrap();
        assert_eq!(files, ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]);
    }
}
