//! execveat(2), _exit(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// `execveat(fd, "", argv, envp, AT_EMPTY_PATH)`: runs the file behind `fd`. Returns only on failure.
///
/// Linux 3.19. <https://man7.org/linux/man-pages/man2/execveat.2.html>
pub fn execveat(fd: BorrowedFd<'_>, argv: &[CString], envp: &[CString]) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    let empty: &CStr = c"";
    // SAFETY: both arrays end with a null pointer and point to C strings that live to the end of this function.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            empty.as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Errno::last()
}

/// `execve(path, argv, envp)`. Returns only on failure.
///
/// <https://man7.org/linux/man-pages/man2/execve.2.html>
pub fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    // SAFETY: as for execveat; `path` is a C string that outlives the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::last()
}

/// `_exit(code)`: ends a forked child without the exit handlers and buffers that belong to its parent.
pub fn exit_child(code: i32) -> ! {
    // SAFETY: takes an int, never returns.
    unsafe { libc::_exit(code) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}
