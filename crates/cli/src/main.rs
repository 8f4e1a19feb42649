//! The tare command line.

#![no_main]

#[global_allocator]
static HEAP: tare_sandbox::sys::heap::Heap = tare_sandbox::sys::heap::Heap::new();

tare_sandbox::program!(tare_cli::main);
