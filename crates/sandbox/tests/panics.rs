//! The end of a panic, in a program of ours that forks.

#![forbid(unsafe_code)]

use std::process::Command;

#[test]
fn a_panic_ends_the_process_that_panics_and_not_the_one_that_forked_it() {
    let own = std::env::current_exe().unwrap();
    // target/TRIPLE/debug/deps/panics-HASH
    let program = own.parent().unwrap().with_file_name("examples").join("panics");
    let output = Command::new(program).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("in the child").count(), 1, "{stderr}");
}
