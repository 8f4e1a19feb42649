//! Stage 1, the first fork: takes its place in cgroups and namespaces, forks stage 2 into them, and exits.
//!
//! It exists because two things hold for children only, not for the process that asks: a pid namespace that was joined, and
//! the offsets of a time namespace; and because a user namespace must have its id maps before it owns anything.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, write};
use oci_spec::runtime::LinuxNamespaceType;

use super::stage2;
use super::wire::{FromStage, StageEnd};
use super::{ForStage1, ForStage2, Placement, close_the_parents, stage_failed};
use crate::error::{CallContext, Context};
use crate::plan::Plan;
use crate::plan::namespaces::clone_flag;
use crate::plan::process::ProcessPlan;
use crate::procfs::Procfs;
use crate::step::Step;
use crate::sys::clone::{Birth, Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::ids::{setresgid, setresuid};
use crate::timing::{self, Process};
use crate::{Result, affinity, userns};

/// Runs stage 1, and in its child stage 2.
pub fn run(plan: &Plan, own: ForStage1, next: ForStage2, wire: StageEnd, birth: &Birth) -> ! {
    timing::fork(Process::Stage1);
    match build(plan, own, &next, &wire, birth) {
        Ok(Side::Parent(_)) => exit_child(0),
        Ok(Side::Child) => {
            timing::fork(Process::Stage2);
            stage2::run(plan, next, wire)
        }
        Err(error) => stage_failed(&wire, error),
    }
}

fn build(plan: &Plan, own: ForStage1, next: &ForStage2, wire: &StageEnd, birth: &Birth) -> Result<Side> {
    close_the_parents(plan.preserve_fds, wire, own.fds().chain(next.fds()))?;
    if own.placement == Placement::Asks {
        wire.ask(&FromStage::Place)?;
    }
    begin(&plan.process, own.procfs.as_ref(), &own.entrances, wire)?;
    if let Some(warning) = affinity::reset() {
        wire.send(&FromStage::Warning(warning))?;
    }
    timing::lap(Step::EnterCgroup);
    join_namespaces(plan, &own.joined).at(Step::JoinNamespaces)?;
    timing::lap(Step::JoinNamespaces);
    if plan.namespaces.makes(LinuxNamespaceType::User) {
        make_user_namespace(wire).at(Step::MapIds)?;
    }
    if plan.namespaces.has(LinuxNamespaceType::User) {
        become_root().at(Step::MapIds)?;
        timing::lap(Step::MapIds);
    }
    if plan.namespaces.makes(LinuxNamespaceType::Time) {
        let flag = CloneFlags::from_bits_retain(clone_flag(LinuxNamespaceType::Time));
        unshare(flag).call(|| "unshare(CLONE_NEWTIME)").at(Step::SetClocks)?;
        if !plan.time_offsets.is_empty() {
            wire.ask(&FromStage::SetClocks)?;
        }
        timing::lap(Step::SetClocks);
    }
    wire.send_laps()?;
    // The cgroup namespace too: its root is the cgroup that we are in by now. A sibling, so that init is the runtime's child.
    let flags = plan.namespaces.clone_flags(&[LinuxNamespaceType::User, LinuxNamespaceType::Time]) | libc::CLONE_PARENT;
    let proof = own.single_threaded;
    drop(own);
    clone3(proof, flags, None, Some(birth)).call(|| format!("clone3({flags:#x})")).at(Step::ForkInit)
}

/// A new user namespace, with the id maps that the parent writes.
fn make_user_namespace(wire: &StageEnd) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| userns::refused("unshare(CLONE_NEWUSER)", errno))?;
    if Uid::effective().is_root() {
        return wire.ask(&FromStage::MapIds).map(drop);
    }
    // The files of a process that is not dumpable are root's: its own user could not write them, and newuidmap(1) would
    // take it for somebody else's. Nothing of the container sees this process: pid namespaces are for its child.
    let dumpable = |on| nix::sys::prctl::set_dumpable(on).call(|| "prctl(PR_SET_DUMPABLE)");
    dumpable(true)?;
    let mapped = wire.ask(&FromStage::MapIds);
    dumpable(false)?;
    mapped.map(drop)
}

/// What comes before the first namespace, for create and exec alike.
pub(super) fn begin(
    process: &ProcessPlan,
    procfs: Option<&Procfs>,
    entrances: &[OwnedFd],
    wire: &StageEnd,
) -> Result<()> {
    if let (Some(adjustment), Some(procfs)) = (process.oom_score_adj, procfs) {
        // While we are dumpable: the file would be root's after.
        adjust_oom_score(adjustment, procfs, wire).at(Step::Session)?;
    }
    // From the first namespace of the container on its processes could trace us (CVE-2016-9962). Only a process that is
    // not dumpable is out of their reach.
    nix::sys::prctl::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    enter_cgroups(entrances).at(Step::EnterCgroup)
}

/// `process.oomScoreAdj`. Who has no privilege may raise it, not lower it below where it was: without a warning each
/// container of such a user would fail whose engine runs at a higher value.
fn adjust_oom_score(adjustment: i32, procfs: &Procfs, wire: &StageEnd) -> Result<()> {
    let path = format!("{}/oom_score_adj", nix::unistd::getpid());
    match procfs.write(&path, adjustment.to_string().as_bytes()).during(|| "process.oomScoreAdj") {
        Err(error) if error.errno() == Some(Errno::EACCES) && userns::is_rootless() => {
            wire.send(&FromStage::Warning(error.to_string()))
        }
        done => done,
    }
}

/// Enters the v1 hierarchies: `0` stands for the writer.
fn enter_cgroups(entrances: &[OwnedFd]) -> Result<()> {
    for tasks in entrances {
        write(tasks, b"0").call(|| "write(tasks)")?;
    }
    Ok(())
}

/// Joins namespaces: with the host's privilege those that the host owns, then the user namespace, then those for which
/// only that gives the right.
fn join_namespaces(plan: &Plan, joined: &[OwnedFd]) -> Result<()> {
    let mut later = Vec::new();
    let mut user = None;
    for ((typ, path), file) in plan.namespaces.joined.iter().zip(joined) {
        let join = move || {
            setns(file, CloneFlags::from_bits_retain(clone_flag(*typ)))
                .call(|| format!("setns({path:?})"))
                .during(|| format!("linux.namespaces: {typ}"))
        };
        match typ {
            LinuxNamespaceType::User => user = Some(join),
            _ => match join() {
                Err(error) if error.errno() == Some(nix::errno::Errno::EPERM) => later.push(join),
                joined => joined?,
            },
        }
    }
    user.map_or(Ok(()), |join| join())?;
    later.into_iter().try_for_each(|join| join())
}

/// Takes the ids that own the user namespace.
pub(crate) fn become_root() -> Result<()> {
    setresgid(Gid::from_raw(0)).call(|| "setresgid(0)").during(|| "linux.gidMappings: no container id 0")?;
    setresuid(Uid::from_raw(0)).call(|| "setresuid(0)").during(|| "linux.uidMappings: no container id 0")
}
