//! `create` and `run`.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};
use tare_spec::Bundle;

use super::{CreateOptions, RunOptions, Runtime, delete};
use crate::cgroup::{self, Cgroup, permission};
use crate::container::Status;
use crate::deadline::{Deadline, TO_CHANGE, TO_MAKE, TO_UNDO};
use crate::error::{CallContext, Context};
use crate::foreground::{self, Signals};
use crate::init::parent::{self, Asked, Birthplace, Ready, end_child};
use crate::init::{ForStage1, ForStage2, Owner, Placement, fifo, stage1};
use crate::intel_rdt::{self, Groups};
use crate::notify::{self, Proxy};
use crate::plan::Plan;
use crate::procfs::Procfs;
use crate::rootfs::CallersRoot;
use crate::seccomp::Filter;
use crate::step::Step;
use crate::store::{Init, Locked, Record, RecordedHooks, write_pid_file};
use crate::sys::pidfd;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, console, hook, peer, rootfs, sys, timing, userns};

/// Where the master side of the container's terminal goes.
pub(super) enum Terminal {
    None,
    /// To a client's socket: (the stage's end).
    Client(OwnedFd),
    /// To ourselves: (ours, the stage's end).
    Own(OwnedFd, OwnedFd),
}

impl Terminal {
    /// Our end and the stage's.
    pub(super) fn split(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        match self {
            Self::None => (None, None),
            Self::Client(socket) => (None, Some(socket)),
            Self::Own(ours, stages) => (Some(ours), Some(stages)),
        }
    }
}

/// A container that is complete but for the execution of its program, under its lock.
struct Made {
    locked: Locked,
    cgroup: Box<dyn Cgroup>,
    plan: Plan,
    record: Record,
    ready: Ready,
    /// Where our terminal arrives.
    terminal: Option<OwnedFd>,
    /// Where the container says that it is ready.
    notify: Option<Proxy>,
}

/// What a container stands on before it has a process, under its lock.
pub(super) struct Ground<'p> {
    pub(super) locked: Locked,
    pub(super) cgroup: Box<dyn Cgroup>,
    pub(super) record: Record,
    /// The limits for before init is.
    pub(super) first: Cow<'p, LinuxResources>,
    /// Those for after.
    pub(super) late: Option<LinuxResources>,
    pub(super) rootless: bool,
}

impl Runtime {
    /// Builds the container; its process waits for [`Runtime::start`].
    ///
    /// # Errors
    /// What failed; nothing is left behind.
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<()> {
        let Made { locked, cgroup, plan, record, ready, .. } =
            self.make(id, options, Waits::AtFifo, Detach::Yes, self.deadline(TO_MAKE))?;
        match ready.await_start() {
            Ok(()) => Ok(()),
            Err(error) => {
                undo(locked, cgroup.as_ref(), &plan, &record);
                Err(error)
            }
        }
    }

