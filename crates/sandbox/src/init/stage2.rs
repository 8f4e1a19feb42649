//! Stage 2, the container's init: makes the container around itself, then becomes its program.
//!
//! The order of the steps is the design; ARCHITECTURE.md, "Why this order", gives the reason for each place.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::{sethostname, setsid};
use oci_spec::runtime::LinuxNamespaceType;

use super::finish::{self, Prepared};
use super::wire::{FromStage, StageEnd};
use super::{ForStage2, rootless, stage_failed};
use crate::container::Status;
use crate::deadline::Deadline;
use crate::error::{CallContext, Context};
use crate::label::Labels;
use crate::plan::Plan;
use crate::procfs::Procfs;
use crate::rootfs::{self, CgroupNamespace, Enter, HowDevices, MountEnv, MountNamespace, Root};
use crate::step::Step;
use crate::sys;
use crate::{Error, Result, console, hook, timing};

/// Runs stage 2. It ends as the container's program.
pub fn run(plan: &Plan, inherited: ForStage2, wire: StageEnd) -> ! {
    match prepare(plan, inherited, wire) {
        Ok(prepared) => {
            let Err(error) = launch(plan, &prepared);
            prepared.fail(error)
        }
        Err((wire, error)) => stage_failed(&wire, error),
    }
}

/// Everything up to the word to start.
fn prepare(plan: &Plan, inherited: ForStage2, wire: StageEnd) -> Result<Prepared, (StageEnd, Error)> {
    let ForStage2 { sources, console, fifo, cgroup, owner } = inherited;
    let built = (|| {
        owner.let_in(plan)?;
        begin_session(plan.keyring.as_deref(), &plan.process.labels).at(Step::Session)?;
        timing::lap(Step::Session);
        if plan.namespaces.makes(LinuxNamespaceType::Network) {
            sys::net::loopback_up().call(|| "ioctl(SIOCSIFFLAGS, \"lo\")").at(Step::Network)?;
        }
        if !plan.net_devices.is_empty() {
            wire.ask(&FromStage::MoveDevices)?;
        }
        timing::lap(Step::Network);
        set_sysctl(plan).at(Step::Sysctl)?;
        timing::lap(Step::Sysctl);
        // A user namespace must not clone what lies in mount namespaces of others, and nothing is masked there.
        let masks = plan.namespaces.has(LinuxNamespaceType::Mount);
        let null = masks.then(rootfs::open_null).transpose().at(Step::AttachRoot)?;
        let root = build_root(plan, sources, &cgroup)?;
        run_hooks_before_pivot(plan, &cgroup, &root, &wire)?;
        let console = console.map(|socket| open_console(plan, &root, socket)).transpose().at(Step::Console)?;
        timing::lap(Step::Console);
        enter_root(plan, root).at(Step::EnterRoot)?;
        timing::lap(Step::EnterRoot);
        if let Some(Console { ptmx, peer, socket }) = console {
            console::take(&ptmx, &peer, socket.as_fd(), plan.process.console_size).at(Step::Console)?;
        }
        finish::reopen_null().at(Step::Console)?;
        name_host(plan).at(Step::Hostname)?;
        make_cwd(&plan.process.cwd).at(Step::EnterRoot)?;
        timing::lap(Step::Hostname);
        seal_root(plan, null).at(Step::Seal)?;
        timing::lap(Step::Seal);
        Ok(())
    })();
    if let Err(error) = built {
        return Err((wire, error));
    }
    let user_namespace = finish::UserNamespace::of(plan.namespaces.has(LinuxNamespaceType::User));
    // Once more: it ends with a change of the user.
    let let_in = || owner.let_in(plan);
    finish::become_process(&plan.process, user_namespace, plan.preserve_fds, fifo, wire, let_in)
}

/// A session of its own, and a session keyring unless the caller's is to be kept.
pub(super) fn begin_session(keyring: Option<&str>, labels: &Labels) -> Result<()> {
    setsid().call(|| "setsid()")?;
    let Some(name) = keyring else { return Ok(()) };
    let name = CString::new(name).map_err(|_| Error::Refused("keyring: name with a NUL byte".into()))?;
    labels.with_key_label(|| match sys::keyring::join_session_keyring(&name) {
        // A kernel without keyrings, or a filter around us: nothing of the caller's is shared then either way.
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) => Ok(()),
        Err(errno @ nix::errno::Errno::EDQUOT) => {
            let error = Error::call(format!("keyctl(JOIN_SESSION_KEYRING, {name:?})"), errno);
            Err(error.hinted("the user has no keys left: sysctl kernel.keys.maxkeys, or --no-new-keyring"))
        }
        joined => joined.call(|| format!("keyctl(JOIN_SESSION_KEYRING, {name:?})")),
    })
}

/// Sets the kernel parameters of the new namespaces: before anything of the image is looked at.
fn set_sysctl(plan: &Plan) -> Result<()> {
    if plan.sysctl.is_empty() {
        return Ok(());
    }
    let procfs = Procfs::private()?;
    plan.sysctl.iter().try_for_each(|(path, value)| procfs.write(path, value.as_bytes()).during(|| "linux.sysctl"))
}

