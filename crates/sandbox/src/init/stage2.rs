//! Stage 2, the container's init: makes the container around itself, then becomes its program.
//!
//! The order of the steps is the design; ARCHITECTURE.md, "Why this order", gives the reason for each place.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::{Pid, sethostname, setsid};
use oci_spec::runtime::LinuxNamespaceType;

use super::fifo::ExecFifo;
use super::wire::{FromStage, StageEnd, ToStage};
use super::{Inherited, finish, stage_failed};
use crate::container::Status;
use crate::error::{CallContext, Context};
use crate::plan::Plan;
use crate::rootfs::{self, CgroupNamespace, Enter, HowDevices, MountEnv, MountNamespace, Root};
use crate::step::Step;
use crate::sys::{self, exec::exit_child};
use crate::{Error, Result, console, hook};

/// Who hears of a failure: the parent over the wire, or `start` over the fifo.
enum Listener {
    Parent(StageEnd),
    Starter(ExecFifo),
}

/// Runs stage 2. It ends as the container's program.
pub fn run(plan: &Plan, inherited: Inherited, wire: StageEnd) -> ! {
    let (program, env, listener) = match prepare(plan, inherited, wire) {
        Ok(prepared) => prepared,
        Err((wire, error)) => stage_failed(&wire, error),
    };
    let Err(error) = launch(plan, &program, &env, &listener);
    match listener {
        Listener::Parent(wire) => stage_failed(&wire, error),
        Listener::Starter(fifo) => {
            // A `start` that is gone cannot be told.
            let _gone = fifo.send(&FromStage::Failed(error));
            exit_child(1)
        }
    }
}

type Prepared = (CString, Vec<CString>, Listener);

/// Everything up to the word to start.
fn prepare(plan: &Plan, inherited: Inherited, wire: StageEnd) -> Result<Prepared, (StageEnd, Error)> {
    let Inherited { procfs, sources, console, fifo, cgroup, .. } = inherited;
    let built = (|| {
        begin_session(plan).at(Step::Session)?;
        if plan.namespaces.makes(LinuxNamespaceType::Network) {
            sys::net::loopback_up().call(|| "ioctl(SIOCSIFFLAGS, \"lo\")").at(Step::Network)?;
        }
        let null = rootfs::open_null().at(Step::AttachRoot)?;
        let root = build_root(plan, sources, &cgroup)?;
        run_hooks_before_pivot(plan, &root, &wire)?;
        let console = console.map(|socket| open_console(plan, &root, socket)).transpose().at(Step::Console)?;
        enter_root(plan, root).at(Step::EnterRoot)?;
        if let Some(Console { ptmx, peer, socket }) = console {
            console::take(&ptmx, &peer, socket.as_fd(), plan.process.console_size).at(Step::Console)?;
        }
        finish::reopen_null().at(Step::Console)?;
        name_host(plan).at(Step::Hostname)?;
        if let Some(procfs) = &procfs {
            for (path, value) in &plan.sysctl {
                procfs.write(path, value.as_bytes()).during(|| "linux.sysctl").at(Step::Sysctl)?;
            }
        }
        drop(procfs);
        make_cwd(&plan.process.cwd).at(Step::EnterRoot)?;
        seal_root(plan, null).at(Step::Seal)
    })();
    if let Err(error) = built {
        return Err((wire, error));
    }
    become_process(plan, fifo, wire)
}

fn begin_session(plan: &Plan) -> Result<()> {
    setsid().call(|| "setsid()")?;
    let Some(name) = &plan.keyring else { return Ok(()) };
    let name = CString::new(name.as_str()).map_err(|_| Error::Refused("keyring: name with a NUL byte".into()))?;
    match sys::keyring::join_session_keyring(&name) {
        // A kernel without keyrings, or a filter around us: nothing of the caller's is shared then either way.
        Err(nix::errno::Errno::ENOSYS | nix::errno::Errno::EPERM) => Ok(()),
        joined => joined.call(|| format!("keyctl(JOIN_SESSION_KEYRING, {name:?})")),
    }
}