    /// Creates and starts; in the foreground waits, and returns the exit code (128 + signal if killed).
    ///
    /// # Errors
    /// What failed; nothing is left behind.
    pub fn run(&self, id: &str, options: &CreateOptions, run: RunOptions) -> Result<i32> {
        let signals = if run.detach { None } else { Some(Signals::take()?) };
        if signals.is_some() && !run.no_subreaper {
            nix::sys::prctl::set_child_subreaper(true).call(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
        }
        let detach = if run.detach { Detach::Yes } else { Detach::No };
        let deadline = self.deadline(TO_MAKE);
        let Made { locked, cgroup, plan, record, ready, terminal, notify } =
            self.make(id, options, Waits::OnWire, detach, deadline)?;
        let init = ready.init;
        // A start that fails leaves no process.
        let begun = ready.start().and_then(|()| {
            let state = || plan.hook_state.json(Status::Running, init.as_raw());
            terminal
                .map(|socket| console::receive(&socket))
                .transpose()
                .and_then(|ptmx| hook::run_all(Step::Poststart, &plan.hooks.poststart, state, deadline).map(|()| ptmx))
                .inspect_err(|_| end_child(init))
        });
        let ptmx = match begun {
            Ok(ptmx) => ptmx,
            Err(error) => {
                undo(locked, cgroup.as_ref(), &plan, &record);
                return Err(error);
            }
        };
        // Others may look at it, stop it, delete it, while we wait.
        drop(locked);
        let Some(signals) = signals else {
            if let Err(error) = notify::wait(notify, init, self.only_if_asked(deadline)) {
                end_child(init);
                // What is reported is the cause; what could not be removed is found by `delete --force`.
                let _left = self.remove_ended(id, cgroup.as_ref(), &plan, &record);
                return Err(error);
            }
            return Ok(0);
        };
        let code = foreground::wait(init, &signals, ptmx, notify);
        timing::lap(Step::Wait);
        if !run.keep {
            self.remove_ended(id, cgroup.as_ref(), &plan, &record)?;
        }
        code
    }

    /// Removes the container of a foreground command, unless somebody has done so meanwhile.
    pub(super) fn remove_ended(&self, id: &str, cgroup: &dyn Cgroup, plan: &Plan, record: &Record) -> Result<()> {
        let deadline = self.deadline(TO_CHANGE);
        match self.store().open(id).and_then(|entry| entry.lock(deadline)) {
            Ok(locked) => delete::remove(locked, None, cgroup, &plan.hooks.poststop, record, deadline),
            Err(Error::NotExist) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the bundle describes, and what is to be done for it.
    pub(super) fn plan(&self, id: &str, options: &CreateOptions) -> Result<(Bundle, Plan)> {
        let mut bundle = match &options.config {
            Some(config) => Bundle::load_config(&options.bundle, config),
            None => Bundle::load(&options.bundle),
        }?;
        let plan = Plan::new(id, &mut bundle, options)?;
        if !geteuid().is_root() {
            plan.check_for_user()?;
        }
        plan.process.labels.check_host(plan.mount_label.as_deref())?;
        Ok((bundle, plan))
    }

    fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(userns::is_rootless)
    }

    /// Where the cgroup of the container goes, less what a user may not make.
    ///
    /// # Errors
    /// What [`cgroup::locate`] says; a limit that takes what its user may not make.
    pub fn locate_cgroup(&self, id: &str, bundle: &Bundle, plan: &Plan) -> Result<cgroup::Location> {
        self.locate_cgroup_for(self.is_rootless(), id, bundle, plan)
    }

    fn locate_cgroup_for(&self, rootless: bool, id: &str, bundle: &Bundle, plan: &Plan) -> Result<cgroup::Location> {
        let path = cgroups_path(bundle);
        let location = match rootless {
            true => permission::locate(self.cgroup_driver, path, id, &plan.resources),
            false => cgroup::locate(self.cgroup_driver, path, id),
        }?;
        Ok(cgroup::Location { own_devices: cgroup::own_devices(&plan.devices), ..location })
    }

    /// Claims the name and makes what is there before any process: the record, and the cgroup with its limits but those of devices, unless
    /// that [`Cgroup::wants_process`].
    pub(super) fn lay_ground<'p>(
        &self,
        id: &str,
        bundle: &Bundle,
        plan: &'p Plan,
        resctrl: Vec<PathBuf>,
        deadline: Deadline,
    ) -> Result<Ground<'p>> {
        let rootless = self.is_rootless();
        let location = self.locate_cgroup_for(rootless, id, bundle, plan).at(Step::MakeCgroup)?;

        let locked = self.store().claim(id).at(Step::Claim)?;
        let (first, late) = split_late(&plan.resources);
        let cgroup =
            match cgroup::prepare(&location, id, &first, plan.hook_state.annotations.as_ref()).at(Step::MakeCgroup) {
                Ok(cgroup) => cgroup,
                Err(error) => return Err(give_up(locked, error)),
            };
        let record = match record(id, bundle, plan, location, resctrl).at(Step::AttachRoot) {
            Ok(record) => record,
            Err(error) => return Err(give_up(locked, error)),
        };
        if let Err(error) =
            locked.write_config(&bundle.config).and_then(|()| locked.write_record(&record)).at(Step::Claim)
        {
            return Err(give_up(locked, error));
        }
        timing::lap(Step::Claim);
        if !cgroup.wants_process() {
            // A cgroup that create refuses is somebody else's: not ours to remove.
            let made = cgroup.create(deadline).map_err(|error| permission::explain(error, cgroup.location()));
            if let Err(error) = made.at(Step::MakeCgroup) {
                return Err(give_up(locked, error));
            }
            if let Err(error) = limit(cgroup.as_ref(), &first, plan.cgroup_owner) {
                return Err(give_up_ground(locked, cgroup.as_ref(), error));
            }
        }
        timing::lap(Step::MakeCgroup);
        Ok(Ground { locked, cgroup, record, first, late, rootless })
    }

