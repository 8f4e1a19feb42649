//! Every phase of a command by name, shared by errors, logs and timings.

/// A phase. The order is the order in which a container comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Reading the bundle and working out the plan.
    Plan,
}
