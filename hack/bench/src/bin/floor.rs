//! The floor: only the kernel work that hack/bundle's configuration asks for, with a static `/bin/true`, and nothing that makes it safe
//! or general. Nobody can run a container in less.
//!
//! `floor ROOTFS MOUNTS NAME [CGROUP-DIRECTORY...]` makes a cgroup NAME in each of the directories, which the caller knows beforehand, and
//! mounts as many tmpfs more below /run. It has no state, no messages, no checks, resolves no path safely and is one process and one fork
//! where a runtime needs two.

#![no_main]

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root, sethostname, setsid};
use tare_sandbox::cgroup::device_program;
use tare_sandbox::sys::bpf;
use tare_sandbox::sys::clone::{Side, clone3};
use tare_sandbox::sys::exec::{execve, exit_child};
use tare_sandbox::sys::mount::{self as tree, MountAttr, Recursion};
use tare_sandbox::sys::start::args;
use tare_sandbox::sys::thread::SingleThreaded;

tare_sandbox::program!(floor);

type Done<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Device rules of v1 as the default bundle has them.
const RULES: [&str; 11] = [
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

fn floor() -> u8 {
    let mut words = args().skip(1);
    let (Some(rootfs), Some(mounts), Some(name)) = (words.next(), words.next(), words.next()) else { return 2 };
    let Some(mounts) = mounts.to_str().and_then(|mounts| mounts.parse().ok()) else { return 2 };
    let directories: Vec<PathBuf> = words.map(|directory| Path::new(directory).join(name)).collect();
    run(Path::new(rootfs), mounts, &directories).unwrap_or_else(|error| {
        let _nobody_reads = std::io::Write::write_all(&mut std::io::stderr(), format!("floor: {error}\n").as_bytes());
        1
    })
}

fn run(rootfs: &Path, mounts: usize, cgroups: &[PathBuf]) -> Done<u8> {
    let proof = SingleThreaded::verify()?;
    let mut unified = None;
    for cgroup in cgroups {
        fs::create_dir(cgroup)?;
        if cgroup.join("cgroup.events").exists() {
            let directory = fs::File::open(cgroup)?;
            let program = bpf::load_device_program(&device_program(&[], &[])?)?;
            bpf::attach_device_program(directory.as_fd(), program.as_fd())?;
            unified = Some(directory);
        } else if cgroup.join("devices.deny").exists() {
            fs::write(cgroup.join("devices.deny"), "a")?;
            for rule in RULES {
                fs::write(cgroup.join("devices.allow"), rule)?;
            }
        } else if cgroup.join("cpuset.cpus").exists() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parents = fs::read(cgroup.with_file_name(file))?;
                fs::write(cgroup.join(file), parents)?;
            }
        }
    }
    let flags = libc_flags();
    let code = match clone3(proof, flags, unified.as_ref().map(AsFd::as_fd), None)? {
        Side::Child => {
            let _failed = become_true(rootfs, mounts, cgroups);
            exit_child(1)
        }
        Side::Parent(child) => match waitpid(child, None)? {
            WaitStatus::Exited(_, code) => u8::try_from(code)?,
            _ => 1,
        },
    };
    for cgroup in cgroups {
        fs::remove_dir(cgroup)?;
    }
    Ok(code)
}

fn libc_flags() -> i32 {
    use nix::sched::CloneFlags as Flags;
    (Flags::CLONE_NEWNS
        | Flags::CLONE_NEWCGROUP
        | Flags::CLONE_NEWUTS
        | Flags::CLONE_NEWIPC
        | Flags::CLONE_NEWPID
        | Flags::CLONE_NEWNET)
        .bits()
}

