//! exec: one more process for a container that exists. The same last stretch as init's, after its own short script.
//!
//! ```text
//!  parent (tare exec)          stage 1                        stage 2
//!  clone3 ───────────────────▶ enter v1 cgroups
//!  (into cgroup2)              setns(pidfd of init, all)
//!                              clone3(CLONE_PARENT) ────────▶ session, keyring
//!                              exit                           console
//!      ◀────── SetLimits, Ready, Start as for init ─────────▶ limits, credentials, execve
//! ```

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{chroot, fchdir};

use super::stage1::{become_root, begin};
use super::wire::{FromStage, StageEnd};
use super::{close_the_parents, finish, stage_failed, stage2};
use crate::error::{CallContext, Context};
use crate::plan::process::ProcessPlan;
use crate::procfs::Procfs;
use crate::step::Step;
use crate::sys::clone::{Birth, Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::thread::SingleThreaded;
use crate::timing::{self, Process};
use crate::{Result, console, rootfs, sys};

/// What is to be entered: stage 1's, closed before it forks.
#[derive(Debug)]
pub struct Entry {
    /// The proof that forking is safe.
    pub single_threaded: SingleThreaded,
    /// A handle on the container's init.
    pub init: OwnedFd,
    /// init's root, for a container without a mount namespace.
    pub root: Option<OwnedFd>,
    /// The host's procfs, when something has to be written there.
    pub procfs: Option<Procfs>,
    /// The v1 `tasks` files of the cgroup.
    pub entrances: Vec<OwnedFd>,
}

/// What enters. Its one descriptor is a socket: a container's process can look through those of stage 2, see
/// [`super::ForStage2`].
#[derive(Debug)]
pub struct Newcomer {
    /// The process.
    pub process: ProcessPlan,
    /// `CLONE_NEW*` of the namespaces in which init is not the runtime's neighbour.
    pub namespaces: libc::c_int,
    /// Where the master side of the terminal goes.
    pub console: Option<OwnedFd>,
    /// The name of the container's session keyring.
    pub keyring: String,
    /// How many descriptors after stdio the process inherits.
    pub preserve_fds: u32,
}

/// Runs stage 1, and in its child stage 2.
pub fn run(entry: Entry, newcomer: Newcomer, wire: StageEnd, birth: &Birth) -> ! {
    timing::fork(Process::Stage1);
    match join(entry, &newcomer, &wire, birth) {
        Ok(Side::Parent(_)) => exit_child(0),
        Ok(Side::Child) => {
            timing::fork(Process::Stage2);
            become_program(newcomer, wire)
        }
        Err(error) => stage_failed(&wire, error),
    }
}

fn join(entry: Entry, newcomer: &Newcomer, wire: &StageEnd, birth: &Birth) -> Result<Side> {
    let kept = entry.entrances.iter().chain(&entry.root).chain([&entry.init]).chain(&newcomer.console).map(AsFd::as_fd);
    close_the_parents(newcomer.preserve_fds, wire, kept.chain(entry.procfs.iter().map(AsFd::as_fd)))?;
    begin(&newcomer.process, entry.procfs.as_ref(), &entry.entrances, wire)?;
    if let Some(warning) = newcomer.process.exec_affinity.finish().at(Step::EnterCgroup)? {
        wire.send(&FromStage::Warning(warning))?;
    }
    timing::lap(Step::EnterCgroup);
    // One call for all, Linux 5.8. The kernel takes the user namespace first, and its privilege for the rest.
    setns(&entry.init, CloneFlags::from_bits_retain(newcomer.namespaces))
        .call(|| format!("setns(pidfd, {:#x})", newcomer.namespaces))
        .at(Step::JoinNamespaces)?;
    if let Some(root) = &entry.root {
        fchdir(root).and_then(|()| chroot(".")).call(|| "chroot(init's root)").at(Step::JoinNamespaces)?;
    }
    if newcomer.namespaces & libc::CLONE_NEWUSER != 0 {
        become_root().at(Step::MapIds)?;
    }
    timing::lap(Step::JoinNamespaces);
    wire.send_laps()?;
    let proof = entry.single_threaded;
    drop(entry);
    clone3(proof, libc::CLONE_PARENT, None, Some(birth)).call(|| "clone3(CLONE_PARENT)").at(Step::ForkInit)
}

fn become_program(newcomer: Newcomer, wire: StageEnd) -> ! {
    let Newcomer { process, namespaces, console, keyring, preserve_fds } = newcomer;
    let user_namespace = finish::UserNamespace::of(namespaces & libc::CLONE_NEWUSER != 0);
    let begun = stage2::begin_session(Some(&keyring), &process.labels).at(Step::Session).and_then(|()| {
        if let Some(socket) = console {
            let ptmx = rootfs::open_own_ptmx().at(Step::Console)?;
            let peer = sys::tty::open_peer(ptmx.as_fd()).call(|| "ioctl(TIOCGPTPEER)").at(Step::Console)?;
            console::take(&ptmx, &peer, socket.as_fd(), process.console_size).at(Step::Console)?;
        }
        finish::reopen_null().at(Step::Console)?;
        timing::lap(Step::Session);
        Ok(())
    });
    if let Err(error) = begun {
        stage_failed(&wire, error)
    }
    match finish::become_process(&process, user_namespace, preserve_fds, None, wire, || Ok(())) {
        Ok(prepared) => {
            let error = crate::Error::AtStep { step: Step::Exec, source: Box::new(prepared.execute(&process)) };
            prepared.fail(error)
        }
        Err((wire, error)) => stage_failed(&wire, error),
    }
}
