//! `exec`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxIntelRdt, LinuxNamespaceType, Process, Spec,
};

use super::create::{Detach, open_terminal};
use super::{ExecOptions, Runtime, Status};
use crate::cgroup;
use crate::cgroup::join::{SubCgroup, follow_init, open_way, where_init_is};
use crate::deadline::{Deadline, TO_MAKE};
use crate::error::{CallContext, Context};
use crate::foreground::{self, Signals};
use crate::init::enter::{self, Entry, Newcomer};
use crate::init::parent::{self, Asked, Birthplace, Ready};
use crate::plan::namespaces::NamespacePlan;
use crate::plan::process::ProcessPlan;
use crate::procfs::Procfs;
use crate::seccomp::Filter;
use crate::step::Step;
use crate::store::write_pid_file;
use crate::sys::pidfd::pidfd_open;
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, console, intel_rdt, peer, store, sys, timing};

impl Runtime {
    /// Runs one more process; in the foreground waits, and returns its exit code.
    ///
    /// # Errors
    /// What failed before the process ran.
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<i32> {
        let single_threaded = SingleThreaded::verify()?;
        // In a container that is paused the process is made when it is resumed.
        let deadline = match (self.timeout, options.ignore_paused) {
            (None, true) => Deadline::NEVER,
            _ => self.deadline(TO_MAKE),
        };
        let (stored, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&stored, cgroup.as_ref())? {
            Status::Stopped => return Err(Error::Refused("cannot exec in a stopped container".into())),
            Status::Creating => return Err(Error::Refused("cannot exec in a container that is being created".into())),
            Status::Paused if !options.ignore_paused => {
                return Err(Error::Refused(
                    "cannot exec in a paused container (use --ignore-paused to override)".into(),
                ));
            }
            _ => {}
        }
        let sub_cgroup = SubCgroup::parse(&options.cgroup)?;
        let init = stored.init()?.ok_or(Error::NotRunning)?;
        let spec = stored.spec()?;
        let process = ProcessPlan::new(&process_of(&spec, options)?, spec.linux().as_ref(), Filter::of(&spec)?)?;
        process.labels.check_host(None)?;
        let detach = if options.detach { Detach::Yes } else { Detach::No };
        let terminal =
            open_terminal(process.terminal, options.console_socket.as_deref(), detach, deadline).at(Step::Console)?;
        let receiver = process.seccomp.as_ref().and_then(Filter::listener).cloned();
        let state = super::delete::hook_state(&record);
        let listener = receiver
            .as_ref()
            .map(|receiver| receiver.listener(&state, Status::Running, Some(init.pid), deadline))
            .transpose()
            .at(Step::Seccomp)?;
        let pidfd_socket = options.pidfd_socket.as_deref().map(|path| peer::connect_to(path, deadline)).transpose()?;
        let signals = if options.detach { None } else { Some(Signals::take()?) };
        let (ours, console) = terminal.split();
        let namespaces = namespaces_of(&spec);
        let newcomer = Newcomer {
            process,
            namespaces: namespaces.all_flags(),
            console,
            keyring: format!("_ses.{}", record.id),
            preserve_fds: options.preserve_fds,
        };
        let rlimits = newcomer.process.rlimits.clone();
        let way = open_way(cgroup.as_ref(), &sub_cgroup).at(Step::EnterCgroup)?;
        let mut entry = open_entry(single_threaded, init, &namespaces, &newcomer, way.entrances)?;
        let rdt = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().clone());
        // None in the configuration, but some in the record: those of an update.
        if let Some(rdt) = rdt.or_else(|| (!record.resctrl.is_empty()).then(LinuxIntelRdt::default)) {
            entry.entrances.extend(intel_rdt::locate(&rdt, &record.id)?.entrances()?);
        }
        // Now: after the fork each page of memory that is given back would first be copied.
        drop(spec);
        let asked = Asked {
            meanwhile: None,
            place: None,
            rlimits: &rlimits,
            scheduling: newcomer.process.scheduling,
            plan: None,
            listener: listener.as_ref(),
            deadline,
        };
        newcomer.process.exec_affinity.begin()?;
        timing::lap(Step::Plan);
        let location = cgroup.location();
        let otherwise = || match sub_cgroup {
            SubCgroup::Unasked => where_init_is(location, init.pid),
            _ => Ok(None),
        };
        let below = otherwise().at(Step::EnterCgroup)?;
        let follows = sub_cgroup == SubCgroup::Unasked && below.is_none();
        let birthplace = Birthplace { cgroup: below.or(way.birthplace), otherwise: &otherwise };
        let ready =
            parent::build(single_threaded, birthplace, asked, |wire, birth| enter::run(entry, newcomer, wire, birth))?;
        let pid = ready.init;
        let followed = if follows { follow_init(location, init.pid, pid).at(Step::EnterCgroup) } else { Ok(()) };
        match followed.and_then(|()| announce(options, &ready, pidfd_socket.as_ref())) {
            Ok(()) => {
                timing::lap(Step::Announce);
                ready.start()?;
            }
            Err(error) => {
                ready.end();
                return Err(error);
            }
        }
        let Some(signals) = signals else { return Ok(0) };
        let ptmx = ours.map(|socket| console::receive(&socket)).transpose()?;
        let code = foreground::wait(pid, &signals, ptmx, None);
        timing::lap(Step::Wait);
        code
    }
}

