//! ELF programs: elf(5). Of another machine, or built for a C library that the image lacks.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::{Finding, quoted, read};

const PT_INTERP: u64 = 3;
/// PATH_MAX: the kernel takes no longer one.
const INTERPRETER_BYTES: u64 = 4096;
/// More program headers than any linker makes; the kernel itself takes 64 KiB of them.
const MOST_HEADERS: u64 = 512;

/// Byte order and width of a file, and its first bytes.
struct Elf<'a> {
    file: &'a File,
    little: bool,
    wide: bool,
}

impl Elf<'_> {
    fn number(&self, bytes: &[u8]) -> u64 {
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }

    fn at(&self, offset: u64, length: usize) -> Option<u64> {
        let mut buffer = [0; 8];
        let buffer = buffer.get_mut(..length)?;
        (read(self.file, buffer, offset) == length).then(|| self.number(buffer))
    }

    /// A field that is at one place in a 32-bit file and at another in a 64-bit one, as wide as its pointers.
    fn word(&self, narrow: u64, wide: u64) -> Option<u64> {
        if self.wide { self.at(wide, 8) } else { self.at(narrow, 4) }
    }

    /// The program's interpreter, the dynamic linker: the contents of PT_INTERP.
    fn interpreter(&self) -> Option<Vec<u8>> {
        let start = self.word(28, 32)?;
        let (size, count) =
            if self.wide { (self.at(54, 2)?, self.at(56, 2)?) } else { (self.at(42, 2)?, self.at(44, 2)?) };
        for index in 0..count.min(MOST_HEADERS) {
            let header = start.checked_add(index * size)?;
            if self.at(header, 4)? != PT_INTERP {
                continue;
            }
            let offset = self.word(header.checked_add(4)?, header.checked_add(8)?)?;
            let length = self.word(header.checked_add(16)?, header.checked_add(32)?)?;
            let mut path = vec![0; usize::try_from(length.min(INTERPRETER_BYTES)).ok()?];
            let length = read(self.file, &mut path, offset);
            path.truncate(path[..length].iter().position(|byte| *byte == 0).unwrap_or(length));
            return Some(path);
        }
        None
    }
}

/// Why the kernel answers `errno` to the ELF file at `path`.
pub(super) fn diagnose(file: &File, path: &Path, head: &[u8], errno: Errno, depth: usize) -> Option<Finding> {
    let shown = quoted(path);
    let (Some(class), Some(data)) = (head.get(4), head.get(5)) else {
        return Finding::new(format!("{shown} ends within its header"));
    };
    let elf = Elf { file, little: *data != 2, wide: *class == 2 };
    let machine = elf.at(18, 2)?;
    let own = own_machine();
    if errno == Errno::ENOEXEC || errno == Errno::ELIBBAD {
        let theirs = machine_name(machine, *class, *data);
        if theirs != own && !(own == "x86_64" && theirs == "i386") {
            return Finding::hinted(
                format!("{shown} is for {theirs}, this machine is {own}"),
                format!("use an image for {own}"),
            );
        }
        return match elf.at(16, 2) {
            // ET_EXEC, ET_DYN.
            Some(2 | 3) if theirs != own => {
                Finding::new(format!("{shown} is for {theirs}, which this kernel does not run"))
            }
            Some(2 | 3) => Finding::new(format!("{shown} is damaged: the kernel does not take its ELF headers")),
            _ => Finding::new(format!("{shown} is an ELF file, but no program")),
        };
    }
    let interpreter = elf.interpreter()?;
    let linker = Path::new(OsStr::from_bytes(&interpreter));
    let shown_linker = quoted(linker);
    match linker.metadata() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Some(Finding {
            cause: format!("{shown} needs the interpreter {shown_linker}, which is not found"),
            hint: hint(linker),
        }),
        _ => {
            let found = super::file(linker, errno, depth + 1)?;
            Some(Finding { cause: format!("interpreter {shown_linker}: {}", found.cause), hint: found.hint })
        }
    }
}

/// Which C library the program was built for, by the name of its linker.
fn hint(linker: &Path) -> Option<String> {
    let name = linker.file_name()?.to_string_lossy().into_owned();
    let library = match () {
        () if name.starts_with("ld-musl") => "musl",
        () if name.starts_with("ld-linux") || name.starts_with("ld64") || name == "ld.so.1" => "glibc",
        () => return Some("the program was built for another system than this image".to_owned()),
    };
    Some(format!(
        "the program was built for {library}, which this image lacks: link it statically or use another image"
    ))
}

/// uname -m of this build.
fn own_machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86" => "i386",
        other => other,
    }
}

/// `EM_*`, class and byte order as uname(1) would name the machine.
fn machine_name(machine: u64, class: u8, data: u8) -> String {
    let little = data != 2;
    match (machine, class) {
        (3, _) => "i386",
        (8, _) if little => "mipsel",
        (8, _) => "mips",
        (20, _) => "powerpc",
        (21, _) if little => "powerpc64le",
        (21, _) => "powerpc64",
        (22, _) => "s390x",
        (40, _) => "arm",
        (62, 1) => "x86_64 with 32-bit pointers (x32)",
        (62, _) => "x86_64",
        (183, _) => "aarch64",
        (243, 1) => "riscv32",
        (243, _) => "riscv64",
        (258, _) => "loongarch64",
        _ => return format!("machine {machine}"),
    }
    .to_owned()
}

#[cfg(test)]
pub(super) fn is_linked(path: &Path) -> bool {
    let Some(opened) = super::open(path) else { return false };
    let elf = Elf { file: &opened, little: true, wide: true };
    elf.interpreter().is_some() && super::file(path, Errno::ENOENT, 0).is_none()
}
