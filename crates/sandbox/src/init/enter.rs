//! exec: one more process for a container that exists. The same last stretch as init's, after its own short script.
//!
//! ```text
//!  parent (tare exec)          stage 1                        stage 2
//!  clone3 ───────────────────▶ enter v1 cgroups
//!  (into cgroup2)              setns(pidfd of init, all)
//!                              clone3(CLONE_PARENT) ────────▶ session, keyring
//!      ◀──────── Init(pid) ─── exit                           console
//!      ◀────── SetLimits, Ready, Start as for init ─────────▶ limits, credentials, execve
//! ```

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{chroot, fchdir, write};

use super::stage1::become_root;
use super::wire::{FromStage, StageEnd};
use super::{finish, stage_failed, stage2};
use crate::error::{CallContext, Context};
use crate::plan::process::ProcessPlan;
use crate::procfs::Procfs;
use crate::step::Step;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::thread::SingleThreaded;
use crate::{Result, console, rootfs, sys};

/// What is to be entered, and as what.
#[derive(Debug)]
pub struct Entry {
    /// The proof that forking is safe.
    pub single_threaded: SingleThreaded,
    /// The process.
    pub process: ProcessPlan,
    /// A handle on the container's init.
    pub init: OwnedFd,
    /// `CLONE_NEW*` of the namespaces in which init is not the runtime's neighbour.
    pub namespaces: libc::c_int,
    /// init's root, for a container without a mount namespace.
    pub root: Option<OwnedFd>,
    /// The host's procfs, when something has to be written there.
    pub procfs: Option<Procfs>,
    /// The v1 `tasks` files of the cgroup.
    pub entrances: Vec<OwnedFd>,
    /// Where the master side of the terminal goes.
    pub console: Option<OwnedFd>,
    /// The name of the container's session keyring.
    pub keyring: String,
    /// How many descriptors after stdio the process inherits.
    pub preserve_fds: u32,
}

/// Runs stage 1, and in its child stage 2.
pub fn run(entry: Entry, wire: StageEnd) -> ! {
    match join(&entry) {
        Ok(Side::Parent(process)) => {
            // A parent that is gone cannot be told; stage 2 will see the same.
            let _gone = wire.send(&FromStage::Init(process.as_raw()));
            exit_child(0)
        }
        Ok(Side::Child) => become_program(entry, wire),
        Err(error) => stage_failed(&wire, error),
    }
}

fn join(entry: &Entry) -> Result<Side> {
    // Before the container's namespaces are entered, where its processes could trace us (CVE-2016-9962).
    nix::sys::prctl::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    if let (Some(adjustment), Some(procfs)) = (entry.process.oom_score_adj, &entry.procfs) {
        let path = format!("{}/oom_score_adj", nix::unistd::getpid());
        procfs.write(&path, adjustment.to_string().as_bytes()).during(|| "process.oomScoreAdj").at(Step::Session)?;
    }
    for tasks in &entry.entrances {
        write(tasks, b"0").call(|| "write(tasks)").at(Step::EnterCgroup)?;
    }
    // One call for all, Linux 5.8. The kernel takes the user namespace first, and its privilege for the rest.
    setns(&entry.init, CloneFlags::from_bits_retain(entry.namespaces))
        .call(|| format!("setns(pidfd, {:#x})", entry.namespaces))
        .at(Step::JoinNamespaces)?;
    if let Some(root) = &entry.root {
        fchdir(root).and_then(|()| chroot(".")).call(|| "chroot(init's root)").at(Step::JoinNamespaces)?;
    }
    if entry.namespaces & libc::CLONE_NEWUSER != 0 {
        become_root().at(Step::MapIds)?;
    }
    clone3(entry.single_threaded, libc::CLONE_PARENT, None).call(|| "clone3(CLONE_PARENT)").at(Step::ForkInit)
}

fn become_program(entry: Entry, wire: StageEnd) -> ! {
    let Entry {
        single_threaded: _,
        process,
        init,
        namespaces,
        root,
        procfs,
        entrances,
        console,
        keyring,
        preserve_fds,
    } = entry;
    drop((init, root, procfs, entrances)); // stage 1's
    let user_namespace = finish::UserNamespace::of(namespaces & libc::CLONE_NEWUSER != 0);
    let begun = stage2::begin_session(Some(&keyring)).at(Step::Session).and_then(|()| {
        if let Some(socket) = console {
            let ptmx = rootfs::open_own_ptmx().at(Step::Console)?;
            let peer = sys::tty::open_peer(ptmx.as_fd()).call(|| "ioctl(TIOCGPTPEER)").at(Step::Console)?;
            console::take(&ptmx, &peer, socket.as_fd(), process.console_size).at(Step::Console)?;
        }
        finish::reopen_null().at(Step::Console)
    });
    if let Err(error) = begun {
        stage_failed(&wire, error)
    }
    match finish::become_process(&process, user_namespace, preserve_fds, None, wire) {
        Ok(prepared) => {
            let error = crate::Error::AtStep { step: Step::Exec, source: Box::new(prepared.execute(&process)) };
            prepared.fail(error)
        }
        Err((wire, error)) => stage_failed(&wire, error),
    }
}
