//! `restore`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};
use oci_spec::runtime::LinuxNamespaceType;

use super::checkpoint::{CriuOptions, check, external_namespace, shared};
use super::create::{self, Detach, Ground, Terminal, open_terminal, place_in_scope, undo};
use super::{CreateOptions, RunOptions, Runtime, Status};
use crate::criu::image::{Description, Images};
use crate::criu::rpc::{ExtMount, InheritFd, JoinNamespace, Options, Type};
use crate::criu::{self, Birth, DIRECTORY, Notice, Unborn};
use crate::deadline::{Deadline, TO_MAKE};
use crate::error::{CallContext, Context};
use crate::foreground::{self, Signals};
use crate::init::parent::end_child;
use crate::intel_rdt::{self, Groups};
use crate::notify::Proxy;
use crate::plan::Plan;
use crate::rootfs::{self, Expected, Seen, Stage};
use crate::step::Step;
use crate::store::Locked;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, hook, notify};

/// How to bring a container back, besides what create and run are told.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What checkpoint has too.
    pub criu: CriuOptions,
    /// TCP connections come back closed.
    pub tcp_close: bool,
    /// The label of the processes, `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts.
    pub lsm_mount_context: Option<String>,
}

const LOG: &str = "restore.log";

/// A container that is back.
struct Back {
    locked: Locked,
    cgroup: Box<dyn crate::cgroup::Cgroup>,
    plan: Plan,
    record: crate::store::Record,
    init: Pid,
    ptmx: Option<OwnedFd>,
    /// Where the container says that it is ready, if it has not done so before it was saved.
    notify: Option<Proxy>,
}