    /// From the bundle to a process that waits for the word to execute its program.
    fn make(
        &self,
        id: &str,
        options: &CreateOptions,
        waits: Waits,
        detach: Detach,
        deadline: Deadline,
    ) -> Result<Made> {
        let single_threaded = SingleThreaded::verify()?;
        // What cannot be killed by a handle must not be made: under a filter without the call nobody could delete it.
        pidfd::probe().call(|| "pidfd_open()")?;
        crate::store::check_id(id)?;
        let (bundle, mut plan) = self.plan(id, options).at(Step::Plan)?;
        if options.notify_socket.is_some() {
            notify::plan(&mut plan, &self.root.join(id)).at(Step::Plan)?;
        }
        timing::lap(Step::Plan);
        let rdt = plan.intel_rdt.as_ref().map(|rdt| intel_rdt::locate(rdt, id)).transpose().at(Step::Plan)?;
        let resctrl = rdt.as_ref().map(Groups::to_remove).unwrap_or_default();
        let terminal = open_terminal(plan.process.terminal, options.console_socket.as_deref(), detach, deadline)
            .at(Step::Console)?;
        let pidfd_socket = options.pidfd_socket.as_deref().map(|path| peer::connect_to(path, deadline)).transpose()?;
        let receiver = plan.process.seccomp.as_ref().and_then(Filter::listener);
        let listener = receiver
            .map(|receiver| receiver.listener(&plan.hook_state, Status::Creating, None, deadline))
            .transpose()
            .at(Step::Seccomp)?;
        let Ground { locked, cgroup, record, first, late, rootless } =
            self.lay_ground(id, &bundle, &plan, resctrl, deadline)?;
        // Now: after the fork each page of memory that is given back would first be copied.
        drop(bundle);
        let around = cgroup.wants_process();
        let place = |stage1| place_in_scope(cgroup.as_ref(), stage1, &first, rootless, plan.cgroup_owner, deadline);
        if let Err(error) = rdt.as_ref().map_or(Ok(()), Groups::create).at(Step::MakeCgroup) {
            return Err(give_up_ground(locked, cgroup.as_ref(), error));
        }
        tracing::debug!("made the cgroup {:?}", cgroup.location().directories);
        let (ours, stages) = terminal.split();
        let mut notify = None;
        let built = (|| {
            if let Some(host) = &options.notify_socket {
                notify::prepare(&locked).at(Step::Mount)?;
                // For create it is start that has the service manager's attention.
                notify = if matches!(waits, Waits::OnWire) { Proxy::bind(&locked, host, deadline)? } else { None };
            }
            let fifo = matches!(waits, Waits::AtFifo).then(|| fifo::make(&locked)).transpose()?;
            let (mut own, next) = inherit(&plan, single_threaded, cgroup.as_ref(), stages, fifo)?;
            if let Some(groups) = &rdt {
                own.entrances.extend(groups.entrances().at(Step::EnterCgroup)?);
            }
            if let Some(root) = record.callers_root {
                root.attach(&plan.rootfs).at(Step::AttachRoot)?;
            }
            let guard = || {
                allow_devices(cgroup.as_ref(), &first, rootless)?;
                timing::lap(Step::AllowDevices);
                Ok(())
            };
            let asked = Asked {
                meanwhile: (!around).then_some(&guard),
                place: around.then_some(&place),
                rlimits: &plan.process.rlimits,
                scheduling: plan.process.scheduling,
                plan: Some(&plan),
                listener: listener.as_ref(),
                deadline,
            };
            let birthplace = Birthplace { cgroup: cgroup.clone_target()?, otherwise: &|| Ok(None) };
            parent::build(single_threaded, birthplace, asked, |wire, birth| stage1::run(&plan, own, next, wire, birth))
        })();
        let announced = built.and_then(|ready| {
            match limit_late(cgroup.as_ref(), late, deadline)
                .and_then(|()| announce(&locked, options, ready.init, pidfd_socket.as_ref()))
            {
                Ok(()) => Ok(ready),
                Err(error) => {
                    ready.end();
                    Err(error)
                }
            }
        });
        match announced {
            Ok(ready) => {
                timing::lap(Step::Announce);
                tracing::debug!("init is process {}, ready to execute {:?}", ready.init, plan.process.args);
                Ok(Made { locked, cgroup, plan, record, ready, terminal: ours, notify })
            }
            Err(error) => {
                undo(locked, cgroup.as_ref(), &plan, &record);
                Err(error)
            }
        }
    }
}

/// Where init waits for the word to execute its program.
enum Waits {
    AtFifo,
    OnWire,
}

/// Whether the command returns while the process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detach {
    Yes,
    No,
}

