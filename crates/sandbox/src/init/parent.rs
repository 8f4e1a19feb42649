//! The runtime's own part: forks stage 1, answers what the stages ask, and cleans up after them when they fail.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::finish;
use super::wire::{self, FromStage, ParentEnd, StageEnd, ToStage};
use crate::cgroup::describe_process;
use crate::container::Status;
use crate::deadline::{Deadline, Wait};
use crate::error::{CallContext, Context};
use crate::plan::Plan;
use crate::plan::process::{Rlimit, Scheduling};
use crate::seccomp::notify::Listener;
use crate::step::Step;
use crate::sys::clone::{Birth, Side, clone3};
use crate::sys::pidfd::pidfd_open;
use crate::sys::thread::SingleThreaded;
use crate::userns::{write_maps, write_once};
use crate::{Error, Result, family, hook, net_device, timing};

/// A container whose init is ready to execute its program, and waits for a word.
#[derive(Debug)]
pub struct Ready {
    /// init, a child of this process.
    pub init: Pid,
    wire: ParentEnd,
    devices: Option<net_device::Moved>,
    deadline: Deadline,
}

/// Where a stage is born.
pub struct Birthplace<'a> {
    /// The cgroup2 directory; None: the parent's.
    pub cgroup: Option<OwnedFd>,
    /// Another, to be asked for when the first may not have processes.
    pub otherwise: &'a dyn Fn() -> Result<Option<OwnedFd>>,
}

impl Birthplace<'_> {
    /// The fork.
    fn clone3(&self, proof: SingleThreaded) -> Result<Side> {
        let into = |cgroup: Option<&OwnedFd>| clone3(proof, 0, cgroup.map(AsFd::as_fd), None).call(|| "clone3()");
        let first = into(self.cgroup.as_ref());
        match &first {
            // Its children have controllers, or are threaded: cgroups(7), "no internal processes".
            Err(error) if matches!(error.errno(), Some(Errno::EBUSY | Errno::EOPNOTSUPP)) => {}
            _ => return first,
        }
        match (self.otherwise)()? {
            Some(other) => into(Some(&other)),
            None => first,
        }
    }
}

/// Forks a stage, into the cgroup2 directory if one is given, and serves it and its child until that is ready.
///
/// # Errors
/// What a stage or a hook reports; then no process is left.
#[expect(unreachable_code, reason = "a stage never returns, which the match on its value says in types")]
pub fn build(
    proof: SingleThreaded,
    birthplace: Birthplace<'_>,
    asked: Asked<'_>,
    stage: impl FnOnce(StageEnd, &Birth) -> Infallible,
) -> Result<Ready> {
    let (wire, stage_end) = wire::pair()?;
    let birth = Birth::new().call(|| "mmap(MAP_SHARED)").at(Step::Fork)?;
    let side = birthplace.clone3(proof).at(Step::Fork)?;
    let Side::Parent(stage1) = side else {
        // Ours must be the only copy of the parent's end: closing it is how stages learn of our death.
        drop((wire, birthplace));
        match stage(stage_end, &birth) {}
    };
    timing::lap(Step::Fork);
    // And theirs the only ones of the stages' end. What the stages inherited goes with the closure.
    drop((stage_end, stage, birthplace));
    let mut build = Build { asked, wire, stage1: Some(stage1), birth, init: None, devices: None };
    let done = build.asked.meanwhile.map_or(Ok(()), |work| work());
    match done.and_then(|()| build.serve()) {
        Ok(init) => {
            timing::lap(Step::AwaitInit);
            Ok(Ready { init, wire: build.wire, devices: build.devices, deadline: build.asked.deadline })
        }
        Err(error) => {
            build.end();
            Err(error)
        }
    }
}

/// What the stages may ask for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What has to be done before the container's program runs, or its hooks: while stage 1 has the kernel make namespaces, which is most of a
    /// create. No stage is answered before.
    pub meanwhile: Option<&'a dyn Fn() -> Result<()>>,
    /// Makes the cgroup around stage 1, for one that cannot be made before.
    pub place: Option<&'a dyn Fn(Pid) -> Result<()>>,
    /// The limits to set on init.
    pub rlimits: &'a [Rlimit],
    /// And how it is scheduled.
    pub scheduling: Scheduling,
    /// The container to be; None for a process that enters one that exists.
    pub plan: Option<&'a Plan>,
    /// Who is told of what the seccomp filter refers to it.
    pub listener: Option<&'a Listener<'a>>,
    /// How long the stages and the hooks may take, up to the execution of the program.
    pub deadline: Deadline,
}