impl Runtime {
    /// Makes a container out of a checkpoint and the bundle; in the foreground waits, and returns the exit code (128 + signal
    /// if killed).
    ///
    /// # Errors
    /// What failed; nothing is left behind.
    pub fn restore(&self, id: &str, create: &CreateOptions, run: RunOptions, options: &RestoreOptions) -> Result<i32> {
        let signals = if run.detach { None } else { Some(Signals::take()?) };
        if signals.is_some() && !run.no_subreaper {
            nix::sys::prctl::set_child_subreaper(true).call(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
        }
        let detach = if run.detach { Detach::Yes } else { Detach::No };
        let Back { locked, cgroup, plan, record, init, ptmx, notify } = self.bring_back(id, create, detach, options)?;
        // Others may look at it, stop it, delete it, while we wait.
        drop(locked);
        let Some(signals) = signals else { return Ok(0) };
        let code = foreground::wait(init, &signals, ptmx, notify);
        self.remove_ended(id, cgroup.as_ref(), &plan, &record)?;
        code
    }

    fn bring_back(&self, id: &str, create: &CreateOptions, detach: Detach, options: &RestoreOptions) -> Result<Back> {
        let proof = SingleThreaded::verify()?;
        let deadline = self.deadline(TO_MAKE);
        crate::store::check_id(id)?;
        let program = criu::find()?;
        let (bundle, mut plan) = self.plan(id, create).at(Step::Plan)?;
        let images = Images::open(&options.criu.image_path, false).during(|| "--image-path")?;
        let work = options.criu.work_path.as_deref().map(|path| Images::open(path, true).during(|| "--work-path"));
        let work = work.transpose()?;
        let saved = images.read().during(|| "--image-path")?;
        // Of the runtime's own, and not in the configuration: see `notify`.
        let notifies = saved.mounted.has_bind(notify::IN_CONTAINER.as_ref())
            && !plan.mounts.iter().any(|mount| mount.destination == Path::new(notify::IN_CONTAINER));
        if notifies {
            notify::plan(&mut plan, &self.root.join(id)).at(Step::Plan)?;
        }
        saved.mounted.check(&plan.mounts).at(Step::Plan)?;
        let terminal = open_terminal(plan.process.terminal, create.console_socket.as_deref(), detach, deadline);
        let mut terminal = Receiver::new(terminal.at(Step::Console)?);
        let rdt = plan.intel_rdt.as_ref().map(|rdt| intel_rdt::locate(rdt, id)).transpose().at(Step::Plan)?;
        let resctrl = rdt.as_ref().map(Groups::to_remove).unwrap_or_default();
        let ground = self.lay_ground(id, &bundle, &plan, resctrl, deadline)?;
        let log = work.as_ref().unwrap_or(&images).path().join(LOG);
        let opts = shared(&options.criu, LOG);
        let mut notify = None;
        let restored = (|| {
            if notifies {
                notify::prepare(&ground.locked).at(Step::Mount)?;
                // Who detaches waits for nothing: most have said it before they were saved.
                let host = create.notify_socket.as_deref().filter(|_| detach == Detach::No);
                notify = host.map(|host| Proxy::bind(&ground.locked, host, deadline)).transpose()?.flatten();
            }
            if !ground.cgroup.wants_process() {
                create::allow_devices(ground.cgroup.as_ref(), &ground.first, ground.rootless)?;
            }
            rdt.as_ref().map_or(Ok(()), Groups::create).at(Step::MakeCgroup)?;
            let restore = Restore {
                proof,
                ground: &ground,
                plan: &plan,
                images: &images,
                work: work.as_ref(),
                saved: &saved,
                rdt: rdt.as_ref(),
                create,
                options,
                deadline,
                patience: self.only_if_asked(deadline),
            };
            restore.run(&program, opts, &log, &mut terminal)
        })();
        let Ground { locked, cgroup, record, late, .. } = ground;
        let after = if self.timeout.is_some() { deadline } else { self.deadline(TO_MAKE) };
        let limited = restored.and_then(|init| {
            create::limit_late(cgroup.as_ref(), late, after).map(|()| init).inspect_err(|_| end_child(init))
        });
        match limited {
            Ok(init) => Ok(Back { locked, cgroup, plan, record, init, ptmx: terminal.own, notify }),
            Err(error) => {
                undo(locked, cgroup.as_ref(), &plan, &record);
                Err(error)
            }
        }
    }
}

/// What becomes of the terminal's master side.
struct Receiver {
    terminal: Terminal,
    own: Option<OwnedFd>,
}

impl Receiver {
    fn new(terminal: Terminal) -> Self {
        Self { terminal, own: None }
    }

    fn take(&mut self, ptmx: OwnedFd) -> Result<()> {
        match &self.terminal {
            Terminal::None => Err(Error::Refused("process.terminal: the checkpoint has a terminal".into())),
            Terminal::Client(socket) => crate::console::hand_over(socket.as_fd(), ptmx.as_fd()),
            Terminal::Own(..) => {
                self.own = Some(ptmx);
                Ok(())
            }
        }
    }
}

/// One restore, on prepared ground.
struct Restore<'a> {
    proof: SingleThreaded,
    ground: &'a Ground<'a>,
    plan: &'a Plan,
    images: &'a Images,
    work: Option<&'a Images>,
    saved: &'a Description,
    rdt: Option<&'a Groups>,
    create: &'a CreateOptions,
    options: &'a RestoreOptions,
    /// For hooks and the cgroup.
    deadline: Deadline,
    /// For CRIU, which takes the time that the container's memory takes.
    patience: Deadline,
}

