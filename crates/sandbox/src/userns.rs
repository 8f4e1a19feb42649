//! User namespaces that are there for their id maps.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{pipe2, read};

use crate::Result;
use crate::error::CallContext;
use crate::init::parent::write_id_maps;
use crate::plan::IdMappings;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::exit_child;
use crate::sys::thread::SingleThreaded;

/// Makes a user namespace with these maps in which no process stays: the file alone keeps it, and what is done with it.
///
/// A namespace begins with a process, so one is forked into it. It waits at a pipe, which closes when the maps are
/// written, and when the runtime is killed.
///
/// # Errors
/// The call that failed; the map that the kernel refuses.
pub fn with_mappings(proof: SingleThreaded, maps: &IdMappings) -> Result<OwnedFd> {
    let (wait, word) = pipe2(OFlag::O_CLOEXEC).call(|| "pipe2()")?;
    let side = clone3(proof, libc::CLONE_NEWUSER, None).call(|| "clone3(CLONE_NEWUSER)")?;
    let Side::Parent(child) = side else {
        drop(word);
        // Ends without a byte, or is interrupted: there is nothing left to do either way.
        let _end = read(&wait, &mut [0]);
        exit_child(0)
    };
    drop(wait);
    let opened = write_id_maps(child, maps, "").and_then(|()| {
        let path = format!("/proc/{child}/ns/user");
        File::open(&path).map(OwnedFd::from).call(|| format!("open({path:?})"))
    });
    drop(word);
    waitpid(child, None).call(|| "waitpid(user namespace)")?;
    opened
}
