//! The tare command line.
fn main() {}
