//! `mounts`: added to a container that runs, and taken away.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use super::{Runtime, Status};
use crate::error::{CallContext, Context};
use crate::init::stage1::become_root;
use crate::plan::IdMappings;
use crate::plan::mounts::{Propagation, plan_mounts};
use crate::plan::namespaces::{NamespacePlan, clone_flag};
use crate::rootfs::{self, Change, HostMounts};
use crate::step::Step;
use crate::store::{Entry, Record};
use crate::sys::thread::SingleThreaded;
use crate::{Error, Result, cgroup};

impl Runtime {
    /// Adds bind mounts and tmpfs to a container that runs; all or none. The calling process is in the container's mount
    /// namespace afterwards, and good for nothing but its end.
    ///
    /// # Errors
    /// The mount that was refused.
    pub fn add_mounts(&self, id: &str, mounts: &[Mount]) -> Result<()> {
        let (entry, record) = self.find(id)?;
        check_running(&entry, &record)?;
        let spec = entry.spec()?;
        let plans = plan_mounts(mounts, &record.bundle, &IdMappings::default())?;
        let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().clone());
        let propagation = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
        let host = HostMounts::new(propagation.and_then(Propagation::parse))
            .in_user_namespace(namespaces(&spec).has(LinuxNamespaceType::User));
        let change = Change::add(plans, host, label.filter(|label| !label.is_empty())).at(Step::Mount)?;
        enter(&entry, &spec, change)
    }

    /// Takes mounts away from a container that runs: of each destination what was mounted on it last. The calling process
    /// ends up as with [`Self::add_mounts`].
    ///
    /// # Errors
    /// The mount that was refused; those before it are gone.
    pub fn remove_mounts(&self, id: &str, mounts: &[Mount]) -> Result<()> {
        let (entry, record) = self.find(id)?;
        check_running(&entry, &record)?;
        let spec = entry.spec()?;
        let destinations: Vec<PathBuf> = mounts.iter().map(|mount| tare_spec::clean(mount.destination())).collect();
        enter(&entry, &spec, Change::Remove(destinations))
    }
}

fn check_running(entry: &Entry, record: &Record) -> Result<()> {
    match super::inspect::status(entry, cgroup::open(&record.cgroup).as_ref())? {
        Status::Created | Status::Running | Status::Paused => Ok(()),
        Status::Creating | Status::Stopped => Err(Error::NotRunning),
    }
}

fn enter(entry: &Entry, spec: &Spec, change: Change) -> Result<()> {
    // setns(2) to a user namespace is for a process of one thread.
    let _single_threaded = SingleThreaded::verify()?;
    let namespaces = namespaces(spec);
    if !namespaces.has(LinuxNamespaceType::Mount) {
        return Err(Error::Refused("linux.namespaces: the container has no mount namespace of its own".into()));
    }
    let init = entry.init()?.ok_or(Error::NotRunning)?;
    let path = format!("/proc/{}/root", init.pid);
    let root = File::open(&path).map(OwnedFd::from).call(|| format!("open({path:?})"))?;
    // After the root: the handle says whether the pid still was init's.
    let init = init.open()?;
    // The container's processes could trace us otherwise (CVE-2016-9962).
    nix::sys::prctl::set_dumpable(false).call(|| "prctl(PR_SET_DUMPABLE)")?;
    let user = namespaces.has(LinuxNamespaceType::User);
    let flags = [LinuxNamespaceType::Mount].into_iter().chain(user.then_some(LinuxNamespaceType::User));
    let flags = flags.fold(0, |flags, typ| flags | clone_flag(typ));
    setns(init, CloneFlags::from_bits_retain(flags))
        .call(|| format!("setns(pidfd, {flags:#x})"))
        .at(Step::JoinNamespaces)?;
    if user {
        become_root().at(Step::MapIds)?;
    }
    rootfs::change(root, change).at(Step::Mount)
}

fn namespaces(spec: &Spec) -> NamespacePlan {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    NamespacePlan::new(namespaces.unwrap_or_default())
}
