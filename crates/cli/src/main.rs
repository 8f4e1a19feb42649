//! The tare command line.

#![no_main]

tare_sandbox::program!(tare_cli::main);
