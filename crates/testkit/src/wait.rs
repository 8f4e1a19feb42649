//! Waiting for what only looking can tell.

use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine, before a test calls it hung.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// [`DEADLINE`], times `TARE_TEST_PATIENCE` (1): in an emulated machine everything takes longer, and nothing else changes.
///
/// # Panics
/// If that is not a number.
pub fn deadline() -> Duration {
    scale(DEADLINE)
}

/// A time to wait, times `TARE_TEST_PATIENCE`.
pub(crate) fn scale(time: Duration) -> Duration {
    time * patience()
}

/// How often to try what fails only now and then: fewer times where `TARE_TEST_PATIENCE` says that the machine is emulated. Its
/// CPUs take turns, so that a race has hardly a chance to be lost there; that it is not lost is shown elsewhere.
///
/// # Panics
/// If that is not a number.
pub fn rounds(count: usize) -> usize {
    count.div_ceil(patience() as usize)
}

fn patience() -> u32 {
    std::env::var("TARE_TEST_PATIENCE").map_or(1, |text| text.parse().expect("TARE_TEST_PATIENCE is a number"))
}

/// Looks until `condition` holds. For facts no one announces (a container's status, a line in a file): a look each
/// few milliseconds is all a client of a command line can do.
///
/// # Panics
/// After [`deadline`], naming `what`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let (begun, deadline) = (Instant::now(), deadline());
    while !condition() {
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
