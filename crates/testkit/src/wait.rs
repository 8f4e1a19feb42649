//! Waiting for what only looking can tell.

use std::time::{Duration, Instant};

/// How long anything may take, on a busy machine, before a test calls it hung.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Looks until `condition` holds. For facts no one announces (a container's status, a line in a file): a look each
/// few milliseconds is all a client of a command line can do.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
