//! prctl(PR_SET_MM_MAP), mmap(2), mremap(2): the file that a process runs, exchanged while it runs.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{copy_nonoverlapping, null_mut};

use libc::{Elf64_Phdr, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::check;
use super::path::open;
use super::thread::SingleThreaded;

/// <linux/prctl.h>
const PR_SET_MM: libc::c_int = 35;
const PR_SET_MM_MAP: libc::c_ulong = 14;

/// `struct prctl_mm_map` of <linux/prctl.h>.
#[repr(C)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Has the process run `file` instead of the file that it was executed from, of which nothing stays: not `/proc/PID/exe`,
/// not a mapping. `file` must be the very same file, reached another way, through another mount.
///
/// The kernel refuses to exchange the file of a process while any of the old one is mapped, so what it grants is complete.
/// Linux 3.18. <https://man7.org/linux/man-pages/man2/PR_SET_MM.2const.html>
///
/// # Errors
/// The process then runs the old file still, and works as before. `EPERM`: no `CAP_SYS_ADMIN` in the process' user namespace;
/// `EINVAL`: a kernel without `CONFIG_CHECKPOINT_RESTORE`; `ENOEXEC`: this is not how `file` is laid out, as under an emulator;
/// `EBUSY`: the old file is mapped elsewhere too; `EACCES`: `file` may not be executed.
pub fn exchange(_proof: SingleThreaded, file: BorrowedFd<'_>) -> nix::Result<()> {
    let segments = Segments::own()?;
    if !segments.are_of(file)? {
        return Err(Errno::ENOEXEC);
    }
    for segment in segments.loaded() {
        if segment.p_flags & libc::PF_W == 0 {
            map_again(&segments, segment, file)?;
        } else {
            detach(&segments, segment)?;
        }
    }
    segments.seal_relro()?;
    let map = MmMap { exe_fd: file.as_raw_fd().cast_unsigned(), ..own_map()? };
    // SAFETY: `map` is a prctl_mm_map of the size given. All in it but the file is what the kernel has already.
    check(unsafe { libc::prctl(PR_SET_MM, PR_SET_MM_MAP, &raw const map, size_of::<MmMap>(), 0) }.into()).map(drop)
}

/// The program headers of this process.
struct Segments {
    headers: &'static [Elf64_Phdr],
    /// What is added to the addresses of the file.
    bias: u64,
    /// Bytes of a page, a power of two.
    page: u64,
}

impl Segments {
    fn own() -> nix::Result<Self> {
        // SAFETY: reads what the kernel told the process at its start.
        let [at, count, page] =
            [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PAGESZ].map(|name| unsafe { libc::getauxval(name) });
        if at == 0 || !page.is_power_of_two() {
            return Err(Errno::ENOEXEC);
        }
        // SAFETY: so many program headers are there, of a segment that is mapped as long as the process lives.
        let headers = unsafe { std::slice::from_raw_parts(at as *const Elf64_Phdr, length(count)?) };
        // They are in the first page of the file, after its header; `are_of` looks whether that is so. Not every linker says where they are.
        let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0);
        let begin = at & !(page - 1);
        Ok(Self { headers, bias: begin.wrapping_sub(first.ok_or(Errno::ENOEXEC)?.p_vaddr), page })
    }

    /// Whether the beginning of `file`, which holds the headers and the number of the build, is what is in memory.
    fn are_of(&self, file: BorrowedFd<'_>) -> nix::Result<bool> {
        let mut bytes = [0; 1024];
        let count = nix::sys::uio::pread(file, &mut bytes, 0)?;
        let Some(first) = self.loaded().find(|segment| segment.p_offset == 0) else { return Ok(false) };
        let begin = self.bias.wrapping_add(first.p_vaddr) as *const u8;
        let count = count.min(length(first.p_filesz)?);
        // SAFETY: so many bytes are there, of a segment that is mapped as long as the process lives.
        Ok(bytes[..count] == *unsafe { std::slice::from_raw_parts(begin, count) })
    }

    fn loaded(&self) -> impl Iterator<Item = &'static Elf64_Phdr> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz > 0)
    }

    /// The pages that the kernel mapped of the file: the first's address, and the length of all.
    fn pages(&self, segment: &Elf64_Phdr) -> nix::Result<(*mut c_void, usize)> {
        let address = self.bias.wrapping_add(segment.p_vaddr);
        let (begin, end) = (self.page_of(address), self.page_of(address + segment.p_filesz + self.page - 1));
        Ok((begin as *mut c_void, length(end - begin)?))
    }

    /// Where the page begins that `at` is in, an address or an offset.
    fn page_of(&self, at: u64) -> u64 {
        at & !(self.page - 1)
    }

    /// What only the C library's start could write is read-only again.
    fn seal_relro(&self) -> nix::Result<()> {
        let Some(relro) = self.headers.iter().find(|header| header.p_type == libc::PT_GNU_RELRO) else {
            return Ok(());
        };
        let address = self.bias.wrapping_add(relro.p_vaddr);
        let (begin, end) = (self.page_of(address), self.page_of(address + relro.p_memsz));
        // SAFETY: the C library did the same to the same pages when the process began; nothing has written there since.
        check(unsafe { libc::mprotect(begin as *mut c_void, length(end - begin)?, PROT_READ) }.into()).map(drop)
    }
}

