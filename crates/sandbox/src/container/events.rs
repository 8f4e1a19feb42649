//! `events`: statistics, and what happens to a container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxIntelRdt;
use serde::Serialize;

use super::{Runtime, Status};
use crate::cgroup::{self, Cgroup, OomWatch};
use crate::error::CallContext;
use crate::store::Init;
use crate::{Error, Result, intel_rdt};

/// What a container has used: the `data` of a `stats` event, in the shape of `runc events` (types/events.go).
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    /// Its cgroup.
    #[serde(flatten)]
    pub cgroup: cgroup::Stats,
    /// Its groups in resctrl; empty without `linux.intelRdt`.
    pub intel_rdt: intel_rdt::Stats,
    /// Always null: runc lists here the interfaces that it has made itself, and no config.json can ask for one.
    pub network_interfaces: (),
}

/// Why [`Watch::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The container ran out of memory.
    OutOfMemory,
    /// The time is up.
    Late,
    /// The container has ended.
    Ended,
}

/// A running container under observation. Its end is init's: a cgroup that is gone cannot hold it.
pub struct Watch {
    id: String,
    cgroup: Box<dyn Cgroup>,
    init: OwnedFd,
    oom: OomWatch,
    rdt: Option<LinuxIntelRdt>,
}

impl Runtime {
    /// Begins to observe a container.
    ///
    /// # Errors
    /// A container that is stopped, or not created yet.
    pub fn watch(&self, id: &str) -> Result<Watch> {
        let (entry, record) = self.find(id)?;
        let cgroup = cgroup::open(&record.cgroup);
        let not_running = || Error::Refused(format!("container with id {id} is not running"));
        if matches!(super::inspect::status(&entry, cgroup.as_ref())?, Status::Stopped | Status::Creating) {
            return Err(not_running());
        }
        // The handle before the watch: what happens from here on is noticed.
        let init = match entry.init()?.map(Init::open) {
            None | Some(Err(Error::NotRunning)) => return Err(not_running()),
            Some(init) => init?,
        };
        let rdt = entry.spec()?.linux().as_ref().and_then(|linux| linux.intel_rdt().clone());
        Ok(Watch { id: id.to_owned(), oom: OomWatch::new(cgroup.location())?, cgroup, init, rdt })
    }
}

impl Watch {
    /// What the container has used so far.
    ///
    /// # Errors
    /// The read that failed.
    pub fn usage(&self) -> Result<Usage> {
        let intel_rdt = match &self.rdt {
            Some(rdt) => intel_rdt::locate(rdt, &self.id)?.stats()?,
            None => intel_rdt::Stats::default(),
        };
        Ok(Usage { cgroup: self.cgroup.stats()?, intel_rdt, network_interfaces: () })
    }

    /// Waits until something happens, or `until`.
    ///
    /// # Errors
    /// The call that failed.
    pub fn wait(&mut self, until: Instant) -> Result<Happening> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ended = self.poll(left)?;
            // An init that was killed for memory has ended too: this comes first, and its end is there the next time.
            if self.oom.take()? {
                return Ok(Happening::OutOfMemory);
            }
            if ended {
                return Ok(Happening::Ended);
            }
            if Instant::now() >= until {
                return Ok(Happening::Late);
            }
        }
    }

    /// poll(2), until something may have happened: whether init has ended.
    fn poll(&self, left: Duration) -> Result<bool> {
        let init = PollFd::new(self.init.as_fd(), PollFlags::POLLIN);
        let mut polled: Vec<PollFd<'_>> = std::iter::once(init).chain(self.oom.polled()).collect();
        // Rounded up, or the last fraction of a millisecond would be spun away.
        let milliseconds = left.as_nanos().div_ceil(1_000_000);
        match poll(&mut polled, PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)) {
            Ok(_) => Ok(polled[0].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).call(|| "poll(init, memory events)"),
        }
    }
}