pub(super) fn open_terminal(
    wanted: bool,
    console_socket: Option<&Path>,
    detach: Detach,
    deadline: Deadline,
) -> Result<Terminal> {
    match (console_socket, wanted, detach) {
        (Some(path), true, Detach::Yes) => {
            peer::connect_to(path, deadline).map(Terminal::Client).during(|| "--console-socket")
        }
        (None, true, Detach::Yes) => Err(Error::Refused(
            "process.terminal: cannot allocate tty if the runtime will detach without setting console socket".into(),
        )),
        (Some(_), ..) => Err(Error::Refused(
            "--console-socket: cannot use console socket if the runtime will not detach or allocate tty".into(),
        )),
        (None, true, Detach::No) => console::own_pair().map(|(ours, stages)| Terminal::Own(ours, stages)),
        (None, false, _) => Ok(Terminal::None),
    }
}

fn cgroups_path(bundle: &Bundle) -> Option<&Path> {
    bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref())
}

fn record(id: &str, bundle: &Bundle, plan: &Plan, cgroup: cgroup::Location, resctrl: Vec<PathBuf>) -> Result<Record> {
    let shares_mounts = !plan.namespaces.has(LinuxNamespaceType::Mount);
    Ok(Record {
        oci_version: plan.hook_state.oci_version.clone(),
        id: id.to_owned(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        annotations: Arc::clone(&plan.hook_state.annotations),
        cgroup,
        resctrl,
        callers_root: shares_mounts.then(|| CallersRoot::of(&plan.rootfs)).transpose()?,
        own_pid_namespace: plan.namespaces.makes(LinuxNamespaceType::Pid),
        hooks: RecordedHooks { poststart: !plan.hooks.poststart.is_empty(), poststop: !plan.hooks.poststop.is_empty() },
    })
}

/// Makes the cgroup around `process`, which waits meanwhile, and limits it: no moment without limits here either.
pub(super) fn place_in_scope(
    cgroup: &dyn Cgroup,
    process: Pid,
    first: &LinuxResources,
    rootless: bool,
    owner: Option<u32>,
    deadline: Deadline,
) -> Result<()> {
    let made = cgroup.create_around(process, deadline).map_err(|error| permission::explain(error, cgroup.location()));
    made.at(Step::MakeCgroup)?;
    limit(cgroup, first, owner)?;
    allow_devices(cgroup, first, rootless)
}

/// Before anything enters: a limit that cannot be had stops the container before it exists.
/// And then the container's user may have what is left: `owner` is a uid of the host.
fn limit(cgroup: &dyn Cgroup, resources: &LinuxResources, owner: Option<u32>) -> Result<()> {
    cgroup
        .apply(resources)
        .and_then(|()| owner.map_or(Ok(()), |uid| cgroup::delegate(cgroup.location(), uid)))
        .map_err(|error| permission::explain(error, cgroup.location()))
        .at(Step::MakeCgroup)
}

/// Before anything of the container's is executed. What the stages do with devices every container may do: to make them, and to open null
/// and terminals.
pub(super) fn allow_devices(cgroup: &dyn Cgroup, resources: &LinuxResources, rootless: bool) -> Result<()> {
    let rules = resources.devices().as_deref().unwrap_or_default();
    match rootless {
        true => permission::allow_devices_if_permitted(cgroup, rules),
        false => cgroup.allow_devices(rules),
    }
    .map_err(|error| permission::explain(error, cgroup.location()))
    .at(Step::AllowDevices)
}

/// The limits for before init is, and those for after. A limit of one process would keep stage 1, which is in the cgroup,
/// from making init: it waits until stage 1 is gone. None for all other limits.
fn split_late(resources: &LinuxResources) -> (Cow<'_, LinuxResources>, Option<LinuxResources>) {
    const FILE: &str = "pids.max";
    let field = resources.pids().filter(|pids| (0..=1).contains(&pids.limit()));
    let mut unified = resources.unified().clone().unwrap_or_default();
    let file = unified.remove(FILE).filter(|value| matches!(value.trim(), "0" | "1"));
    if field.is_none() && file.is_none() {
        return (Cow::Borrowed(resources), None);
    }
    let (mut first, mut late) = (resources.clone(), LinuxResources::default());
    late.set_pids(*first.pids());
    first.set_pids(None);
    if let Some(limit) = resources.unified().as_ref().and_then(|unified| unified.get(FILE)) {
        late.set_unified(Some([(FILE.to_owned(), limit.clone())].into()));
        first.set_unified(Some(unified));
    }
    (Cow::Owned(first), Some(late))
}

/// The limits for after init is, see [`split_late`].
pub(super) fn limit_late(cgroup: &dyn Cgroup, late: Option<LinuxResources>, deadline: Deadline) -> Result<()> {
    // Without a cgroup nothing was limited before either.
    let late = late.filter(|_| !cgroup.location().directories.is_empty());
    late.map_or(Ok(()), |late| cgroup.update(&late, deadline).at(Step::MakeCgroup))
}

/// Opens on the host what the stages need and must not open by name.
fn inherit(
    plan: &Plan,
    single_threaded: SingleThreaded,
    cgroup: &dyn Cgroup,
    console: Option<OwnedFd>,
    fifo: Option<fifo::ExecFifo>,
) -> Result<(ForStage1, ForStage2)> {
    let joined = plan.namespaces.joined.iter().map(|(typ, path)| {
        File::open(path)
            .map(OwnedFd::from)
            .call(|| format!("open({path:?})"))
            .during(|| format!("linux.namespaces: {typ}"))
            .at(Step::JoinNamespaces)
    });
    let joined = joined.collect::<Result<Vec<_>>>()?;
    let sources = rootfs::clone_sources(plan, single_threaded, &joined).at(Step::Mount)?;
    let stage1 = ForStage1 {
        single_threaded,
        procfs: plan.process.oom_score_adj.is_some().then(Procfs::open).transpose()?,
        entrances: cgroup.entrances().at(Step::EnterCgroup)?,
        placement: if cgroup.wants_process() { Placement::Asks } else { Placement::Own },
        joined,
    };
    Ok((stage1, ForStage2 { sources, console, fifo, cgroup: cgroup.location().clone(), owner: Owner::own() }))
}

/// Writes down which process init is, and tells whoever asked.
pub(super) fn announce(
    locked: &Locked,
    options: &CreateOptions,
    init: Pid,
    pidfd_socket: Option<&OwnedFd>,
) -> Result<()> {
    locked.write_init(Init::of(init)?)?;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, init)?;
    }
    if let Some(socket) = pidfd_socket {
        let pidfd = pidfd::pidfd_open(init).call(|| format!("pidfd_open({init})"))?;
        sys::socket::send_fd(socket.as_fd(), b"standard", pidfd.as_fd())
            .map(drop)
            .call(|| "sendmsg(pidfd socket)")
            .during(|| "--pidfd-socket")?;
    }
    Ok(())
}

