//! `checkpoint`.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::{Runtime, Status, delete};
use crate::cgroup::Cgroup;
use crate::criu::image::{Description, Images};
use crate::criu::rpc::{ExtMount, Options, PageServer, Response, Type};
use crate::criu::{self, Birth, Unborn, log};
use crate::deadline::TO_CHANGE;
use crate::error::{CallContext, Context};
use crate::plan::mounts::plan_mounts;
use crate::plan::namespaces::NamespacePlan;
use crate::plan::{HookPlan, IdMappings};
use crate::rootfs::{self, Expected, Mounted};
use crate::store::{Entry, Record};
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, cgroup, notify, store, sys};

pub use crate::criu::rpc::{CgroupMode, NetworkLock};

/// What checkpoint and restore share.
#[derive(Debug, Clone, Default)]
pub struct CriuOptions {
    /// The directory of the images.
    pub image_path: PathBuf,
    /// Where CRIU works and logs; None: with the images.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are part of it.
    pub tcp_established: bool,
    /// Unix sockets may have an end outside.
    pub ext_unix_sk: bool,
    /// The terminal may be the caller's.
    pub shell_job: bool,
    /// File locks are part of it.
    pub file_locks: bool,
    /// How cgroups are treated; None: `soft`.
    pub cgroup_mode: Option<CgroupMode>,
    /// The network namespace comes back empty.
    pub empty_network: bool,
    /// How connections are held meanwhile; None: CRIU's own choice.
    pub network_lock: Option<NetworkLock>,
    /// Pages that a later image has are removed from the earlier ones.
    pub auto_dedup: bool,
    /// Memory comes page by page.
    pub lazy_pages: bool,
}

/// How to save a container.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// What restore has too.
    pub criu: CriuOptions,
    /// The images of the pre-dump before, relative to the directory of the images.
    pub parent_path: Option<PathBuf>,
    /// The container runs on.
    pub leave_running: bool,
    /// Connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that were unlinked while open are linked.
    pub link_remap: bool,
    /// Where CRIU writes a byte when it is ready to serve pages.
    pub status_fd: Option<i32>,
    /// Address and port of the page server.
    pub page_server: Option<(String, u16)>,
    /// Memory alone, as a first pass.
    pub pre_dump: bool,
}

const LOG: &str = "dump.log";

