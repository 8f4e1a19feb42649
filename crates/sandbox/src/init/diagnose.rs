//! Why a program cannot be executed. "no such file or directory" of a script that is there means its interpreter, and the
//! kernel does not say so; nobody but us can: from outside the file cannot be seen as the container sees it.
//!
//! Runs after a failure alone, in the stage, as the container's user and in its root. Everything it looks at is hostile:
//! only regular files are read, never blocking, and only their beginning.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, access};

use crate::Error;

mod elf;

/// BINPRM_BUF_SIZE: what the kernel looks at, and so the longest first line of a script.
const HEAD_BYTES: usize = 256;
/// An interpreter of an interpreter of …: the kernel follows five.
const DEEPEST: usize = 5;

/// What is wrong with a file, and what to do about it when that is sure.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    cause: String,
    hint: Option<String>,
}

impl Finding {
    fn new(cause: impl Into<String>) -> Option<Self> {
        Some(Self { cause: cause.into(), hint: None })
    }

    fn hinted(cause: impl Into<String>, hint: impl Into<String>) -> Option<Self> {
        Some(Self { cause: cause.into(), hint: Some(hint.into()) })
    }

    fn wrap(self, error: impl FnOnce(String) -> Error) -> Error {
        let error = error(self.cause);
        match self.hint {
            Some(hint) => Error::Hinted { hint, source: Box::new(error) },
            None => error,
        }
    }
}

/// The error of an execve(2) of `program` that answered `errno`. The errno's words stay at its end: clients match them.
pub(super) fn exec(program: &CStr, errno: Errno) -> Error {
    let path = Path::new(OsStr::from_bytes(program.to_bytes()));
    let call = format!("exec \"{}\"", program.to_string_lossy());
    let found = match errno {
        Errno::E2BIG => Finding::new("the arguments and the environment are too long"),
        Errno::ETXTBSY => Finding::new("the file is open for writing"),
        _ => file(path, errno, 0),
    };
    match found {
        Some(found) => found.wrap(|cause| Error::call(format!("{call}: {cause}"), errno)),
        None => Error::call(call, errno),
    }
}

/// Adds to the `error` of a search for `name` why the file there does not do.
pub(super) fn search(name: &CStr, env: &[CString], error: Error) -> Error {
    let found = if name.to_bytes().contains(&b'/') {
        missing_or_closed(Path::new(OsStr::from_bytes(name.to_bytes())))
    } else {
        in_path(name, env)
    };
    match found {
        Some(found) => found.wrap(|cause| Error::Refused(format!("{error}: {cause}"))),
        None => error,
    }
}

/// A file of that name in PATH that was passed over.
fn in_path(name: &CStr, env: &[CString]) -> Option<Finding> {
    let Some(path) = env.iter().rev().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH=")) else {
        return Finding::hinted(
            "the environment has no PATH",
            "set PATH in process.env, or name the program by its path",
        );
    };
    let name = OsStr::from_bytes(name.to_bytes());
    path.split(|byte| *byte == b':').filter(|dir| !dir.is_empty()).find_map(|dir| {
        let candidate = Path::new(OsStr::from_bytes(dir)).join(name);
        candidate.symlink_metadata().ok().and_then(|_| missing_or_closed(&candidate))
    })
}

/// Why `path` cannot be found or may not be executed.
fn missing_or_closed(path: &Path) -> Option<Finding> {
    let shown = quoted(path);
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(_) => return stopped(path),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Finding::new(format!("{shown} is a directory"));
    }
    if !kind.is_file() {
        let what = match () {
            () if kind.is_fifo() => "a fifo",
            () if kind.is_socket() => "a socket",
            () => "a device",
        };
        return Finding::new(format!("{shown} is {what}, not a program"));
    }
    if metadata.mode() & 0o111 == 0 {
        let mode = metadata.mode() & 0o7777;
        return Finding::hinted(format!("{shown} has no execute bit (mode {mode:04o})"), "chmod +x it in the image");
    }
    if let Some(file) = open(path)
        && fstatvfs(file.as_fd()).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC))
    {
        return Finding::hinted(
            format!("{shown} is on a mount with the option noexec"),
            "take noexec out of that mount's options",
        );
    }
    if access(path, AccessFlags::X_OK) == Err(Errno::EACCES) {
        let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
        let own = nix::unistd::geteuid();
        return Finding::new(format!("{shown} is of {uid}:{gid} with mode {mode:04o}: not for user {own}"));
    }
    None
}