/// Frees the name after a failure before anything else existed.
pub(super) fn give_up(locked: Locked, error: Error) -> Error {
    // What is reported is the cause; what could not be removed is found by `delete --force`.
    let _left = locked.remove();
    error
}

/// As [`give_up`], of a container that has its cgroup. Where that stays the state does, for `delete --force`.
fn give_up_ground(locked: Locked, cgroup: &dyn Cgroup, error: Error) -> Error {
    match cgroup.remove(Deadline::after(TO_UNDO)) {
        Ok(()) => give_up(locked, error),
        Err(left) => {
            tracing::warn!("after a failed create: {left}");
            error
        }
    }
}

/// Removes what there is of a container whose creation failed. Its hooks that undo are run: those that do may have been.
pub(super) fn undo(locked: Locked, cgroup: &dyn Cgroup, plan: &Plan, record: &Record) {
    // What is reported is the cause of the failure; what could not be removed is found by `delete --force`.
    let deadline = Deadline::after(TO_UNDO);
    if let Err(left) = delete::remove(locked, None, cgroup, &plan.hooks.poststop, record, deadline) {
        tracing::warn!("after a failed create: {left}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn split(resources: Value) -> Option<(Value, Value)> {
        let resources = serde_json::from_value(resources).unwrap();
        let (first, late) = split_late(&resources);
        late.as_ref()?;
        Some((serde_json::to_value(first.as_ref()).unwrap(), serde_json::to_value(late).unwrap()))
    }

    #[test]
    fn limits_that_keep_init_from_being_made_wait_for_it() {
        for resources in [
            json!({}),
            json!({"pids": {"limit": 2}}),
            json!({"pids": {"limit": -1}, "unified": {"pids.max": "max", "memory.max": "1"}}),
        ] {
            assert_eq!(split(resources), None);
        }
        for (resources, first, late) in [
            (
                json!({"pids": {"limit": 0}, "cpu": {"idle": 1}}),
                json!({"cpu": {"idle": 1}}),
                json!({"pids": {"limit": 0}}),
            ),
            (
                json!({"pids": {"limit": 50}, "unified": {"pids.max": "1", "memory.max": "7"}}),
                json!({"unified": {"memory.max": "7"}}),
                json!({"pids": {"limit": 50}, "unified": {"pids.max": "1"}}),
            ),
            (
                json!({"pids": {"limit": 1}, "unified": {"pids.max": "5"}}),
                json!({"unified": {}}),
                json!({"pids": {"limit": 1}, "unified": {"pids.max": "5"}}),
            ),
        ] {
            assert_eq!(split(resources), Some((first, late)));
        }
    }
}