fn namespaces_of(spec: &Spec) -> NamespacePlan {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    NamespacePlan::new(namespaces.unwrap_or_default())
}

/// Opens on the host what stage 1 needs of it and of the container.
fn open_entry(
    single_threaded: SingleThreaded,
    init: store::Init,
    namespaces: &NamespacePlan,
    newcomer: &Newcomer,
    entrances: Vec<OwnedFd>,
) -> Result<Entry> {
    let root = if namespaces.has(LinuxNamespaceType::Mount) {
        None
    } else {
        let path = format!("/proc/{}/root", init.pid);
        Some(File::open(&path).map(OwnedFd::from).call(|| format!("open({path:?})"))?)
    };
    Ok(Entry {
        single_threaded,
        procfs: newcomer.process.oom_score_adj.is_some().then(Procfs::open).transpose()?,
        // After the root: the handle says whether the pid still was init's.
        init: init.open()?,
        root,
        entrances,
    })
}

/// Tells whoever asked which process it is.
fn announce(options: &ExecOptions, ready: &Ready, pidfd_socket: Option<&OwnedFd>) -> Result<()> {
    if let Some(path) = &options.pid_file {
        write_pid_file(path, ready.init)?;
    }
    if let Some(socket) = pidfd_socket {
        send_pidfd(socket, ready.init)?;
    }
    Ok(())
}

fn send_pidfd(socket: &OwnedFd, pid: Pid) -> Result<()> {
    let pidfd = pidfd_open(pid).call(|| format!("pidfd_open({pid})"))?;
    sys::socket::send_fd(socket.as_fd(), b"setns", pidfd.as_fd())
        .map(drop)
        .call(|| "sendmsg(pidfd socket)")
        .during(|| "--pidfd-socket")
}

/// The process to run: as given whole, or the container's own with what the options change.
fn process_of(spec: &Spec, options: &ExecOptions) -> Result<Process> {
    if let Some(process) = &options.process {
        let mut process = process.clone();
        if options.tty {
            process.set_terminal(Some(true));
        }
        if let Some(own) = spec.process() {
            inherit_attributes(&mut process, own);
        }
        return Ok(process);
    }
    let mut process = spec.process().clone().ok_or_else(|| Error::Refused("process: required".into()))?;
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.tty));
    if !options.tty {
        process.set_console_size(None);
    }
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    process.set_env(Some(env));
    if let Some((uid, gid)) = options.user {
        // The home directory of another user is not this one's.
        process.user_mut().set_uid(uid).set_gid(gid.unwrap_or(0));
    }
    if !options.additional_gids.is_empty() {
        let mut gids = process.user().additional_gids().clone().unwrap_or_default();
        gids.extend(&options.additional_gids);
        process.user_mut().set_additional_gids(Some(gids));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if options.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &options.caps)?;
    Ok(process)
}

/// What holds for every process of the container unless it has its own: a process given whole, but without a profile, is
/// confined as the container is.
fn inherit_attributes(process: &mut Process, own: &Process) {
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(own.user().umask());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
}

/// Adds capabilities to the bounding, effective and permitted sets; never to the inheritable one (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = Capabilities::new();
    for name in names {
        let short = name.to_ascii_uppercase();
        let short = short.strip_prefix("CAP_").unwrap_or(&short);
        added.insert(
            short.parse::<Capability>().map_err(|_| Error::Refused(format!("--cap: unknown capability \"{name}\"")))?,
        );
    }
    let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

/// oci-spec's default gives some; a process without the field has none.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    none
}
