//! From the flags before the verb to a [`Runtime`].

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tare_sandbox::cgroup::Driver;
use tare_sandbox::container::Runtime;
use tare_sandbox::userns;
use tare_spec::clean;

use crate::args::Global;
use crate::{duration, report};

const DEFAULT_ROOT: &str = "/run/tare";

impl Global {
    /// What all verbs share.
    ///
    /// # Errors
    /// One line that names the flag.
    pub(crate) fn runtime(&self) -> Result<Runtime, String> {
        let cgroup_driver = self.cgroup_driver()?;
        let rootless = match self.rootless.as_str() {
            "" | "auto" => None,
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            other => return Err(format!("--rootless {other:?} is not true, false or auto")),
        };
        Ok(Runtime { root: self.root_dir()?, cgroup_driver, rootless, timeout: self.timeout()? })
    }

    /// `30s`, `2m`, or a number of seconds.
    fn timeout(&self) -> Result<Option<Duration>, String> {
        let Some(word) = &self.timeout else { return Ok(None) };
        if let Ok(seconds) = word.parse() {
            return Ok(Some(Duration::from_secs(seconds)));
        }
        match duration::parse(word).map_err(|error| format!("--timeout: {error}"))? {
            Some(timeout) => Ok(Some(timeout)),
            None => Err(format!("--timeout: {word:?} is negative")),
        }
    }

    /// Who makes cgroups.
    ///
    /// # Errors
    /// A name that is none.
    pub(crate) fn cgroup_driver(&self) -> Result<Driver, String> {
        Ok(match self.cgroup_manager.as_deref() {
            None if self.systemd_cgroup => Driver::Systemd,
            None | Some("cgroupfs") => Driver::Cgroupfs,
            Some("systemd") => Driver::Systemd,
            Some("disabled") => Driver::Disabled,
            Some(other) => return Err(format!("--cgroup-manager {other:?} is not cgroupfs, systemd or disabled")),
        })
    }

    fn root_dir(&self) -> Result<PathBuf, String> {
        if let Some(root) = &self.root {
            let absolute =
                std::path::absolute(root).map_err(|error| format!("--root {root:?}: {}", report::cause(&error)))?;
            let root = clean(&absolute);
            if root == Path::new("/") {
                return Err("--root must not be /".into());
            }
            return Ok(root);
        }
        let Some(runtime_dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) else {
            return Ok(DEFAULT_ROOT.into());
        };
        if !is_user() {
            return Ok(DEFAULT_ROOT.into());
        }
        let root = PathBuf::from(runtime_dir).join("tare");
        private(&root).map_err(|error| format!("make {root:?} in XDG_RUNTIME_DIR: {}", report::cause(&error)))?;
        Ok(root)
    }
}

/// Whether the caller keeps its state apart from root's: another user, or one who is root in a user namespace only.
fn is_user() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    if std::env::var_os("USER").is_some_and(|user| user == "root") {
        return false;
    }
    userns::is_inside()
}

/// Makes a directory of the user's own. Sticky, so that what cleans old files out of XDG_RUNTIME_DIR leaves it alone
/// (XDG Base Directory Specification).
fn private(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(root: &str) -> Global {
        Global { root: Some(root.into()), ..Global::default() }
    }

    #[test]
    fn the_root_is_absolute_and_not_the_root_of_the_host() {
        assert_eq!(global("/x/../y/./z//").runtime().unwrap().root, Path::new("/y/z"));
        assert_eq!(global("state").runtime().unwrap().root, std::env::current_dir().unwrap().join("state"));
        for root in ["/", "//", "/x/..", "/../.."] {
            assert_eq!(global(root).runtime().unwrap_err(), "--root must not be /", "{root}");
        }
    }

    #[test]
    fn a_timeout_is_a_duration_or_a_number_of_seconds() {
        let timeout = |word: &str| {
            Global { timeout: Some(word.to_owned()), ..global("/x") }.runtime().map(|runtime| runtime.timeout)
        };
        for (word, milliseconds) in
            [("30s", 30_000), ("2m", 120_000), ("1m30s", 90_000), ("500ms", 500), ("45", 45_000)]
        {
            assert_eq!(timeout(word), Ok(Some(Duration::from_millis(milliseconds))), "{word}");
        }
        assert_eq!(timeout("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(global("/x").runtime().unwrap().timeout, None);
        assert_eq!(timeout("-5s").unwrap_err(), "--timeout: \"-5s\" is negative");
        for word in ["", "soon", "5 s", "-3", "1.5"] {
            assert!(timeout(word).unwrap_err().starts_with("--timeout: "), "{word}");
        }
    }

    #[test]
    fn the_cgroup_manager_may_be_named_in_two_ways() {
        let driver = |systemd_cgroup, manager: Option<&str>| {
            let cgroup_manager = manager.map(str::to_owned);
            Global { systemd_cgroup, cgroup_manager, ..global("/x") }.runtime().map(|runtime| runtime.cgroup_driver)
        };
        assert_eq!(driver(false, None), Ok(Driver::Cgroupfs));
        assert_eq!(driver(true, None), Ok(Driver::Systemd));
        assert_eq!(driver(false, Some("systemd")), Ok(Driver::Systemd));
        assert_eq!(driver(true, Some("disabled")), Ok(Driver::Disabled));
        assert!(driver(false, Some("runit")).is_err());
        assert!(Global { rootless: "perhaps".into(), ..global("/x") }.runtime().is_err());
    }
}
