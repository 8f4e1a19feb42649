//! Device nodes and links in /dev, and the console.
//!
//! `/dev` of an image may be a link or hold traps: it is opened once inside the root, and everything is made, or
//! checked, by name in that one directory (CVE-2026-41579, CVE-2026-88264).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, makedev, minor, mknodat, umask};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, PROC_SUPER_MAGIC};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::mount::{DEV, is_of};
use super::propagation::clone_private;
use super::tree::{self, Leaf, Links};
use super::{Root, file_type};
use crate::error::{CallContext, Context};
use crate::plan::mounts::clean;
use crate::sys::mount::move_mount;
use crate::sys::path::open;
use crate::sys::path::{fchmod_path, identity, is_mount_root};
use crate::{Error, Result};

/// How devices come into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowDevices {
    /// mknod(2); where that is not permitted, as [`HowDevices::Bind`].
    Mknod,
    /// The host's node of the same path is bound: a user namespace cannot make devices.
    Bind,
}

/// A device to be.
#[derive(Debug, Clone)]
struct Device {
    path: PathBuf,
    kind: SFlag,
    /// Major and minor number.
    number: (u64, u64),
    mode: Mode,
    owner: (u32, u32),
}

/// The devices that every container has.
const DEFAULTS: [(&str, (u64, u64)); 6] = [
    ("/dev/null", (1, 3)),
    ("/dev/random", (1, 8)),
    ("/dev/full", (1, 7)),
    ("/dev/tty", (5, 0)),
    ("/dev/zero", (1, 5)),
    ("/dev/urandom", (1, 9)),
];

/// The links that every container has, from /dev.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// `/dev/ptmx`, and the `ptmx` of a devpts.
const PTMX: (u64, u64) = (5, 2);

/// The inode of `ptmx` in every devpts, from fs/devpts/inode.c.
const PTMX_INODE: u64 = 2;