fn length(bytes: u64) -> nix::Result<usize> {
    usize::try_from(bytes).map_err(|_| Errno::ENOEXEC)
}

/// Maps what nobody can have written to, code among it, from `file`.
fn map_again(segments: &Segments, segment: &Elf64_Phdr, file: BorrowedFd<'_>) -> nix::Result<()> {
    let (begin, length) = segments.pages(segment)?;
    let protection = PROT_READ | if segment.p_flags & libc::PF_X == 0 { 0 } else { PROT_EXEC };
    let offset = libc::off_t::try_from(segments.page_of(segment.p_offset)).map_err(|_| Errno::ENOEXEC)?;
    // SAFETY: the same bytes of the same file at the same place, in one step: before the call returns to what it maps,
    // that is there again. Its pages are those that were mapped before.
    let mapped = unsafe { libc::mmap(begin, length, protection, MAP_PRIVATE | MAP_FIXED, file.as_raw_fd(), offset) };
    if mapped == MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// Puts memory of no file in the place of what may have been written to, with the same contents.
fn detach(segments: &Segments, segment: &Elf64_Phdr) -> nix::Result<()> {
    let (begin, length) = segments.pages(segment)?;
    let protection = PROT_READ | PROT_WRITE;
    // Populated at once: all of it is written to now.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: new memory, where the kernel wants it.
    let copy = unsafe { libc::mmap(null_mut(), length, protection, flags, -1, 0) };
    if copy == MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: `begin` has `length` bytes that can be read: whole pages of the file are mapped. No other thread (`_proof` of exchange) and no signal
    // handler writes to them between the copy and its move, nor does this function: its own variables are on the stack.
    // The move takes the place of the old pages in one step.
    let moved = unsafe {
        copy_nonoverlapping(begin.cast::<u8>(), copy.cast::<u8>(), length);
        libc::mremap(copy, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, begin)
    };
    if moved == MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// What the kernel knows of the memory of this process, from `/proc/self/stat`; without a file.
fn own_map() -> nix::Result<MmMap> {
    let mut text = [0; 1024];
    let stat = open("/proc/self/stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let length = nix::unistd::read(stat, &mut text)?;
    let text = std::str::from_utf8(&text[..length]).map_err(|_| Errno::ENOEXEC)?;
    // The name of the command is in parentheses, and may have some.
    let (_, fields) = text.rsplit_once(") ").ok_or(Errno::ENOEXEC)?;
    let mut numbers = fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default());
    // Numbers as in proc_pid_stat(5), of which the third is the first here.
    let mut after = |skipped| numbers.nth(skipped).ok_or(Errno::ENOEXEC);
    let (start_code, end_code, start_stack) = (after(26 - 3)?, after(0)?, after(0)?);
    let (start_data, end_data, start_brk) = (after(45 - 29)?, after(0)?, after(0)?);
    let (arg_start, arg_end, env_start, env_end) = (after(0)?, after(0)?, after(0)?, after(0)?);
    // SAFETY: changes nothing, and tells where the heap ends.
    let brk = unsafe { libc::sbrk(0) } as u64;
    Ok(MmMap {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
        auxv: 0,
        auxv_size: 0,
        exe_fd: u32::MAX,
    })
}
