//! What each phase of a command took, and what it is part of: `--timings`.
//!
//! The phases of a process follow one another: each is timed from the end of the one before, [`lap`]. A process has one list, which
//! a stage begins anew after its fork and sends to the parent when it is ready. Nothing is measured unless [`begin`] was called.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::step::Step;

/// Whose phase it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Process {
    /// The command itself.
    Parent = 0,
    /// The first fork.
    Stage1 = 1,
    /// The process that becomes the container's.
    Stage2 = 2,
}

impl Process {
    /// As the plan and the documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Stage1 => "stage 1",
            Self::Stage2 => "stage 2",
        }
    }

    /// That of this number on the wire.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Parent, Self::Stage1, Self::Stage2].get(usize::from(number)).copied()
    }
}

/// One phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    /// Whose.
    pub process: Process,
    /// Which.
    pub step: Step,
    /// When it began, in nanoseconds since 1970.
    pub begin: u64,
    /// How long it took, in nanoseconds; four seconds at most.
    pub took: u32,
}

struct Clock {
    process: Process,
    last: u64,
    laps: Vec<Lap>,
    traceparent: String,
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Starts the clock, and tells when that was. `traceparent` is what hooks find in their environment: <https://www.w3.org/TR/trace-context/>.
pub fn begin(traceparent: String) -> u64 {
    let last = now();
    CLOCK.set(Some(Clock { process: Process::Parent, last, laps: Vec::new(), traceparent }));
    last
}

/// After a fork, in the child: its phases begin here.
pub fn fork(process: Process) {
    CLOCK.with_borrow_mut(|clock| {
        if let Some(clock) = clock {
            (clock.process, clock.last) = (process, now());
            clock.laps.clear();
        }
    });
}

/// The end of a phase.
pub fn lap(step: Step) {
    CLOCK.with_borrow_mut(|clock| {
        let Some(clock) = clock else { return };
        let end = now();
        let took = u32::try_from(end.saturating_sub(clock.last)).unwrap_or(u32::MAX);
        clock.laps.push(Lap { process: clock.process, step, begin: clock.last, took });
        clock.last = end;
    });
}

/// Adds those of another process.
pub fn add(laps: &[Lap]) {
    CLOCK.with_borrow_mut(|clock| clock.iter_mut().for_each(|clock| clock.laps.extend_from_slice(laps)));
}

/// The phases so far, which are forgotten; None if nothing is measured.
pub fn take() -> Option<Vec<Lap>> {
    CLOCK.with_borrow_mut(|clock| clock.as_mut().map(|clock| std::mem::take(&mut clock.laps)))
}

/// What a hook is told.
pub(crate) fn traceparent() -> Option<String> {
    CLOCK.with_borrow(|clock| clock.as_ref().map(|clock| clock.traceparent.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another_and_a_child_begins_anew() {
        lap(Step::Plan);
        assert_eq!(take(), None, "nobody has begun");
        begin("00-1-2-01".into());
        lap(Step::Plan);
        lap(Step::Claim);
        let laps = take().unwrap();
        let [plan, claim] = laps[..] else { panic!("{laps:?}") };
        assert_eq!((plan.step, claim.step, claim.process), (Step::Plan, Step::Claim, Process::Parent));
        assert_eq!(plan.begin + u64::from(plan.took), claim.begin);
        lap(Step::Fork);
        fork(Process::Stage2);
        add(&laps);
        lap(Step::Mount);
        let inside = take().unwrap();
        assert_eq!((inside.len(), inside[2].process), (3, Process::Stage2));
        assert_eq!(traceparent().unwrap(), "00-1-2-01");
    }
}