impl<'a> Asked<'a> {
    fn plan(&self) -> Result<&'a Plan> {
        self.plan.ok_or_else(|| Error::Refused("a frame that belongs to create alone".into()))
    }
}

struct Build<'a> {
    asked: Asked<'a>,
    wire: ParentEnd,
    /// Until it is reaped.
    stage1: Option<Pid>,
    /// init's, of which stage 1, which may be killed, need not tell.
    birth: Birth,
    /// Once it is known to exist, until it is reaped.
    init: Option<Pid>,
    /// Those of the host that are in the container already.
    devices: Option<net_device::Moved>,
}

impl Build<'_> {
    fn serve(&mut self) -> Result<Pid> {
        loop {
            if self.wire.wait(self.asked.deadline)? == Wait::Late {
                return Err(self.late());
            }
            match self.wire.receive()? {
                Some(FromStage::Place) => self.place()?,
                Some(FromStage::MapIds) => self.map_ids().at(Step::MapIds)?,
                Some(FromStage::SetClocks) => self.set_clocks().at(Step::SetClocks)?,
                Some(FromStage::RunHooks) => self.run_hooks()?,
                Some(FromStage::MoveDevices) => {
                    let devices = &self.asked.plan()?.net_devices;
                    self.devices = Some(net_device::move_all(devices, self.init()?).at(Step::Network)?);
                }
                Some(FromStage::SetLimits) => {
                    finish::set_rlimits(self.init()?, self.asked.rlimits)?;
                    self.asked.scheduling.set(self.init()?).at(Step::Attributes)?;
                }
                Some(FromStage::Listener(number)) => self.hand_over(number).at(Step::Seccomp)?,
                Some(FromStage::Ready) => {
                    self.reap_stage1()?;
                    return self.init();
                }
                Some(FromStage::Warning(line)) => {
                    // What runc leaves out without a word: a line on stderr or in the log would be taken for an error.
                    tracing::debug!("{line}");
                    continue;
                }
                Some(FromStage::Laps(laps)) => {
                    timing::add(&laps);
                    continue;
                }
                Some(FromStage::Failed(error)) => return Err(error),
                Some(FromStage::Starting) => return Err(Error::Refused("init started unasked".into())),
                None => return Err(self.died()),
            }
            self.wire.send(ToStage::Proceed)?;
        }
    }

    /// init: it exists before anything is asked in its name.
    fn init(&mut self) -> Result<Pid> {
        self.meet_init().ok_or_else(|| Error::Refused("a frame from init before it exists".into()))
    }

    fn meet_init(&mut self) -> Option<Pid> {
        if let Some(pid) = self.birth.take() {
            self.init = Some(pid);
        }
        self.init
    }

    fn reap_stage1(&mut self) -> Result<()> {
        match self.stage1.take() {
            Some(stage1) => waitpid(stage1, None).map(drop).call(|| "waitpid(stage 1)"),
            None => Ok(()),
        }
    }

    /// Writes the id maps of stage 1's new user namespace, user_namespaces(7).
    fn map_ids(&self) -> Result<()> {
        let stage1 = self.stage1.ok_or_else(|| Error::Refused("id maps asked for by nobody".into()))?;
        write_maps(stage1, &self.asked.plan()?.id_mappings, "linux.", self.asked.deadline)
    }

    fn place(&self) -> Result<()> {
        match (self.asked.place, self.stage1) {
            (Some(place), Some(stage1)) => place(stage1),
            _ => Err(Error::Refused("a place asked for where nobody has one to give".into())),
        }
    }

    fn set_clocks(&self) -> Result<()> {
        let stage1 = self.stage1.ok_or_else(|| Error::Refused("clock offsets asked for by nobody".into()))?;
        write_once(&format!("/proc/{stage1}/timens_offsets"), self.asked.plan()?.time_offsets.as_bytes())
            .during(|| "linux.timeOffsets")
    }

    fn hand_over(&mut self, number: i32) -> Result<()> {
        let init = self.init()?;
        let listener = self.asked.listener.ok_or_else(|| Error::Refused("no listener to notify".into()))?;
        listener.hand_over(init, number, self.asked.deadline)
    }

    fn run_hooks(&mut self) -> Result<()> {
        let plan = self.asked.plan()?;
        let init = self.init()?.as_raw();
        let state = || plan.hook_state.json(Status::Creating, init);
        let deadline = self.asked.deadline;
        timing::lap(Step::AwaitInit);
        hook::run_all(Step::Prestart, &plan.hooks.prestart, state, deadline)?;
        hook::run_all(Step::CreateRuntime, &plan.hooks.create_runtime, state, deadline)
    }

    /// The error for stages that take too long: which processes they are, with what they have executed.
    fn late(&mut self) -> Error {
        let hooks = self.asked.plan.is_some_and(|plan| !plan.hooks.create_container.is_empty());
        let what = match self.meet_init() {
            Some(_) if hooks => "the container is not ready, nor its createContainer hooks",
            Some(_) => "the container's init is not ready",
            None => "the container's first stage is not ready",
        };
        let who = self.init.or(self.stage1).map_or_else(String::new, family::describe);
        self.asked.deadline.late(format_args!("{what}: {who}"))
    }

    /// Why all stages are gone without a word.
    fn died(&mut self) -> Error {
        self.meet_init();
        let process = self.init.take().or_else(|| self.stage1.take());
        match process.map(|pid| waitpid(pid, None)) {
            Some(Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) => Error::Refused(
                "the container's init was killed before it was ready: out of memory? (see linux.resources.memory)"
                    .into(),
            ),
            Some(Ok(WaitStatus::Signaled(_, signal, _))) => {
                Error::Refused(format!("the container's init was killed by {signal} before it was ready"))
            }
            _ => Error::Refused("the container's init ended before it was ready".into()),
        }
    }

    /// Leaves no process, and no device of the host in their network.
    fn end(&mut self) {
        // Stage 1 first: then nobody forks any more.
        if let Some(stage1) = self.stage1.take() {
            end_child(stage1);
        }
        self.meet_init();
        if let Some(init) = self.init.take() {
            end_child(init);
        }
        if let Some(devices) = self.devices.take() {
            devices.give_back();
        }
    }
}

