//! What becomes of symbolic links that bind mounts name: crun's options.

use std::fs;
use std::os::unix::fs::symlink;

use tare_testkit::{Bundle, Runtime, TempDir, known, record_known};

use crate::words;

/// The runtime, if it knows the options; crun of this minor version has been seen to.
macro_rules! with_links {
    ($crun:literal) => {{
        let runtime = crate::runtime();
        known!(runtime, Runc: "follows it whatever it is told");
        if crun_minor(&runtime).is_some_and(|minor| minor < $crun) && record_known(runtime.kind(), "an older one") {
            return;
        }
        runtime
    }};
}

/// The N of crun 1.N.
fn crun_minor(runtime: &Runtime) -> Option<u32> {
    let version = runtime.bare().arg("--version").run().ok();
    let number = version.stdout.strip_prefix("crun version 1.")?.split(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
}

/// A directory with a link `link` to `file`, and one to a directory.
fn sources() -> TempDir {
    let dir = TempDir::new("links");
    fs::create_dir(dir.join("there")).unwrap();
    fs::write(dir.join("file"), "plain\n").unwrap();
    symlink("file", dir.join("link")).unwrap();
    symlink("there", dir.join("directory")).unwrap();
    dir
}

/// Runs it with the namespaces of the bundle, then in a user namespace, where the parent opens the sources.
#[track_caller]
fn prints(runtime: &Runtime, bundle: Bundle, expected: &[&str]) {
    assert_eq!(runtime.run(&bundle).ok().lines(), expected);
    let bundle = bundle.user_namespace(0, 65_536);
    assert_eq!(runtime.run(&bundle).ok().lines(), expected, "in a user namespace");
}

#[test]
fn a_source_that_is_not_followed_is_mounted_as_a_link() {
    let runtime = with_links!(28);
    known!(runtime, Crun: "1.28 follows it unless the destination is a link that is not followed either");
    let dir = sources();
    let script = "readlink /new; grep -c ' /new ' /proc/self/mountinfo; cat /copy; cat /plain";
    let bundle = Bundle::script(script)
        .bind(dir.join("link"), "/new", &["bind", "src-nofollow"])
        .bind(dir.join("link"), "/copy", &["bind"])
        .bind(dir.join("file"), "/plain", &["bind", "src-nofollow"]);
    prints(&runtime, bundle, &["file", "1", "plain", "plain"]);
}

#[test]
fn a_link_to_a_directory_is_a_link_as_well() {
    let runtime = with_links!(28);
    known!(runtime, Crun: "1.28 takes it for a directory");
    let dir = sources();
    let bundle = Bundle::script("readlink /new; readlink /over; readlink /copied")
        .symlink("/over", "elsewhere")
        .bind(dir.join("directory"), "/new", &["bind", "src-nofollow"])
        .bind(dir.join("directory"), "/over", &["bind", "src-nofollow", "dest-nofollow"])
        .bind(dir.join("directory"), "/copied", &["bind", "copy-symlink"]);
    prints(&runtime, bundle, &["there", "there", "there"]);
}

#[test]
fn a_destination_that_is_not_followed_is_mounted_over_as_a_link() {
    let runtime = with_links!(28);
    let dir = sources();
    let script = "cat /over; cat /etc/own; readlink /linked; readlink /dangling || cat /dangling; ls /nowhere";
    let bundle = Bundle::script(&format!("exec 2>/dev/null; {script}; true"))
        .file("etc/own", "untouched\n")
        .symlink("/over", "etc/own")
        .symlink("/linked", "etc/own")
        .symlink("/dangling", "nowhere")
        .bind(dir.join("file"), "/over", &["bind", "dest-nofollow"])
        .bind(dir.join("link"), "/linked", &["bind", "dest-nofollow", "src-nofollow"])
        .bind(dir.join("file"), "/dangling", &["bind", "dest-nofollow"]);
    prints(&runtime, bundle, &["plain", "untouched", "file", "plain"]);
}

#[test]
fn a_destination_that_is_missing_is_made_whether_it_would_be_followed_or_not() {
    let runtime = with_links!(28);
    known!(runtime, Crun: "1.28 makes nothing");
    let dir = sources();
    let bundle =
        Bundle::script("cat /made/on/the/way").bind(dir.join("file"), "/made/on/the/way", &["bind", "dest-nofollow"]);
    prints(&runtime, bundle, &["plain"]);
}

#[test]
fn a_source_that_is_a_link_is_copied() {
    let runtime = with_links!(21);
    let dir = sources();
    let script = "readlink /made/here; readlink /same; cat /plain; grep -c ' /made' /proc/self/mountinfo; true";
    let bundle = Bundle::script(script)
        .symlink("/same", "file")
        .bind(dir.join("link"), "/made/here", &["bind", "copy-symlink"])
        .bind(dir.join("link"), "/same", &["bind", "copy-symlink"])
        .bind(dir.join("file"), "/plain", &["bind", "copy-symlink"]);
    prints(&runtime, bundle, &["file", "file", "plain", "0"]);
    for taken in [Bundle::new().symlink("/taken", "elsewhere"), Bundle::new().file("taken", "text")] {
        let bundle = taken.bind(dir.join("link"), "/taken", &["bind", "copy-symlink"]);
        let text = words(&runtime, "\"/taken\" is there and is not that link", "taken");
        runtime.run(&bundle).fails(&text);
    }
}

#[test]
fn a_link_that_is_copied_or_mounted_cannot_take_the_place_of_proc() {
    let runtime = with_links!(28);
    known!(runtime, Crun: "mounts it");
    let dir = sources();
    symlink("/proc", dir.join("to-proc")).unwrap();
    for option in ["copy-symlink", "src-nofollow"] {
        let bundle = Bundle::new().bind(dir.join("to-proc"), "/proc", &["bind", option]);
        runtime.run(&bundle).fails(&["cannot be mounted on /proc because it is not a procfs"]);
    }
    // Through links as well.
    let bundle = Bundle::new().symlink("/way", "proc").bind(dir.join("file"), "/way/self", &["bind", "dest-nofollow"]);
    runtime.run(&bundle).fails(&["cannot be mounted because it leads into /proc"]);
}