/// The root with everything mounted in it.
fn build_root(plan: &Plan, sources: Vec<Option<OwnedFd>>, cgroup: &crate::cgroup::Location) -> Result<Root> {
    let has = |typ| plan.namespaces.has(typ);
    let namespace =
        if plan.namespaces.has(LinuxNamespaceType::Mount) { MountNamespace::New } else { MountNamespace::Inherited };
    // For mount points that have to be made: the caller's mask is not the container's.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let root = Root::attach(&plan.rootfs, plan.rootfs_propagation, namespace);
    let root = root.map_err(|error| rootless::explain_attach(plan, error)).at(Step::AttachRoot)?;
    timing::lap(Step::AttachRoot);
    let env = MountEnv {
        cgroup: &cgroup.directories,
        cgroup_namespace: match plan.namespaces.makes(LinuxNamespaceType::Cgroup) {
            true => CgroupNamespace::Own,
            false if has(LinuxNamespaceType::Cgroup) => CgroupNamespace::Joined,
            false => CgroupNamespace::Host,
        },
        label: plan.mount_label.as_deref(),
    };
    let mut sources = sources.into_iter();
    for mount in &plan.mounts {
        let mounted = root.mount(mount, sources.next().flatten(), &env);
        mounted.map_err(|error| rootless::explain_mount(plan, mount, error)).at(Step::Mount)?;
    }
    timing::lap(Step::Mount);
    // mknod(2) takes a privilege over the initial user namespace.
    let how = if has(LinuxNamespaceType::User) { HowDevices::Bind } else { HowDevices::Mknod };
    root.make_devices(&plan.devices, how).at(Step::Devices)?;
    root.make_dev_links().at(Step::Devices)?;
    timing::lap(Step::Devices);
    Ok(root)
}

fn run_hooks_before_pivot(plan: &Plan, cgroup: &crate::cgroup::Location, root: &Root, wire: &StageEnd) -> Result<()> {
    // A device of its own in the place of /dev/null may be one that init may not open: the same whoever is faster.
    if plan.hooks.before_pivot() || !cgroup.own_devices.is_empty() {
        wire.ask(&FromStage::RunHooks)?;
    }
    if !plan.hooks.create_container.is_empty() {
        let own = nix::unistd::getpid().as_raw();
        root.change_to()?;
        hook::run_all(
            Step::CreateContainer,
            &plan.hooks.create_container,
            || plan.hook_state.json(Status::Creating, own),
            // The parent has one, and knows us by our pids on the host.
            Deadline::NEVER,
        )?;
    }
    Ok(())
}

struct Console {
    ptmx: OwnedFd,
    peer: OwnedFd,
    socket: OwnedFd,
}

/// Makes a pty in the container's devpts and puts it on its `/dev/console`, while the root is still reached by descriptor.
fn open_console(plan: &Plan, root: &Root, socket: OwnedFd) -> Result<Console> {
    let ptmx = root.open_ptmx()?;
    let peer = sys::tty::open_peer(ptmx.as_fd()).call(|| "ioctl(TIOCGPTPEER)")?;
    if plan.namespaces.has(LinuxNamespaceType::Mount) {
        root.bind_console(peer.as_fd())?;
    }
    Ok(Console { ptmx, peer, socket })
}

fn enter_root(plan: &Plan, root: Root) -> Result<()> {
    let how = match (plan.namespaces.has(LinuxNamespaceType::Mount), plan.no_pivot) {
        (false, _) => Enter::Chroot,
        (true, true) => Enter::Move,
        (true, false) => Enter::Pivot,
    };
    root.enter(how)
}

fn name_host(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        sethostname(name).call(|| format!("sethostname({name:?})"))?;
    }
    if let Some(name) = &plan.domainname {
        sys::uts::setdomainname(name.as_bytes()).call(|| format!("setdomainname({name:?})"))?;
    }
    Ok(())
}

/// Makes the working directory if it is missing: before the root is read-only, after it is `/`.
fn make_cwd(cwd: &Path) -> Result<()> {
    match std::fs::create_dir(cwd) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(cwd),
        // It exists, or chdir(2) will say why not.
        _ => Ok(()),
    }
    .call(|| format!("mkdir({cwd:?})"))
    .during(|| "process.cwd")
}

/// `null` for the masks; None without a mount namespace.
fn seal_root(plan: &Plan, null: Option<OwnedFd>) -> Result<()> {
    let Some(null) = null else { return Ok(()) };
    rootfs::read_only_paths(&plan.read_only_paths)?;
    rootfs::mask_paths(&plan.masked_paths, null)?;
    // After those: they bind, which `runbindable` forbids.
    plan.rootfs_propagation.map_or(Ok(()), rootfs::set_root_propagation)?;
    if plan.read_only_root { rootfs::read_only_root() } else { Ok(()) }
}

/// From the word to start to the program. Returns only on failure.
fn launch(plan: &Plan, prepared: &Prepared) -> Result<Infallible> {
    prepared.await_start().at(Step::AwaitStart)?;
    let state = || plan.hook_state.json(Status::Created, nix::unistd::getpid().as_raw());
    // `start` has one, or `run`.
    hook::run_all(Step::StartContainer, &plan.hooks.start_container, state, Deadline::NEVER)?;
    Err(prepared.execute(&plan.process)).at(Step::Exec)
}