impl Ready {
    /// Lets init execute the program, and returns when it runs.
    ///
    /// # Errors
    /// Why it does not. init is reaped then.
    pub fn start(self) -> Result<()> {
        match self.wire.send(ToStage::Start).and_then(|()| self.await_exec()) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    fn await_exec(&self) -> Result<()> {
        loop {
            if self.wire.wait(self.deadline)? == Wait::Late {
                let who = family::describe(self.init);
                return Err(self
                    .deadline
                    .late(format_args!("the container's init has not executed its program: {who}")));
            }
            match self.wire.receive()? {
                None => {
                    timing::lap(Step::Exec);
                    return Ok(());
                }
                Some(FromStage::Failed(error)) => return Err(error),
                Some(_) => {}
            }
        }
    }

    /// Sends init to the exec fifo, where it outlives this process.
    ///
    /// # Errors
    /// It is gone.
    pub fn await_start(self) -> Result<()> {
        match self.wire.send(ToStage::AwaitStart) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// Kills init, an unreaped child, reaps it, and takes the host's network devices back from it.
    pub fn end(self) {
        end_child(self.init);
        if let Some(devices) = self.devices {
            devices.give_back();
        }
    }
}

/// How long a killed child may take to end.
const TO_DIE: Duration = Duration::from_secs(5);

/// Kills and reaps a child that was not reaped: the pid is its own still.
pub fn end_child(pid: Pid) {
    let _may_be_dead = kill(pid, Signal::SIGKILL);
    // One that cannot be killed now, in the kernel's hands or the v1 freezer's, dies later without us.
    if let Ok(pidfd) = pidfd_open(pid)
        && Deadline::after(TO_DIE).poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)]) == Ok(Wait::Late)
    {
        tracing::warn!("killed, but it does not end: {}", describe_process(pid));
        return;
    }
    let _status = waitpid(pid, None);
}
