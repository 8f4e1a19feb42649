//! Temporary directories, and the busybox rootfs they hold.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// A directory that goes away with its last user. All of them lie in one base directory of this process, which goes
/// away with the last of them.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    base: Arc<Base>,
}

#[derive(Debug)]
struct Base {
    path: PathBuf,
    applets: Vec<String>,
}

static BASE: Mutex<Weak<Base>> = Mutex::new(Weak::new());
static COUNTER: AtomicU32 = AtomicU32::new(0);

impl TempDir {
    /// Makes an empty directory, 0755: container processes of other users reach what is in it.
    pub fn new(name: &str) -> Self {
        let base = Base::get();
        let path = base.path.join(format!("{}-{name}", next()));
        fs::create_dir(&path).unwrap();
        Self { path, base }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Fills `rootfs` with busybox and its applets. The program is a hard link: a container must not write to it.
    pub(crate) fn make_rootfs(&self, rootfs: &Path) {
        for name in ["bin", "dev", "etc", "home", "lib", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(self.base.path.join("busybox"), rootfs.join("bin/busybox")).unwrap();
        for applet in &self.base.applets {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home:/bin/sh\n")
            .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nguest:x:1000:\n").unwrap();
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A mount left by a failed test must not have its contents removed: see what is mounted there first.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = format!(" {}/", self.path.display());
        if !mounts.contains(&own) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Base {
    fn get() -> Arc<Self> {
        let mut shared = BASE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(base) = shared.upgrade() {
            return base;
        }
        let path = std::env::temp_dir().join(format!("tare-e2e-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&path).unwrap();
        let path = path.canonicalize().unwrap();
        let busybox = find_busybox();
        fs::copy(&busybox, path.join("busybox")).unwrap();
        let list = Command::new(path.join("busybox")).arg("--list").output().expect("busybox runs");
        let list = String::from_utf8(list.stdout).unwrap();
        let applets = list.lines().filter(|&applet| applet != "busybox").map(str::to_owned).collect();
        let base = Arc::new(Self { path, applets });
        *shared = Arc::downgrade(&base);
        base
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // Only what is known to be there, and the directory if nothing else is.
        let _ = fs::remove_file(self.path.join("busybox"));
        let _ = fs::remove_dir(&self.path);
    }
}

/// A number no one else in this process has.
pub(crate) fn next() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn find_busybox() -> PathBuf {
    let named = std::env::var_os("BUSYBOX").map(PathBuf::from);
    let path = named.or_else(|| crate::host::program("busybox"));
    let path = path.expect("a static busybox: name it in BUSYBOX, or install busybox-static");
    assert!(is_static(&fs::read(&path).unwrap()), "{} is not static: install busybox-static", path.display());
    path
}

/// Whether a 64-bit little-endian ELF program has no PT_INTERP among its program headers.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| {
        elf.get(at..at + len).map(|bytes| bytes.iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte)))
    };
    if elf.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return false;
    }
    let (Some(start), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    (0..count).all(|index| number(start + index * size, 4).is_some_and(|kind| kind != PT_INTERP as usize))
}
