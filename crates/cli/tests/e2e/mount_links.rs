//! What becomes of symbolic links that bind mounts name: crun's options.

use std::fs;
use std::os::unix::fs::symlink;

use tare_testkit::{Bundle, Kind, Runtime, TempDir, known, record_known};

use crate::words;

/// The runtime, if it knows the options.
macro_rules! with_links {
    () => {{
        let runtime = crate::runtime();
        known!(runtime, Runc: "follows it whatever it is told");
        let version = runtime.bare().arg("--version").run().ok();
        let is_old = runtime.kind() == Kind::Crun && version.stdout.starts_with("crun version 1.8.");
        if is_old && record_known(runtime.kind(), "1.8.1 does not know the option") {
            return;
        }
        runtime
    }};
}

/// A directory with a link `link` to `there`, and `file`, `there/file`.
fn sources() -> TempDir {
    let dir = TempDir::new("links");
    fs::create_dir(dir.join("there")).unwrap();
    fs::write(dir.join("there/file"), "in there\n").unwrap();
    fs::write(dir.join("file"), "plain\n").unwrap();
    symlink("there", dir.join("link")).unwrap();
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
    let runtime = with_links!();
    let dir = sources();
    let script = "readlink /new; grep -c ' /new ' /proc/self/mountinfo; cat /copy/file; cat /plain";
    let bundle = Bundle::script(script)
        .bind(dir.join("link"), "/new", &["bind", "src-nofollow"])
        .bind(dir.join("link"), "/copy", &["bind"])
        .bind(dir.join("file"), "/plain", &["bind", "src-nofollow"]);
    prints(&runtime, bundle, &["there", "1", "in there", "plain"]);
}

#[test]
fn a_destination_that_is_not_followed_is_mounted_over_as_a_link() {
    let runtime = with_links!();
    let dir = sources();
    let script = "cat /over; cat /etc/own; readlink /linked; readlink /dangling || cat /dangling; ls /nowhere; \
                  cat /made/on/the/way";
    let bundle = Bundle::script(&format!("exec 2>/dev/null; {script}; true"))
        .file("etc/own", "untouched\n")
        .symlink("/over", "etc/own")
        .symlink("/linked", "etc/own")
        .symlink("/dangling", "nowhere")
        .bind(dir.join("file"), "/over", &["bind", "dest-nofollow"])
        .bind(dir.join("link"), "/linked", &["bind", "dest-nofollow", "src-nofollow"])
        .bind(dir.join("file"), "/dangling", &["bind", "dest-nofollow"])
        .bind(dir.join("file"), "/made/on/the/way", &["bind", "dest-nofollow"]);
    prints(&runtime, bundle, &["plain", "untouched", "there", "plain", "plain"]);
}

#[test]
fn a_source_that_is_a_link_is_copied() {
    let runtime = with_links!();
    let dir = sources();
    let script = "readlink /made/here; readlink /same; cat /plain; grep -c ' /made' /proc/self/mountinfo; true";
    let bundle = Bundle::script(script)
        .symlink("/same", "there")
        .bind(dir.join("link"), "/made/here", &["bind", "copy-symlink"])
        .bind(dir.join("link"), "/same", &["bind", "copy-symlink"])
        .bind(dir.join("file"), "/plain", &["bind", "copy-symlink"]);
    prints(&runtime, bundle, &["there", "there", "plain", "0"]);
    for taken in [Bundle::new().symlink("/taken", "elsewhere"), Bundle::new().file("taken", "text")] {
        let bundle = taken.bind(dir.join("link"), "/taken", &["bind", "copy-symlink"]);
        let text = words(&runtime, "\"/taken\" is there and is not that link", "/taken");
        runtime.run(&bundle).fails(&text);
    }
}

#[test]
fn a_link_that_is_copied_or_mounted_cannot_take_the_place_of_proc() {
    let runtime = with_links!();
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
