//! The rootfs for real: each test is a thread with a mount namespace, a working directory and a root of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::{Mount, MountBuilder};

use super::*;
use crate::plan::IdMappings;
use crate::plan::mounts::plan_mounts;

mod device;
mod enter;
mod fs_type;
mod hostile;
mod mask;
mod user_ns;

/// A directory of this test: `rootfs` is the hostile root, `host` what must not change.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tare-rootfs-{}-{number}", std::process::id()));
        for name in ["rootfs", "host"] {
            fs::create_dir_all(path.join(name)).unwrap();
        }
        Self(path.canonicalize().unwrap())
    }

    fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    fn host(&self) -> PathBuf {
        self.0.join("host")
    }

    /// A path of the rootfs, its parent made.
    fn inside(&self, path: &str) -> PathBuf {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn attach(&self) -> Root {
        Root::attach(&self.rootfs(), None, MountNamespace::New).unwrap()
    }

    /// Runs `act` with the root attached, then enters it and runs `then`.
    fn enter(&self, act: impl FnOnce(&Root) + Send, then: impl FnOnce() + Send) {
        in_namespace(|| {
            let root = self.attach();
            act(&root);
            root.enter(Enter::Pivot).unwrap();
            then();
        });
    }

    /// Attaches the root and tries these mounts: None, or the error.
    fn try_mounts(&self, mounts: &[Mount]) -> Option<String> {
        in_namespace(|| {
            let root = self.attach();
            mount_all(&root, mounts).err().map(|error| error.to_string())
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Mounted in namespaces that are gone, if at all: what is here is ours.
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs `act` on a thread with a mount namespace of its own. A panic comes through.
fn in_namespace<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            act()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn entry(fstype: &str, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default().destination(destination).typ(fstype).source(source.as_ref()).options(options);
    mount.build().unwrap()
}

fn bind(source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Mount {
    entry("bind", source, destination, &[&["rbind"], options].concat())
}

const ENV: MountEnv<'static> = MountEnv { cgroup: &[], cgroup_namespace: CgroupNamespace::Own, label: None };

fn mount_all(root: &Root, mounts: &[Mount]) -> Result<()> {
    plan_mounts(mounts, Path::new("/"), &IdMappings::default())?
        .iter()
        .try_for_each(|plan| root.mount(plan, None, &ENV))
}

/// Everything below `directory`: type, mode, owner, size, times, content or target.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (meta.mode(), meta.uid(), meta.size(), meta.ctime_nsec(), content));
    }
    all
}

/// The mount options and the type of what is mounted on `path`, from the mountinfo of this thread.
fn mounted(path: &str) -> Option<(String, String, String)> {
    let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some(path))?;
    let (left, right) = line.split_once(" - ").unwrap();
    let options = left.split(' ').nth(5).unwrap();
    let tags = left.split(' ').skip(6).collect::<Vec<_>>().join(" ");
    Some((options.to_owned(), right.split(' ').next().unwrap().to_owned(), tags))
}

fn errno_of<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
}