/// The name under which CRIU knows a namespace that the container has joined. runc's.
pub(super) fn external_namespace(typ: LinuxNamespaceType) -> Option<(&'static str, &'static str)> {
    match typ {
        LinuxNamespaceType::Network => Some(("net", "extRootNetNS")),
        LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

impl Runtime {
    /// Saves a container; unless it is to run on, it is deleted then.
    ///
    /// # Errors
    /// What CRIU says. The container runs on.
    pub fn checkpoint(&self, id: &str, options: &CheckpointOptions) -> Result<()> {
        let proof = SingleThreaded::verify()?;
        let program = criu::find()?;
        let deadline = self.deadline(TO_CHANGE);
        let locked = self.store().open(id)?.lock(deadline)?;
        let record = locked.record()?.ok_or(Error::NotExist)?;
        let cgroup = cgroup::open(&record.cgroup);
        match super::inspect::status(&locked, cgroup.as_ref())? {
            Status::Running | Status::Paused => {}
            status => {
                return Err(Error::Refused(format!("container cannot be checkpointed in {} state", status.name())));
            }
        }
        let init = locked.init()?.ok_or(Error::NotRunning)?;
        // Held to the end: the pid is init's as long as it lives.
        let _handle = init.open()?;
        let spec = locked.spec()?;
        let freezer = freezer(&record);
        if freezer.as_ref().is_some_and(|freezer| !freezer.hierarchy.is_empty()) {
            refuse_stopped(cgroup.as_ref())?;
        }
        let images = Images::open(&options.criu.image_path, true).during(|| "--image-path")?;
        let parent = options.parent_path.as_deref().map(|path| check_parent(&images, path)).transpose()?;
        let work = options.criu.work_path.as_deref().map(|path| Images::open(path, true).during(|| "--work-path"));
        let work = work.transpose()?;

        let mut opts = shared(&options.criu, LOG);
        let mode = criu::cgroups::mode(options.criu.cgroup_mode, init.pid, &record.cgroup.directories)?;
        opts.manage_cgroups_mode = Some(mode as i32);
        opts.config_file = criu::config_file(record.annotations.get("org.criu.config").map(String::as_str));
        opts.pid = Some(init.pid.as_raw());
        opts.parent_img = parent;
        opts.freeze_cgroup = freezer.and_then(|freezer| freezer.path.to_str()).map(str::to_owned);
        // Its own terminal: the master side is outside. Any other terminal is the caller's, see `shell_job`.
        opts.orphan_pts_master = Some(spec.process().as_ref().and_then(Process::terminal).unwrap_or(false));
        add_options(&mut opts, options);
        add_namespaces(&mut opts, &spec, init.pid)?;
        let mounted = look(&locked, &spec, &record, init.pid).during(|| "mounts")?;
        opts.ext_mnt = by_mount_point(&mounted);
        if !options.pre_dump {
            images.write(&Description::new(mounted, stdio(init.pid)))?;
        }

        let typ = if options.pre_dump { Type::PreDump } else { Type::Dump };
        let log = work.as_ref().unwrap_or(&images).path().join(LOG);
        let status = options.status_fd.map(borrow_status).transpose()?;
        let birth = Birth {
            program: &program,
            cgroup: None,
            kept: status.as_slice(),
            images: images.path(),
            work: work.as_ref().map(Images::path),
        };
        let (unborn, _) = Unborn::fork(proof, &birth, || Ok(()))?;
        // To save a container takes the time that its memory takes.
        let patience = self.only_if_asked(deadline);
        let mut session = unborn.proceed(patience)?;
        let asked = session.ask(typ, opts, &mut |_| Ok(()), patience);
        let response = match asked.and_then(|response| session.finish(patience).map(|()| response)) {
            Ok(response) => response,
            Err(error) => {
                session.abandon();
                return Err(error);
            }
        };
        check(&response, &log)?;
        if options.pre_dump || options.leave_running {
            return Ok(());
        }
        let deadline = if self.timeout.is_some() { deadline } else { self.deadline(TO_CHANGE) };
        delete::await_end(init, deadline)?;
        let poststop = if record.hooks.poststop { HookPlan::new(&spec).poststop } else { Vec::new() };
        delete::remove(locked, Some(init), cgroup.as_ref(), &poststop, &record, deadline)
    }
}

/// The options of both directions.
pub(super) fn shared(options: &CriuOptions, log: &str) -> Options {
    /// All there is: what failed is looked for in it.
    const DEBUG: i32 = 4;
    Options {
        log_level: Some(DEBUG),
        log_file: Some(log.to_owned()),
        tcp_established: Some(options.tcp_established),
        ext_unix_sk: Some(options.ext_unix_sk),
        shell_job: Some(options.shell_job),
        file_locks: Some(options.file_locks),
        manage_cgroups: Some(true),
        empty_ns: options.empty_network.then_some(libc::CLONE_NEWNET.unsigned_abs()),
        network_lock: options.network_lock.map(|method| method as i32),
        auto_dedup: Some(options.auto_dedup),
        lazy_pages: Some(options.lazy_pages),
        notify_scripts: Some(true),
        // Where two devices or files have the same content but another number, that is good enough.
        evasive_devices: Some(true),
        ..Options::default()
    }
}

fn add_options(opts: &mut Options, options: &CheckpointOptions) {
    opts.leave_running = Some(options.leave_running || options.pre_dump);
    opts.tcp_skip_in_flight = Some(options.tcp_skip_in_flight);
    opts.link_remap = Some(options.link_remap);
    // A later pass compares with this one.
    opts.track_mem = Some(options.pre_dump);
    opts.status_fd = options.status_fd;
    opts.ps = options
        .page_server
        .clone()
        .map(|(address, port)| PageServer { address: Some(address), port: Some(port.into()) });
}

/// The caller's descriptor that CRIU writes to.
fn borrow_status(number: i32) -> Result<BorrowedFd<'static>> {
    sys::fd::borrow_callers(number).call(|| format!("fcntl({number}, F_GETFD)")).during(|| "--status-fd")
}

/// As CRIU and runc have it: relative to the new images, and there.
fn check_parent(images: &Images, parent: &Path) -> Result<String> {
    if parent.is_absolute() {
        return Err(Error::Refused(format!("--parent-path {parent:?}: has to be relative to the image path")));
    }
    let there = images.path().join(parent);
    if !there.is_dir() {
        return Err(Error::Refused(format!("--parent-path: {there:?} is not a directory")));
    }
    let text = parent.to_str().ok_or_else(|| Error::Refused(format!("--parent-path {parent:?}: not UTF-8")))?;
    Ok(text.to_owned())
}

/// The directory by which CRIU freezes the container: only so it knows one that is frozen already, and can freeze what forks.
fn freezer(record: &Record) -> Option<&cgroup::Directory> {
    let freezes = |directory: &&cgroup::Directory| directory.hierarchy.split(',').any(|name| name == "freezer");
    let directories = &record.cgroup.directories;
    directories.iter().find(freezes).or(match directories.as_slice() {
        [only] if only.hierarchy.is_empty() => Some(only),
        _ => None,
    })
}

/// A process that a signal has stopped is never frozen by the freezer of cgroup v1, for which CRIU waits without end.
fn refuse_stopped(cgroup: &dyn Cgroup) -> Result<()> {
    for pid in cgroup.pids()? {
        if store::is_stopped(pid)? {
            return Err(Error::Refused(format!(
                "process {pid} is stopped by a signal, which CRIU cannot save on cgroup v1: kill -CONT {pid} first"
            )));
        }
    }
    Ok(())
}

/// Names the namespaces that are somebody else's.
fn add_namespaces(opts: &mut Options, spec: &Spec, init: Pid) -> Result<()> {
    let namespaces = namespaces(spec);
    if !namespaces.has(LinuxNamespaceType::Mount) {
        return Err(Error::Refused("linux.namespaces: only a container with a mount namespace can be saved".into()));
    }
    for (typ, _) in &namespaces.joined {
        if let Some((kind, name)) = external_namespace(*typ) {
            let path = format!("/proc/{init}/ns/{kind}");
            let stat = nix::sys::stat::stat(path.as_str()).call(|| format!("stat({path:?})"))?;
            opts.external.push(format!("{kind}[{}]:{name}", stat.st_ino));
        }
    }
    Ok(())
}

fn namespaces(spec: &Spec) -> NamespacePlan {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    NamespacePlan::new(namespaces.unwrap_or_default())
}

fn look(entry: &Entry, spec: &Spec, record: &Record, init: Pid) -> Result<Mounted> {
    let linux = spec.linux().as_ref();
    let mut mounts = plan_mounts(spec.mounts().as_deref().unwrap_or_default(), &record.bundle, &IdMappings::default())?;
    if notify::is_there(entry)? {
        mounts.extend(notify::mounts(entry.path(), &record.bundle, &IdMappings::default())?);
    }
    let masked = linux.and_then(|linux| linux.masked_paths().clone()).unwrap_or_default();
    let masked: Vec<PathBuf> = masked.into_iter().map(PathBuf::from).collect();
    let has_user = namespaces(spec).has(LinuxNamespaceType::User);
    let devices = linux.and_then(|linux| linux.devices().clone()).unwrap_or_default();
    let devices = if has_user { rootfs::bound_devices(&devices) } else { Vec::new() };
    let cgroup = &record.cgroup.directories;
    rootfs::look(init, Expected { mounts: &mounts, masked: &masked, devices: &devices, cgroup })
}

fn by_mount_point(mounted: &Mounted) -> Vec<ExtMount> {
    let entry = |(index, outside): (usize, &rootfs::Outside)| ExtMount {
        key: outside.mount_point.to_string_lossy().into_owned(),
        val: index.to_string(),
    };
    mounted.outside.iter().enumerate().map(entry).collect()
}

/// The pipes that init has as its standard input, output and error, as CRIU names them: at restore others take their place. Of
/// what else is open from outside CRIU says that it cannot be saved.
fn stdio(init: Pid) -> [String; 3] {
    let pipe = |number: u32| {
        let link = std::fs::read_link(format!("/proc/{init}/fd/{number}")).ok()?;
        link.to_str().filter(|link| link.starts_with("pipe:")).map(str::to_owned)
    };
    [0, 1, 2].map(|number| pipe(number).unwrap_or_default())
}

/// The error of an answer that is none, with what CRIU's log at `log` says.
pub(super) fn check(response: &Response, log: &Path) -> Result<()> {
    if response.success {
        return Ok(());
    }
    let mut text = "criu failed".to_owned();
    if let Some(errno) = response.cr_errno.filter(|errno| *errno != 0) {
        let errno = nix::errno::Errno::from_raw(errno);
        text += &format!(": {}", crate::error::ErrnoText(errno));
    }
    // Its message is the first error that it met, which it may have survived: the log has all.
    let message = || response.cr_errmsg.as_deref().map(|message| message.trim().replace('\n', "; "));
    if let Some(errors) = log::errors(log).or_else(message).filter(|errors| !errors.is_empty()) {
        text += &format!(": {errors}");
    }
    Err(Error::Refused(format!("{text}: see {log:?}")))
}
