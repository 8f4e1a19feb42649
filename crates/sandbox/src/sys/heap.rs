//! malloc(3) for a program that soon ends: the first memory that it asks for comes off a piece of its own, in order. What is given back is
//! lost at first, while there is plenty; later it goes to the next who asks for as much.
//!
//! A command asks some thousand times for memory before its container runs. That is a fifth of all its instructions where it is looked
//! for among what is free, split, and joined again; here it is a few additions. And what is written into memory that is given back is a
//! page copied, where a fork has it too. A `list` of many asks without end. What does not fit is the C library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes: what the commands ask for all in all, a `list` of some thousands too. Pages that are not used are not there.
const SIZE: usize = 4 * 1024 * 1024;
/// Bytes: what a command makes do with that creates a container.
const PLENTY: usize = 128 * 1024;
/// Bytes: whoever asks for more at once is to get it back.
const LARGEST: usize = 16 * 1024;
const PAGE: usize = 4096;
/// What malloc(3) aligns everything to, whoever asks for less: code that puts a C structure into bytes relies on it (nix does, for
/// control messages). Blocks are as long, or twice as long, or three times.
const UNIT: usize = 16;

/// The allocator. To be the program's `#[global_allocator]`, which is in static memory.
#[repr(C, align(4096))]
pub struct Heap {
    bytes: UnsafeCell<[u8; SIZE]>,
    /// How many of the bytes are taken: those before.
    taken: AtomicUsize,
    /// Whether a thread is at `free`.
    busy: AtomicBool,
    /// What was given back, by length in units of [`UNIT`]: one more than where the last such block begins, or 0. In its first
    /// bytes is the same of the one before it.
    free: UnsafeCell<[usize; LARGEST / UNIT + 1]>,
}

// SAFETY: no two callers are given the same byte: what begins at `taken` is the caller's who moves it on, and only the owner of
// the last block moves it back; what is in `free` is whose thread takes it out, and one at a time is at it.
unsafe impl Sync for Heap {}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes, of the block of who asks for so many.
fn length(size: usize) -> usize {
    size.next_multiple_of(UNIT)
}

impl Heap {
    /// Of which nothing is taken.
    pub const fn new() -> Self {
        Self {
            bytes: UnsafeCell::new([0; SIZE]),
            taken: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            free: UnsafeCell::new([0; LARGEST / UNIT + 1]),
        }
    }

    fn begin(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// Takes a block: where it begins. None: there is no room, or it is too large.
    fn take(&self, layout: Layout) -> Option<usize> {
        if layout.size() > LARGEST || layout.align() > PAGE {
            return None;
        }
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            if taken > PLENTY
                && layout.align() <= UNIT
                && let Some(begin) = self.take_again(layout.size())
            {
                return Some(begin);
            }
            // As the whole is aligned to a page, so is a multiple of what is asked for.
            let begin = taken.next_multiple_of(layout.align().max(UNIT));
            let end = begin + length(layout.size());
            if end > SIZE {
                return None;
            }
            if self.resize(taken, end) {
                return Some(begin);
            }
        }
    }