/// The first name on the way to `path` that cannot be passed.
fn stopped(path: &Path) -> Option<Finding> {
    let mut way = PathBuf::new();
    for component in path.components() {
        way.push(component);
        let Err(error) = way.metadata() else { continue };
        let own = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let shown = quoted(&way);
        return match (own, way.read_link()) {
            (Errno::ENOENT, Ok(target)) => {
                Finding::new(format!("{shown} is a link to {}, which is missing", quoted(&target)))
            }
            (Errno::ELOOP, _) => Finding::new(format!("{shown} is a link in a loop")),
            // The program itself: the message says so already.
            (Errno::ENOENT, Err(_)) if way == path => None,
            (Errno::ENOENT, Err(_)) => Finding::new(format!("there is no {shown}")),
            (Errno::ENOTDIR, _) => {
                let parent = way.parent().unwrap_or(Path::new("/"));
                Finding::new(format!("{} is not a directory", quoted(parent)))
            }
            (Errno::EACCES, _) => {
                let parent = way.parent().unwrap_or(Path::new("/"));
                let own = nix::unistd::geteuid();
                Finding::new(format!("{} may not be entered by user {own}", quoted(parent)))
            }
            _ => None,
        };
    }
    None
}

/// Why the file at `path`, which is there, is refused with `errno`.
fn file(path: &Path, errno: Errno, depth: usize) -> Option<Finding> {
    if depth > DEEPEST {
        return Finding::new(format!("{} has an interpreter that has an interpreter, and so on", quoted(path)));
    }
    if let Some(found) = missing_or_closed(path) {
        return Some(found);
    }
    let file = open(path)?;
    let mut head = [0; HEAD_BYTES];
    let length = read(&file, &mut head, 0);
    let head = &head[..length];
    match head {
        [] => Finding::new(format!("{} is empty", quoted(path))),
        [b'#', b'!', line @ ..] => script(path, line, errno, depth),
        [0x7f, b'E', b'L', b'F', ..] => elf::diagnose(&file, path, head, errno, depth),
        _ if errno == Errno::ENOEXEC => Some(unknown_format(path, head)),
        _ => None,
    }
}

/// A script whose first line, after `#!`, is `line`.
fn script(path: &Path, line: &[u8], errno: Errno, depth: usize) -> Option<Finding> {
    let end = line.iter().position(|byte| *byte == b'\n');
    let cut = end.is_none() && line.len() == HEAD_BYTES - 2;
    // As the kernel does: blanks and tabs around, the first word is the interpreter. A carriage return is part of it.
    let blank = |byte: &u8| matches!(*byte, b' ' | b'\t');
    let line = &line[..end.unwrap_or(line.len())];
    let word = line.split(blank).find(|word| !word.is_empty()).unwrap_or_default();
    if word.is_empty() || word == b"\r" {
        return Finding::new(format!("the first line of {} names no interpreter", quoted(path)));
    }
    if cut && word.len() + 1 >= line.len() {
        return Finding::new(format!("the first line of {} is longer than {HEAD_BYTES} bytes", quoted(path)));
    }
    let interpreter = Path::new(OsStr::from_bytes(word));
    let shown = quoted(interpreter);
    if let Err(error) = interpreter.metadata() {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
        if missing && word.ends_with(b"\r") {
            return Finding::hinted(format!("interpreter {shown} not found"), "the script has Windows line endings");
        }
        if missing {
            let more = stopped(interpreter).map(|found| format!(": {}", found.cause)).unwrap_or_default();
            return Finding::hinted(
                format!("interpreter {shown} not found{more}"),
                format!("the image has no {shown}: install it, or change the first line of {}", quoted(path)),
            );
        }
    }
    let found = self::file(interpreter, errno, depth + 1)?;
    Some(Finding { cause: format!("interpreter {shown}: {}", found.cause), hint: found.hint })
}

fn unknown_format(path: &Path, head: &[u8]) -> Finding {
    let shown = quoted(path);
    let (what, hint) = match head {
        [0xef, 0xbb, 0xbf, b'#', b'!', ..] => {
            (format!("{shown} begins with a byte order mark"), Some("save the script as UTF-8 without BOM"))
        }
        [b'M', b'Z', ..] => (format!("{shown} is a program for Windows"), None),
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => {
            (format!("{shown} is a program for macOS"), None)
        }
        _ if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            (format!("{shown} is a text without a #! line"), Some("begin it with #!/bin/sh or the like"))
        }
        _ => (format!("{shown} is neither an ELF program nor a script"), None),
    };
    Finding { cause: what, hint: hint.map(str::to_owned) }
}

/// Opens a regular file, and nothing else: a fifo would not open, a device may act.
fn open(path: &Path) -> Option<File> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// What is there at `offset`, up to the length of `buffer`.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset.saturating_add(length as u64)) {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    length
}

/// A path in quotes, `\r` and the like made visible.
fn quoted(path: &Path) -> String {
    format!("{path:?}")
}

#[cfg(test)]
mod tests;
