//! One test for each advisory that runc, crun, youki or an engine had about what a runtime does, named by it: the hostile
//! part is the rootfs, a volume, or another container, and what it must not reach is the host.
//!
//! `docs/advisories.md` says which release of which runtime each test catches; `hack/advisories` writes it.

mod binary;
mod cgroup;
mod credential;
mod handle;
mod path;
mod procfs;
mod race;
mod smuggled;
mod source;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tare_testkit::TempDir;

/// The names in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Takes what is mounted on and below /dev out of a configuration: the image's own is what there is then.
fn without_dev_mounts(config: &mut serde_json::Value) {
    let keep = |mount: &serde_json::Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
    config["mounts"].as_array_mut().unwrap().retain(keep);
}

/// A volume with two entries, which another container that has it swaps all the time.
struct Swapped {
    volume: TempDir,
    stop: Arc<AtomicBool>,
    swapper: Option<JoinHandle<u64>>,
}

impl Swapped {
    /// What `fill` makes under these names is swapped from here on.
    fn new(names: [&str; 2], fill: impl FnOnce(&TempDir)) -> Self {
        let volume = TempDir::new("volume");
        fill(&volume);
        let ([a, b], stop) = (names.map(|name| volume.join(name)), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let swapper = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stopped.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
                // Not a wait for something: without a pause the kernel's lock of renames holds up every lookup of the
                // machine, and the runtime does a tenth of the rounds.
                std::thread::sleep(Duration::from_micros(1));
            }
            swaps
        });
        Self { volume, stop, swapper: Some(swapper) }
    }

    fn path(&self) -> &Path {
        self.volume.path()
    }

    /// Ends it, and expects that there was a race.
    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.swapper.take().unwrap().join().unwrap() > 1000, "it swapped all the time");
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of its own is told already, and there may be another on its way.
        let _ = self.swapper.take().map(JoinHandle::join);
    }
}