impl Restore<'_> {
    fn run(&self, program: &std::ffi::CString, mut opts: Options, log: &Path, terminal: &mut Receiver) -> Result<Pid> {
        let Ground { locked, cgroup, .. } = self.ground;
        let stage_directory = locked.path().join(DIRECTORY);
        // What is on it is for the root of a user namespace too.
        mkdirat(locked.dir(), DIRECTORY, Mode::from_bits_truncate(0o711))
            .call(|| format!("mkdir({stage_directory:?})"))?;
        let joined = open_joined(self.plan).at(Step::JoinNamespaces)?;
        let sources = rootfs::clone_mapped_sources(self.plan, self.proof, &joined).at(Step::Mount)?;
        let stage = Stage {
            directory: &stage_directory,
            plan: self.plan,
            saved: &self.saved.mounted,
            cgroup: &cgroup.location().directories,
            sources: &sources,
        };
        let entrances = cgroup.entrances().at(Step::EnterCgroup)?;
        let groups = self.rdt.map(Groups::entrances).transpose().at(Step::EnterCgroup)?.unwrap_or_default();
        let prepare = || {
            for entrance in entrances.iter().chain(&groups) {
                // For a process of one thread, which a fork is.
                nix::unistd::write(entrance, b"0").call(|| "write(cgroup)").at(Step::EnterCgroup)?;
            }
            let laid = stage.set().at(Step::Mount)?;
            criu::propagation::cover(self.images.path(), stage.directory, &laid).at(Step::Mount)
        };
        let target = cgroup.clone_target()?;
        let kept: Vec<BorrowedFd<'_>> = joined.iter().map(AsFd::as_fd).collect();
        let birth = Birth {
            program,
            cgroup: target.as_ref().map(AsFd::as_fd),
            kept: &kept,
            images: self.images.path(),
            work: self.work.map(Images::path),
        };
        let (unborn, process) = Unborn::fork(self.proof, &birth, prepare)?;
        if cgroup.wants_process() {
            let Ground { first, rootless, .. } = self.ground;
            place_in_scope(cgroup.as_ref(), process, first, *rootless, self.plan.cgroup_owner, self.deadline)?;
        }
        let mut session = unborn.proceed(self.patience)?;
        self.fill(&mut opts, process, &stage, &joined)?;
        let mut init = None;
        let notice = &mut |notice: Notice| {
            init = Some(notice.pid).filter(|pid| *pid > 0).or(init);
            self.notice(notice, terminal)
        };
        let answered = session.ask(Type::Restore, opts, notice, self.patience);
        let answered = answered.and_then(|response| session.finish(self.patience).map(|()| response));
        drop(session);
        unlinkat(locked.dir(), DIRECTORY, UnlinkatFlags::RemoveDir).call(|| format!("rmdir({stage_directory:?})"))?;
        let checked = answered.and_then(|response| check(&response, log).map(|()| response));
        match checked.map(|response| response.restore) {
            Ok(Some(restored)) => Ok(Pid::from_raw(restored.pid)),
            Ok(None) => Err(Error::Refused("criu does not say what it has restored".into())),
            Err(error) => {
                // A child of ours, dead or about to be: CRIU takes back what it has made.
                if let Some(pid) = init {
                    end_child(Pid::from_raw(pid));
                }
                Err(error)
            }
        }
    }

    fn fill(&self, opts: &mut Options, process: Pid, stage: &Stage<'_>, joined: &[OwnedFd]) -> Result<()> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| Error::Refused(format!("{path:?}: not UTF-8")))
        };
        opts.config_file =
            criu::config_file(self.plan.hook_state.annotations.get("org.criu.config").map(String::as_str));
        opts.root = Some(text(&stage.root())?);
        opts.rst_sibling = Some(true);
        opts.orphan_pts_master = Some(self.plan.process.terminal);
        opts.tcp_close = Some(self.options.tcp_close);
        opts.lsm_profile.clone_from(&self.options.lsm_profile);
        opts.lsm_mount_context.clone_from(&self.options.lsm_mount_context);
        for index in 0..self.saved.mounted.outside.len() {
            opts.ext_mnt.push(ExtMount { key: index.to_string(), val: text(&stage.path(index))? });
        }
        for (fd, name) in (0..).zip(&self.saved.stdio) {
            if !name.is_empty() && !opts.inherit_fd.iter().any(|inherited| inherited.key == *name) {
                opts.inherit_fd.push(InheritFd { key: name.clone(), fd });
            }
        }
        for ((typ, path), file) in self.plan.namespaces.joined.iter().zip(joined) {
            match external_namespace(*typ) {
                Some((_, name)) => opts.inherit_fd.push(InheritFd { key: name.to_owned(), fd: file.as_raw_fd() }),
                None if *typ == LinuxNamespaceType::Cgroup || *typ == LinuxNamespaceType::Mount => {
                    return Err(Error::Refused(format!("linux.namespaces: CRIU cannot join a {typ} namespace")));
                }
                None => opts.join_ns.push(JoinNamespace { ns: typ.to_string(), ns_file: text(path)? }),
            }
        }
        let mode = criu::cgroups::mode(self.options.criu.cgroup_mode, process, stage.cgroup)?;
        opts.manage_cgroups_mode = Some(mode as i32);
        opts.cg_root = criu::cgroups::roots(process)?;
        Ok(())
    }

    fn notice(&self, notice: Notice, terminal: &mut Receiver) -> Result<()> {
        match (notice.script.as_str(), notice.fd) {
            ("orphan-pts-master", Some(ptmx)) => terminal.take(ptmx).at(Step::Console),
            ("setup-namespaces", _) => {
                let state = || self.plan.hook_state.json(Status::Creating, notice.pid);
                hook::run_all(Step::Prestart, &self.plan.hooks.prestart, state, self.deadline)?;
                hook::run_all(Step::CreateRuntime, &self.plan.hooks.create_runtime, state, self.deadline)
            }
            // Everything is back and nothing runs yet.
            ("post-restore", _) => {
                let init = Pid::from_raw(notice.pid);
                self.check_mounts(init).at(Step::Mount)?;
                create::announce(&self.ground.locked, self.create, init, None)
            }
            _ => Ok(()),
        }
    }

    /// Sees that every mount is where it was when it was saved.
    fn check_mounts(&self, init: Pid) -> Result<()> {
        let devices = if self.plan.namespaces.has(LinuxNamespaceType::User) {
            rootfs::bound_devices(&self.plan.devices)
        } else {
            Vec::new()
        };
        let expected = Expected {
            mounts: &self.plan.mounts,
            masked: &self.plan.masked_paths,
            devices: &devices,
            cgroup: &self.ground.cgroup.location().directories,
        };
        let saved = &self.saved.mounted;
        let mut now = rootfs::look(init, expected)?;
        let loosened = saved.loosened(&now);
        if !loosened.is_empty() {
            tracing::debug!("restricted again: {loosened:?}");
            restrict(self.proof, init, &loosened)?;
            now = rootfs::look(init, expected)?;
        }
        saved.check_restored(&now)
    }
}

/// Restricts mounts of the container, in a process that enters its mount namespace. Whether that has done what it should is
/// to be seen by a look at them.
fn restrict(proof: SingleThreaded, init: Pid, mounts: &[&Seen]) -> Result<()> {
    let open = |name: &str| {
        let path = format!("/proc/{init}/{name}");
        File::open(&path).map(OwnedFd::from).call(|| format!("open({path:?})"))
    };
    let (root, namespace) = (open("root")?, open("ns/mnt")?);
    match clone3(proof, 0, None, None).call(|| "clone3()")? {
        Side::Child => {
            let entered = setns(&namespace, CloneFlags::CLONE_NEWNS).call(|| "setns()");
            let done = entered.and_then(|()| rootfs::restrict(&root, mounts));
            exit_child(done.is_err().into())
        }
        Side::Parent(child) => waitpid(child, None).map(drop).call(|| format!("waitpid({child})")),
    }
}

fn open_joined(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let open = |(typ, path): &(LinuxNamespaceType, std::path::PathBuf)| {
        File::open(path)
            .map(OwnedFd::from)
            .call(|| format!("open({path:?})"))
            .during(|| format!("linux.namespaces: {typ}"))
    };
    plan.namespaces.joined.iter().map(open).collect()
}