fn become_true(rootfs: &Path, mounts: usize, cgroups: &[PathBuf]) -> Done {
    for cgroup in cgroups {
        // Of v1 only: the child was born in the other.
        let _unified = fs::OpenOptions::new()
            .write(true)
            .open(cgroup.join("tasks"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"0"));
    }
    setsid()?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    mount(Some(rootfs), rootfs, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    chdir(rootfs)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let safe = plain | MsFlags::MS_NODEV;
    let on =
        |source: &str, target: &str, flags, data: Option<&str>| mount(Some(source), target, Some(source), flags, data);
    on("proc", "proc", MsFlags::empty(), None)?;
    on("tmpfs", "dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, Some("mode=755,size=65536k"))?;
    for directory in ["dev/pts", "dev/shm", "dev/mqueue"] {
        nix::unistd::mkdir(directory, Mode::from_bits_truncate(0o755))?;
    }
    on("devpts", "dev/pts", plain, Some("newinstance,ptmxmode=0666,mode=0620"))?;
    on("tmpfs", "dev/shm", safe, Some("mode=1777,size=65536k"))?;
    on("mqueue", "dev/mqueue", safe, None)?;
    on("sysfs", "sys", safe | MsFlags::MS_RDONLY, None)?;
    mount_cgroups(cgroups, safe | MsFlags::MS_RDONLY)?;
    for number in 1..=mounts {
        let target = format!("run/m{number}");
        fs::create_dir_all(&target)?;
        on("tmpfs", &target, MsFlags::empty(), None)?;
    }
    for (name, major, minor) in
        [("null", 1, 3), ("random", 1, 8), ("full", 1, 7), ("tty", 5, 0), ("zero", 1, 5), ("urandom", 1, 9)]
    {
        mknod(&Path::new("dev").join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ] {
        std::os::unix::fs::symlink(target, Path::new("dev").join(name))?;
    }
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    sethostname("tare")?;
    let read_only = MountAttr { attr_set: tree::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    for path in READ_ONLY {
        let path = CString::new(path)?;
        if let Ok(copy) = tree::open_tree_clone_host(&path, Recursion::Tree) {
            tree::mount_setattr(copy.as_fd(), Recursion::Top, &read_only)?;
            let target = fs::File::open(path.to_str()?)?;
            tree::move_mount(copy.as_fd(), target.as_fd())?;
        }
    }
    for path in MASKED {
        match fs::metadata(path) {
            Ok(file) if file.is_dir() => {
                mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("nr_blocks=1,nr_inodes=1"))?
            }
            Ok(_) => mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?,
            Err(_) => {}
        }
    }
    tree::mount_setattr_root(Recursion::Top, &read_only)?;
    nix::sys::prctl::set_no_new_privs()?;
    Err(execve(c"/bin/true", &[c"/bin/true".to_owned()], &[]).into())
}

/// As the cgroup mount of the configuration: cgroup2 itself, or a tmpfs with the hierarchies of v1.
fn mount_cgroups(cgroups: &[PathBuf], flags: MsFlags) -> Done {
    // The directory below /sys/fs/cgroup has the name of its controller here.
    let hierarchies: Vec<(&PathBuf, &str)> = cgroups
        .iter()
        .filter(|cgroup| cgroup.join("tasks").exists())
        .filter_map(|cgroup| Some((cgroup, cgroup.strip_prefix("/sys/fs/cgroup").ok()?.to_str()?.split('/').next()?)))
        .collect();
    if hierarchies.is_empty() {
        mount(Some("cgroup"), "sys/fs/cgroup", Some("cgroup2"), flags, None::<&str>)?;
        return Ok(());
    }
    mount(Some("tmpfs"), "sys/fs/cgroup", Some("tmpfs"), flags & !MsFlags::MS_RDONLY, Some("mode=755"))?;
    for (cgroup, name) in hierarchies {
        let target = Path::new("sys/fs/cgroup").join(name);
        fs::create_dir(&target)?;
        // What mount(2) would give too, after a walk through all cgroups of the host.
        mount(Some(cgroup), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    let safe = tree::MOUNT_ATTR_RDONLY | tree::MOUNT_ATTR_NOSUID | tree::MOUNT_ATTR_NODEV | tree::MOUNT_ATTR_NOEXEC;
    let all = fs::File::open("sys/fs/cgroup")?;
    tree::mount_setattr(all.as_fd(), Recursion::Tree, &MountAttr { attr_set: safe, ..MountAttr::default() })?;
    Ok(())
}
