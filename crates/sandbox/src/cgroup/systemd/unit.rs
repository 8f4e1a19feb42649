//! Names of units, and where their cgroups are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a scope is named after by default: `tare-<id>.scope`.
const PREFIX: &str = "tare";
/// Longest name of a unit, unit-name.h: UNIT_NAME_MAX without the terminating zero.
const MAX_NAME_BYTES: usize = 255;

/// Which systemd keeps the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// The host's.
    System,
    /// A user's own.
    User,
}

/// The unit that a container's cgroup belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `tare-web.scope`.
    pub name: String,
    /// The slice above it: `system.slice`.
    pub slice: String,
    /// Which systemd keeps it.
    pub bus: Bus,
}

impl Unit {
    /// The unit for `cgroups_path` (`linux.cgroupsPath`): `slice:prefix:name`, runc's rules. Empty is
    /// `system.slice:tare:<id>` (`user.slice` for a user), and so is each part that is empty, but the prefix.
    ///
    /// # Errors
    /// Another form; names that systemd does not have.
    pub(super) fn of(cgroups_path: Option<&Path>, id: &str, bus: Bus) -> Result<Self> {
        let default_slice = match bus {
            Bus::System => "system.slice",
            Bus::User => "user.slice",
        };
        let text = cgroups_path.map(Path::to_str).unwrap_or(Some(""));
        let text = text.ok_or_else(|| refuse("it is not UTF-8"))?;
        if text.is_empty() {
            let name = format!("{PREFIX}-{}.scope", escape(id));
            return Self { name, slice: default_slice.into(), bus }.checked();
        }
        let parts: Vec<&str> = text.split(':').collect();
        let &[slice, prefix, name] = parts.as_slice() else {
            return Err(refuse(&format!("expected \"slice:prefix:name\" for systemd, found {text:?}")));
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        let name = if name.ends_with(".slice") { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        Self { name, slice: slice.into(), bus }.checked()
    }

    fn checked(self) -> Result<Self> {
        expand_slice(&self.slice)?;
        if self.is_slice() {
            let parent = self.name.rsplit_once('-').map(|(parent, _)| format!("{parent}.slice"));
            let parent = parent.unwrap_or("-.slice".into());
            expand_slice(&self.name)?;
            // The name of a slice says where it is.
            return Ok(Self { slice: parent, ..self });
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if self.name.len() > MAX_NAME_BYTES || !self.name.bytes().all(plain) {
            return Err(refuse(&format!("{:?} is not a name for a unit of systemd", self.name)));
        }
        Ok(self)
    }

    /// Whether it is a slice, which needs no process to be.
    pub(super) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Where its cgroup is, below the one that systemd has for itself.
    ///
    /// # Errors
    /// The name of a slice that systemd does not have.
    pub(super) fn path(&self) -> Result<PathBuf> {
        if self.is_slice() { expand_slice(&self.name) } else { Ok(expand_slice(&self.slice)?.join(&self.name)) }
    }
}

fn refuse(cause: &str) -> Error {
    Error::Refused(format!("linux.cgroupsPath: {cause}"))
}

/// The directories of a slice: `a-b.slice` is `a.slice/a-b.slice`, `-.slice` the root. systemd.slice(5).
fn expand_slice(slice: &str) -> Result<PathBuf> {
    let bad = || refuse(&format!("{slice:?} is not the name of a slice"));
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if slice.len() > MAX_NAME_BYTES || !name.bytes().all(plain) || name.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("{}.slice", &name[..end])).collect())
}

/// What a container's name may have and a unit's may not (`+`), as systemd-escape(1) writes it.
fn escape(id: &str) -> String {
    id.chars().map(|char| if char == '+' { "\\x2b".to_owned() } else { char.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Result<Unit> {
        Unit::of(Some(Path::new(path)), "web", Bus::System)
    }

    #[test]
    fn a_path_of_three_parts_names_slice_and_scope() {
        for (path, name, directory) in [
            ("", "tare-web.scope", "system.slice/tare-web.scope"),
            ("::x", "-x.scope", "system.slice/-x.scope"),
            ("machine.slice:libpod:ab12", "libpod-ab12.scope", "machine.slice/libpod-ab12.scope"),
            (
                "kubepods-besteffort-pod1_2.slice:cri-containerd:ab",
                "cri-containerd-ab.scope",
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-ab.scope",
            ),
            ("-.slice:a:b", "a-b.scope", "a-b.scope"),
            ("system.slice:ignored:a-b.slice", "a-b.slice", "a.slice/a-b.slice"),
            ("::top.slice", "top.slice", "top.slice"),
        ] {
            let unit = unit(path).unwrap();
            assert_eq!((unit.name.as_str(), unit.path().unwrap()), (name, directory.into()), "{path}");
        }
        assert_eq!(unit("::a-b-c.slice").unwrap().slice, "a-b.slice");
        assert_eq!(unit("::top.slice").unwrap().slice, "-.slice");
        let user = Unit::of(None, "web", Bus::User).unwrap();
        assert_eq!(user.path().unwrap(), Path::new("user.slice/tare-web.scope"));
    }

    #[test]
    fn a_container_may_be_named_as_no_unit_may() {
        let unit = Unit::of(None, "a+b_c.d-e", Bus::System).unwrap();
        assert_eq!(unit.name, "tare-a\\x2bb_c.d-e.scope");
        assert!(Unit::of(None, &"x".repeat(250), Bus::System).is_err());
    }

    #[test]
    fn other_forms_and_names_are_refused() {
        for (path, message) in [
            ("/a/b", "linux.cgroupsPath: expected \"slice:prefix:name\" for systemd, found \"/a/b\""),
            ("a:b", "linux.cgroupsPath: expected \"slice:prefix:name\" for systemd, found \"a:b\""),
            ("a.slice:b:c:d", "linux.cgroupsPath: expected \"slice:prefix:name\" for systemd, found \"a.slice:b:c:d\""),
            ("a--b.slice:x:y", "linux.cgroupsPath: \"a--b.slice\" is not the name of a slice"),
            ("-a.slice:x:y", "linux.cgroupsPath: \"-a.slice\" is not the name of a slice"),
            (".slice:x:y", "linux.cgroupsPath: \".slice\" is not the name of a slice"),
            ("a/b.slice:x:y", "linux.cgroupsPath: \"a/b.slice\" is not the name of a slice"),
            ("a.scope:x:y", "linux.cgroupsPath: \"a.scope\" is not the name of a slice"),
            (":x:../y", "linux.cgroupsPath: \"x-../y.scope\" is not a name for a unit of systemd"),
        ] {
            assert_eq!(unit(path).unwrap_err().to_string(), message);
        }
    }
}