    /// Moves the end of what is taken, if it is where the caller thinks.
    fn resize(&self, taken: usize, end: usize) -> bool {
        self.taken.compare_exchange(taken, end, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Has `work` change the free blocks of this size. None: another thread is at them. Nobody waits for it, least of all a fork for a
    /// thread that it has not.
    fn with_free<T>(&self, size: usize, work: impl FnOnce(&mut usize) -> Option<T>) -> Option<T> {
        if self.busy.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: who finds `busy` false is alone until it is false again; no block is larger than LARGEST.
        let result = work(unsafe { &mut (&mut *self.free.get())[length(size) / UNIT] });
        self.busy.store(false, Ordering::Release);
        result
    }

    /// Takes a block that was given back: where it begins.
    fn take_again(&self, size: usize) -> Option<usize> {
        self.with_free(size, |last| {
            let begin = last.checked_sub(1)?;
            // SAFETY: a free block begins there, and with such a number, which `give` wrote.
            *last = unsafe { self.begin().add(begin).cast::<usize>().read() };
            Some(begin)
        })
    }

    /// Has a block free for others: the last one's place, and any other past plenty. Else it is lost.
    fn give(&self, begin: usize, size: usize) {
        if self.resize(begin + length(size), begin) || self.taken.load(Ordering::Relaxed) <= PLENTY {
            return;
        }
        let _lost_if_another_is_at_work = self.with_free(size, |last| {
            // SAFETY: the block is nobody's any more, aligned to 16, and as long.
            unsafe { self.begin().add(begin).cast::<usize>().write(*last) };
            *last = begin + 1;
            Some(())
        });
    }

    /// Where a block of ours begins. None: it is the C library's.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.begin().addr());
        (offset < SIZE).then_some(offset)
    }
}

// SAFETY: blocks do not overlap (see `Sync`), lie in the static, are aligned, and stay where they are until given back. What is not
// ours was System's and goes to it, which keeps these promises itself. Nothing here panics.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            // SAFETY: `begin` and what follows of the block are within the bytes.
            Some(begin) => unsafe { self.begin().add(begin) },
            // SAFETY: our caller's promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(begin) => self.give(begin, layout.size()),
            // SAFETY: our caller's promises, and it came from there.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(begin) = self.offset(block) else {
            // SAFETY: our caller's promises, and it came from there.
            return unsafe { System.realloc(block, layout, size) };
        };
        let (old, end) = (length(layout.size()), begin + length(size));
        // Past plenty nothing grows where it is: blocks would be given back that are longer than any that is asked for.
        if old == length(size) || (size <= LARGEST && end <= PLENTY && self.resize(begin + old, end)) {
            return block;
        }
        // SAFETY: our caller promises that `size`, rounded up to this alignment, is no more than isize::MAX.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are as long as the shorter of them, and the new block is no part of the old one, which is the caller's still.
            unsafe { std::ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
            // SAFETY: our caller's promises; nobody has the block any more.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_follow_each_other_aligned_and_the_last_can_grow_shrink_and_go() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        let offset = |block| heap.offset(block);
        // SAFETY: every block is given back with its layout, once, or kept until the heap goes.
        unsafe {
            let first = heap.alloc(layout(3, 1));
            let second = heap.alloc(layout(16, 8));
            assert_eq!((offset(first), offset(second)), (Some(0), Some(16)));
            second.write_bytes(7, 16);
            assert_eq!(heap.realloc(second, layout(16, 8), 100), second);
            assert_eq!(heap.realloc(second, layout(100, 8), 20), second);
            let third = heap.alloc(layout(1, 1));
            assert_eq!(offset(third), Some(48));
            // Not the last any more: it moves, with what is in it.
            let moved = heap.realloc(second, layout(20, 8), 40);
            assert_eq!((offset(moved), std::slice::from_raw_parts(moved, 16)), (Some(64), [7; 16].as_slice()));
            heap.dealloc(moved, layout(40, 8));
            assert_eq!(offset(heap.alloc(layout(64, 256))), Some(256));
        }
    }

    #[test]
    fn past_plenty_what_is_given_back_goes_to_the_next_who_asks_for_as_much() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        // SAFETY: every block is given back with its layout, once, or kept until the heap goes.
        unsafe {
            let lost = heap.alloc(layout(90, 1));
            let mut blocks = [lost; 3];
            for _ in 0..PLENTY / LARGEST {
                heap.alloc(layout(LARGEST, 1));
            }
            let begin = heap.offset(heap.alloc(layout(16, 1))).unwrap() + 16;
            blocks.fill_with(|| heap.alloc(layout(90, 1)));
            let [first, second, last] = blocks;
            assert_eq!(heap.offset(last), Some(begin + 2 * 96));
            heap.dealloc(first, layout(90, 1));
            heap.dealloc(second, layout(90, 1));
            // As long, but it may lie anywhere.
            assert!(heap.offset(heap.alloc(layout(96, 32))).unwrap() >= begin + 3 * 96);
            assert!(![first, second].contains(&heap.alloc(layout(80, 1))));
            assert_eq!([96, 81].map(|size| heap.alloc(layout(size, 16))), [second, first]);
            heap.dealloc(first, layout(81, 16));
            // Neither does the last one grow where it is.
            let short = heap.alloc(layout(16, 1));
            assert_eq!(heap.realloc(short, layout(16, 1), 90), first);
            assert_eq!(heap.alloc(layout(16, 1)), short);
            // There is no other.
            assert!(heap.offset(heap.alloc(layout(96, 1))).unwrap() > begin + 3 * 96);
        }
    }

    #[test]
    fn within_plenty_nothing_is_written_into_what_is_given_back() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        // SAFETY: every block is given back with its layout, once, or kept until the heap goes; `first` is read where nobody has it.
        unsafe {
            let first = heap.alloc(layout(32, 1));
            first.write_bytes(7, 32);
            let second = heap.alloc(layout(32, 1));
            heap.dealloc(first, layout(32, 1));
            assert_eq!(std::slice::from_raw_parts(first, 32), [7; 32]);
            assert_eq!(heap.offset(heap.alloc(layout(32, 1))), Some(64));
            heap.dealloc(second, layout(32, 1));
        }
    }

    #[test]
    fn what_is_large_or_does_not_fit_is_the_c_librarys() {
        static HEAP: Heap = Heap::new();
        let heap = &HEAP;
        // SAFETY: every block of System's is given back with its layout, once.
        unsafe {
            let large = heap.alloc(layout(LARGEST + 1, 1));
            assert_eq!(heap.offset(large), None);
            let larger = heap.realloc(large, layout(LARGEST + 1, 1), SIZE);
            assert_eq!(heap.offset(larger), None);
            heap.dealloc(larger, layout(SIZE, 1));
            let page = heap.alloc(layout(16, 2 * PAGE));
            assert_eq!(heap.offset(page), None);
            heap.dealloc(page, layout(16, 2 * PAGE));
            for number in 0..SIZE / LARGEST {
                assert_eq!(heap.offset(heap.alloc(layout(LARGEST, 1))), Some(number * LARGEST));
            }
            let over = heap.alloc(layout(1, 1));
            assert_eq!(heap.offset(over), None);
            heap.dealloc(over, layout(1, 1));
            // Grows out of ours into the C library's.
            let last = heap.begin().add(SIZE - LARGEST);
            last.write_bytes(9, LARGEST);
            let moved = heap.realloc(last, layout(LARGEST, 1), LARGEST + 1);
            assert_eq!(heap.offset(moved), None);
            assert_eq!(std::slice::from_raw_parts(moved, LARGEST), [9; LARGEST].as_slice());
            heap.dealloc(moved, layout(LARGEST + 1, 1));
            // And left room behind.
            assert_eq!(heap.offset(heap.alloc(layout(1, 1))), Some(SIZE - LARGEST));
        }
    }

    #[test]
    fn many_threads_never_get_the_same_bytes() {
        static HEAP: Heap = Heap::new();
        std::thread::scope(|scope| {
            for mark in 1..=4 {
                let heap = &HEAP;
                scope.spawn(move || {
                    let mut kept: Vec<(*mut u8, usize)> = Vec::new();
                    for number in 0..2000 {
                        let size = 1 + number % 61;
                        // SAFETY: a block is written to its end and no further, and given back with its layout, once.
                        unsafe {
                            let block = heap.alloc(layout(size, 1));
                            block.write_bytes(mark, size);
                            kept.push((block, size));
                            if number % 3 == 0
                                && let Some((block, size)) = kept.pop()
                            {
                                heap.dealloc(block, layout(size, 1));
                            }
                        }
                    }
                    for (block, size) in kept {
                        // SAFETY: still ours.
                        let bytes = unsafe { std::slice::from_raw_parts(block, size) };
                        assert!(bytes.iter().all(|byte| *byte == mark));
                        // SAFETY: and given back once.
                        unsafe { heap.dealloc(block, layout(size, 1)) };
                    }
                });
            }
        });
    }
}
