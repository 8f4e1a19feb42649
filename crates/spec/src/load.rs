//! From a directory to a [`Bundle`], with few system calls: it is on the way of every create.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::check::{self, Finding};
use crate::{Bundle, Error, decode};

pub(crate) fn bundle(dir: &Path, config: Option<&Path>) -> Result<Bundle, Error> {
    let dir = fs::canonicalize(dir).map_err(|error| Error::Invalid(format!("bundle {dir:?}: {}", cause(&error))))?;
    let path = config.map_or_else(|| dir.join("config.json"), Path::to_path_buf);
    let config = fs::read(&path).map_err(|error| Error::Invalid(format!("{}: {}", path.display(), cause(&error))))?;
    let spec = decode::spec(&path, &config)?;
    check::text(&config)
        .and_then(|()| check::spec(&spec))
        .and_then(|()| host_network(&spec))
        .and_then(|()| rootfs(&dir, &spec))
        .map_err(|finding| finding.at(&path, &config))
        .map(|rootfs| Bundle { dir, rootfs, spec, config })
}

/// Finds `root.path`, which must be a directory and no symlink on the way to it: what lies in the bundle may have been
/// made by whoever made the image.
pub(crate) fn rootfs(dir: &Path, spec: &Spec) -> Result<PathBuf, Finding> {
    let finding = |cause: String| Finding { pointer: "/root/path".into(), cause };
    let given = spec.root().as_ref().map(|root| root.path().as_path()).unwrap_or(Path::new(""));
    let joined = clean(&dir.join(given));
    let failed = |error: io::Error| finding(format!("{joined:?}: {}", cause(&error)));
    let not_a_symlink = || finding(format!("{joined:?} must not be, or lie behind, a symbolic link"));

    let mut components = given.components();
    let metadata = fs::symlink_metadata(&joined).map_err(failed)?;
    if metadata.is_symlink() {
        return Err(not_a_symlink());
    }
    // `dir` is canonical: one name below it needs no second look.
    let direct_child = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !direct_child && fs::canonicalize(&joined).map_err(failed)? != joined {
        return Err(not_a_symlink());
    }
    if !metadata.is_dir() {
        return Err(finding(format!("{joined:?} is not a directory")));
    }
    Ok(joined)
}

/// The path as seen from the root `/`, without `.`, `..` and doubled slashes, by its text alone, as Go's `filepath.Clean`.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

/// Refuses `net.*` sysctls when the network namespace to join is the one we are in.
pub(crate) fn host_network(spec: &Spec) -> Result<(), Finding> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let is_net = |name: &&String| name.starts_with("net.") || name.starts_with("net/");
    let Some(sysctl) = linux.sysctl().iter().flatten().map(|(name, _)| name).find(is_net) else { return Ok(()) };
    let network = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::Network);
    let Some(joined) = network.and_then(|namespace| namespace.path().as_ref()) else { return Ok(()) };
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    match (identity(joined), identity(Path::new("/proc/self/ns/net"))) {
        (Ok(joined), Ok(own)) if joined != own => Ok(()),
        (Err(error), _) => Err(Finding {
            pointer: "/linux/namespaces".into(),
            cause: format!("network namespace {joined:?}: {}", cause(&error)),
        }),
        _ => Err(Finding {
            pointer: format!("/linux/sysctl/{}", decode::escape(sysctl)),
            cause: "must not be set in the network namespace of the host".into(),
        }),
    }
}

/// An I/O error in words and by name, as the rest of the program prints an errno.
pub(crate) fn cause(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno_text)
}

/// The words and the names of what opening and reading a file can answer, whatever the C library calls them; the numbers are the same on every
/// architecture of Linux but for ELOOP and ENAMETOOLONG on MIPS and PA-RISC.
fn errno_text(errno: i32) -> String {
    let (words, name) = match errno {
        1 => ("operation not permitted", "EPERM"),
        2 => ("no such file or directory", "ENOENT"),
        5 => ("input/output error", "EIO"),
        12 => ("cannot allocate memory", "ENOMEM"),
        13 => ("permission denied", "EACCES"),
        20 => ("not a directory", "ENOTDIR"),
        21 => ("is a directory", "EISDIR"),
        23 => ("too many open files in system", "ENFILE"),
        24 => ("too many open files", "EMFILE"),
        36 => ("file name too long", "ENAMETOOLONG"),
        40 => ("too many levels of symbolic links", "ELOOP"),
        other => return format!("cannot be read (errno {other})"),
    };
    format!("{words} ({name})")
}

#[cfg(test)]
mod tests;
