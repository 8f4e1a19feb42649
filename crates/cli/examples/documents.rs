//! Writes the documents of the command line from its definitions: a man page for the program and one for each verb, and
//! completion for bash, zsh and fish. `make man` runs it; no part of it is in the program.
//!
//! `cargo run --package tare --example documents -- DIRECTORY`

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Administration commands, as runc's.
const SECTION: &str = "8";

fn main() -> io::Result<()> {
    match std::env::args_os().nth(1) {
        Some(directory) => write(Path::new(&directory)),
        None => Err(io::Error::other("a directory to write into is wanted")),
    }
}

/// Writes `man8/tare*.8` and `completions/`.
pub fn write(directory: &Path) -> io::Result<()> {
    let tree = tare_cli::command_tree();
    let pages = directory.join("man8");
    fs::create_dir_all(&pages)?;
    page(&pages, tree.clone().subcommand_value_name("VERB"), "tare")?;
    for verb in tree.get_subcommands() {
        page(&pages, verb.clone(), &format!("tare-{}", verb.get_name()))?;
    }
    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for (shell, name) in [(Shell::Bash, "tare.bash"), (Shell::Zsh, "_tare"), (Shell::Fish, "tare.fish")] {
        clap_complete::generate(shell, &mut tree.clone(), "tare", &mut File::create(completions.join(name))?);
    }
    Ok(())
}

fn page(directory: &Path, command: Command, name: &str) -> io::Result<()> {
    let man = Man::new(command.display_name(name)).title(name.to_uppercase()).section(SECTION);
    let man = man.source(concat!("tare ", env!("CARGO_PKG_VERSION"))).manual("Administration");
    man.render(&mut File::create(directory.join(format!("{name}.{SECTION}")))?)
}