/// The paths of the devices that are bound where they cannot be made.
pub fn bound_devices(devices: &[LinuxDevice]) -> Vec<PathBuf> {
    let named = devices.iter().map(|device| clean(device.path()));
    let mut all: Vec<PathBuf> = DEFAULTS.iter().map(|(path, _)| PathBuf::from(path)).chain(named).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Root {
    /// Makes the default devices and those of `linux.devices`, which win over a default of the same path. Nothing is
    /// made when /dev is a directory of the host, as in runc.
    ///
    /// # Errors
    /// The device by its path, and what refused it: something else of that name, for one.
    pub fn make_devices(&self, devices: &[LinuxDevice], how: HowDevices) -> Result<()> {
        if self.dev_is_bind.get() {
            return Ok(());
        }
        let mut all = Vec::with_capacity(DEFAULTS.len() + devices.len());
        for device in devices {
            all.push(Device::of_spec(device)?);
        }
        for (path, number) in DEFAULTS {
            if !all.iter().any(|device| device.path == Path::new(path)) {
                let mode = Mode::from_bits_truncate(0o666);
                all.push(Device { path: path.into(), kind: SFlag::S_IFCHR, number, mode, owner: (0, 0) });
            }
        }
        // With it the modes asked for are the modes made.
        let old_umask = umask(Mode::empty());
        let made = self.dev().and_then(|dev| {
            all.iter().try_for_each(|device| {
                self.make_device(&dev, device, how).during(|| format!("device {:?}", device.path))
            })
        });
        umask(old_umask);
        made
    }

    fn make_device(&self, dev: &OwnedFd, device: &Device, how: HowDevices) -> Result<()> {
        let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
            return Err(Error::Refused("not the path of a file".into()));
        };
        let other;
        let is_new = self.dev_is_new.get() && parent == Path::new(DEV);
        let parent = if parent == Path::new(DEV) {
            dev
        } else {
            other = self.directory(parent)?;
            &other
        };
        // A fifo is no device to the kernel: whoever may make a file may make one.
        if how == HowDevices::Mknod || device.kind == SFlag::S_IFIFO {
            let number = makedev(device.number.0, device.number.1);
            match mknodat(parent, name, device.kind, device.mode, number) {
                // Without a umask, in an empty directory of our own: as asked for.
                Ok(()) if is_new && device.owner == (0, 0) => return Ok(()),
                Ok(()) => return device.verify(parent, name),
                Err(Errno::EEXIST) => {
                    return if self.is_mounted(dev, parent, name)? {
                        device.accept(parent, name)
                    } else {
                        device.verify(parent, name)
                    };
                }
                Err(Errno::EPERM) => {}
                Err(errno) => return Err(Error::call(format!("mknodat({:?})", device.path), errno)),
            }
        }
        device.bind(parent, name)
    }

    /// Whether what has this name came with a mount of the configuration, other than the one on /dev: it is the host's then.
    fn is_mounted(&self, dev: &OwnedFd, parent: &OwnedFd, name: &OsStr) -> Result<bool> {
        let mount_of = |fd: &OwnedFd| -> Result<u64> { Ok(identity(fd.as_fd()).call(|| "statx")?.mount) };
        let mount = mount_of(&open_name(parent, name)?)?;
        Ok(mount != mount_of(dev)? && mount != mount_of(&self.fd)?)
    }

    /// Makes the links `fd`, `stdin`, `stdout`, `stderr`, `core` (where the host has /proc/kcore) and `ptmx` in /dev. What
    /// has one of these names already is left alone, but for `ptmx`, which has to lead to the container's devpts.
    ///
    /// # Errors
    /// The link by its name, and what refused it.
    pub fn make_dev_links(&self) -> Result<()> {
        if self.dev_is_bind.get() {
            return Ok(());
        }
        let dev = self.dev()?;
        let core = Path::new("/proc/kcore").exists().then_some(("core", "/proc/kcore"));
        for (name, target) in LINKS.into_iter().chain(core) {
            match symlinkat(target, &dev, name) {
                Err(Errno::EEXIST) => {}
                done => done.call(|| format!("symlinkat(\"/dev/{name}\")"))?,
            }
        }
        let link = || symlinkat("pts/ptmx", &dev, "ptmx");
        match link() {
            Err(Errno::EEXIST) => {
                unlinkat(&dev, "ptmx", UnlinkatFlags::NoRemoveDir).call(|| "unlinkat(\"/dev/ptmx\")")?;
                link()
            }
            done => done,
        }
        .call(|| "symlinkat(\"/dev/ptmx\")")
    }

    /// Opens the multiplexer of the container's devpts, on which TIOCGPTPEER gives a peer for [`Root::bind_console`].
    ///
    /// # Errors
    /// Anything else in its place (CVE-2025-52565).
    pub fn open_ptmx(&self) -> Result<OwnedFd> {
        open_ptmx(self.fd.as_fd())
    }

    /// Binds the pty `peer` on /dev/console. It has to be of a devpts mounted in this mount namespace.
    ///
    /// # Errors
    /// A link in its place; the call that failed.
    pub fn bind_console(&self, peer: BorrowedFd<'_>) -> Result<()> {
        let bind = || {
            let tree = clone_private(peer).call(|| "open_tree(console)")?;
            let dev = self.dev()?;
            let target = open_or_make_file(&dev, OsStr::new("console"))?;
            move_mount(tree.as_fd(), target.as_fd()).call(|| "move_mount(console)")
        };
        bind().during(|| "mount the console on \"/dev/console\"")
    }

    fn dev(&self) -> Result<Rc<OwnedFd>> {
        match &*self.dev.borrow() {
            Some(dev) => Ok(Rc::clone(dev)),
            None => self.directory(Path::new(DEV)).map(Rc::new),
        }
    }

    /// A directory inside the root, made if it is missing.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        match tree::open(&self.fd, path, Leaf::Directory, Links::Follow) {
            Err(Errno::ENOENT) => tree::make(&self.fd, path, Leaf::Directory, Links::Follow),
            found => found,
        }
        .call(|| format!("openat2({path:?})"))
    }
}

/// Opens the multiplexer of the devpts of the container that this process is in: its root is the container's.
///
/// # Errors
/// Anything else in its place (CVE-2025-52565).
pub fn open_own_ptmx() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open("/", flags, Mode::empty()).call(|| "open(\"/\")")?;
    open_ptmx(root.as_fd())
}

fn open_ptmx(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = Path::new("/dev/pts/ptmx");
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
    // Looked at before it is opened for good: the open of some devices does things.
    let fd = tree::open(root, path, Leaf::File, Links::Follow).call(|| format!("openat2({path:?})"))?;
    check_ptmx(&fd)?;
    let fd = tree::open_with(root, path, flags, Links::Follow).call(|| format!("openat2({path:?})"))?;
    check_ptmx(&fd)?;
    Ok(fd)
}