/// The root with everything mounted in it.
fn build_root(plan: &Plan, sources: Vec<Option<OwnedFd>>, cgroup: &crate::cgroup::Location) -> Result<Root> {
    let has = |typ| plan.namespaces.has(typ);
    let namespace = if plan.namespaces.has(LinuxNamespaceType::Mount) {
        MountNamespace::New
    } else {
        MountNamespace::Inherited
    };
    let root = Root::attach(&plan.rootfs, plan.rootfs_propagation, namespace).at(Step::AttachRoot)?;
    let env = MountEnv {
        cgroup: &cgroup.directories,
        cgroup_namespace: if has(LinuxNamespaceType::Cgroup) { CgroupNamespace::Private } else { CgroupNamespace::Host },
        label: None,
    };
    let mut sources = sources.into_iter();
    for mount in &plan.mounts {
        root.mount(mount, sources.next().flatten(), &env).at(Step::Mount)?;
    }
    let dev_is_the_hosts =
        plan.mounts.iter().any(|mount| mount.is_bind() && mount.destination == Path::new("/dev"));
    if !dev_is_the_hosts {
        // mknod(2) takes a privilege over the initial user namespace.
        let how = if has(LinuxNamespaceType::User) { HowDevices::Bind } else { HowDevices::Mknod };
        root.make_devices(&plan.devices, how).at(Step::Devices)?;
        root.make_dev_links().at(Step::Devices)?;
    }
    Ok(root)
}

fn run_hooks_before_pivot(plan: &Plan, root: &Root, wire: &StageEnd) -> Result<()> {
    if plan.hooks.before_pivot_in_runtime() {
        wire.ask(&FromStage::RunHooks)?;
    }
    if !plan.hooks.create_container.is_empty() {
        let own = nix::unistd::getpid().as_raw();
        nix::unistd::fchdir(root.as_fd()).call(|| "fchdir(root)")?;
        hook::run_all(
            Step::CreateContainer,
            &plan.hooks.create_container,
            &plan.hook_state.json(Status::Creating, own),
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

fn seal_root(plan: &Plan, null: OwnedFd) -> Result<()> {
    if !plan.namespaces.has(LinuxNamespaceType::Mount) {
        return Ok(());
    }
    rootfs::set_root_propagation(plan.rootfs_propagation)?;
    rootfs::read_only_paths(&plan.read_only_paths)?;
    rootfs::mask_paths(&plan.masked_paths, null.as_fd())?;
    if plan.read_only_root { rootfs::read_only_root() } else { Ok(()) }
}

/// Resource limits may lower ours: after all that opens files. In a user namespace only the parent may raise them.
fn limit(plan: &Plan, wire: &StageEnd) -> Result<()> {
    if plan.process.rlimits.is_empty() {
        Ok(())
    } else if plan.namespaces.has(LinuxNamespaceType::User) {
        wire.ask(&FromStage::SetLimits).map(drop)
    } else {
        finish::set_rlimits(Pid::from_raw(0), &plan.process.rlimits)
    }
}

/// Becomes the process that the configuration describes, but for its program, and waits for the word.
fn become_process(
    plan: &Plan,
    mut fifo: Option<ExecFifo>,
    mut wire: StageEnd,
) -> Result<Prepared, (StageEnd, Error)> {
    let mut ready = || {
        // Before the working directory is entered: no descriptor of the host may be a way out (CVE-2024-21626). And
        // before the limits, which may leave no room to move one.
        match &mut fifo {
            Some(fifo) => sys::fd::close_others(plan.preserve_fds, [wire.fd_mut(), fifo.fd_mut()]),
            None => sys::fd::close_others(plan.preserve_fds, [wire.fd_mut()]),
        }
        .call(|| "close_range()")
        .at(Step::Credentials)?;
        limit(plan, &wire)?;
        let mut env = plan.process.env.clone();
        finish::add_home(&mut env, plan.process.uid);
        finish::become_user(&plan.process, true).at(Step::Credentials)?;
        let program = finish::find_program(&plan.process.args[0], &env).at(Step::FindProgram)?;
        Ok((program, env, wire.ask(&FromStage::Ready)?))
    };
    match (ready(), fifo) {
        (Ok((program, env, ToStage::AwaitStart)), Some(fifo)) => Ok((program, env, Listener::Starter(fifo))),
        (Ok((program, env, _)), _) => Ok((program, env, Listener::Parent(wire))),
        (Err(error), _) => Err((wire, error)),
    }
}

/// From the word to start to the program. Returns only on failure.
fn launch(plan: &Plan, program: &CString, env: &[CString], listener: &Listener) -> Result<Infallible> {
    if let Listener::Starter(fifo) = listener {
        sys::signal::exit_when_asked().call(|| "sigaction()").at(Step::AwaitStart)?;
        fifo.wait().at(Step::AwaitStart)?;
    }
    if !plan.hooks.start_container.is_empty() {
        let own = nix::unistd::getpid().as_raw();
        hook::run_all(
            Step::StartContainer,
            &plan.hooks.start_container,
            &plan.hook_state.json(Status::Created, own),
        )?;
    }
    Err(finish::execute(program, &plan.process, env)).at(Step::Exec)
}