impl Device {
    fn of_spec(device: &LinuxDevice) -> Result<Self> {
        let refuse = |why: &str| Error::Refused(format!("linux.devices: {:?}: {why}", device.path()));
        let kind = match device.typ() {
            LinuxDeviceType::B => SFlag::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
            LinuxDeviceType::P => SFlag::S_IFIFO,
            LinuxDeviceType::A => return Err(refuse("type \"a\" is not that of a node")),
        };
        let number = match kind {
            SFlag::S_IFIFO => (0, 0),
            // 12 and 20 bits are what the kernel keeps.
            _ => match (u16::try_from(device.major()), u32::try_from(device.minor())) {
                (Ok(major @ ..0x1000), Ok(minor @ ..0x10_0000)) => (major.into(), minor.into()),
                _ => return Err(refuse("no such device number")),
            },
        };
        Ok(Self {
            path: clean(device.path()),
            kind,
            number,
            mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        })
    }

    fn is(&self, stat: &FileStat) -> bool {
        let number = (major(stat.st_rdev), minor(stat.st_rdev));
        file_type(stat) == self.kind && (self.kind == SFlag::S_IFIFO || number == self.number)
    }

    fn not_it(&self) -> Error {
        let (major, minor) = self.number;
        Error::Refused(format!("what is there is not the device {major}:{minor}"))
    }

    /// Takes what a mount put there as it is. In a directory of the mount it has to be the device; what is mounted on the
    /// very path may be anything, which is how one device is put in the place of another.
    fn accept(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let node = open_name(parent, name)?;
        if self.is(&fstat(&node).call(|| "fstat")?) || is_mount_root(node.as_fd()).call(|| "statx")? {
            return Ok(());
        }
        Err(self.not_it())
    }

    /// Sees that `name` is the device, whoever made it, and gives it its mode and owner.
    fn verify(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let right =
            |stat: &FileStat| (stat.st_uid, stat.st_gid) == self.owner && stat.st_mode & 0o7777 == self.mode.bits();
        let stat = tree::stat_leaf(parent, name).call(|| "fstatat")?;
        if !self.is(&stat) {
            return Err(self.not_it());
        }
        if right(&stat) {
            return Ok(());
        }
        // By an fd from here on: the name may be swapped at any time.
        let node = open_name(parent, name)?;
        if !self.is(&fstat(&node).call(|| "fstat")?) {
            return Err(self.not_it());
        }
        let (uid, gid) = (Some(Uid::from_raw(self.owner.0)), Some(Gid::from_raw(self.owner.1)));
        fchownat(&node, "", uid, gid, AtFlags::AT_EMPTY_PATH).call(|| "fchownat")?;
        match fchmod_path(node.as_fd(), self.mode) {
            // Before Linux 6.6 only a name will do. It is safe here: /proc is the host's until the root is entered.
            Err(Errno::ENOSYS) => chmod_by_host_proc(&node, self.mode),
            done => done.call(|| "fchmodat2"),
        }
    }

    /// Binds the host's node on `name`.
    fn bind(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        if is_of(parent, PROC_SUPER_MAGIC)? {
            return Err(Error::Refused("its directory leads into /proc".into()));
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = open(&self.path, flags, Mode::empty()).call(|| format!("open({:?})", self.path))?;
        if !self.is(&fstat(&node).call(|| "fstat")?) {
            return Err(self.not_it()).during(|| "the host's node");
        }
        let tree = clone_private(node.as_fd()).call(|| format!("open_tree({:?})", self.path))?;
        let target = open_or_make_file(parent, name)?;
        move_mount(tree.as_fd(), target.as_fd()).call(|| format!("move_mount({:?})", self.path))
    }
}

fn open_name(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).call(|| "openat")
}

fn chmod_by_host_proc(node: &OwnedFd, mode: Mode) -> Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    let flag = nix::sys::stat::FchmodatFlags::FollowSymlink;
    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, path.as_str(), mode, flag).call(|| format!("chmod({path:?})"))
}

/// Opens `name` as the place of a file mount: what is there if it is no link, or a new empty file.
fn open_or_make_file(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let call = || format!("openat({name:?})");
    let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    match openat(parent, name, create, Mode::from_bits_truncate(0o644)) {
        Err(Errno::EEXIST) => {}
        made => return made.call(call),
    }
    let fd = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).call(call)?;
    match file_type(&fstat(&fd).call(|| "fstat")?) {
        SFlag::S_IFLNK => Err(Error::Refused(format!("{name:?} is a symbolic link"))),
        _ => Ok(fd),
    }
}

fn check_ptmx(fd: &OwnedFd) -> Result<()> {
    let stat = fstat(fd).call(|| "fstat")?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let device = file_type(&stat) == SFlag::S_IFCHR && number == PTMX;
    if device && stat.st_ino == PTMX_INODE && is_of(fd, DEVPTS_SUPER_MAGIC)? {
        return Ok(());
    }
    Err(Error::Refused("ptmx handle is not on a real devpts mount".into()))
}
