//! malloc(3) for a program that soon ends: the first memory that it asks for comes off a piece of its own, in order, and is not given back.
//!
//! A command asks some thousand times for memory before its container runs. That is a fifth of all its instructions where it is looked
//! for among what is free, split, and joined again; here it is a few additions. What does not fit is the C library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes: what the commands ask for all in all, but for configurations of unusual size. Pages that are not used are not there.
const SIZE: usize = 256 * 1024;
/// Bytes: whoever asks for more at once is to get it back.
const LARGEST: usize = 16 * 1024;
const PAGE: usize = 4096;
/// What malloc(3) aligns everything to, whoever asks for less: code that puts a C structure into bytes relies on it (nix does, for
/// control messages).
const LEAST_ALIGN: usize = 16;

/// The allocator. To be the program's `#[global_allocator]`, which is in static memory.
#[repr(C, align(4096))]
pub struct Heap {
    bytes: UnsafeCell<[u8; SIZE]>,
    /// How many of the bytes are taken: those before.
    taken: AtomicUsize,
}

// SAFETY: no two callers are given the same byte: what begins at `taken` is the caller's who moves it on, and only the owner of
// the last block moves it back.
unsafe impl Sync for Heap {}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// Of which nothing is taken.
    pub const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; SIZE]), taken: AtomicUsize::new(0) }
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
            // As the whole is aligned to a page, so is a multiple of what is asked for.
            let begin = taken.next_multiple_of(layout.align().max(LEAST_ALIGN));
            let end = begin + layout.size();
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
            // The last one can be taken again. Another is lost.
            Some(begin) => drop(self.resize(begin + layout.size(), begin)),
            // SAFETY: our caller's promises, and it came from there.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(begin) = self.offset(block) else {
            // SAFETY: our caller's promises, and it came from there.
            return unsafe { System.realloc(block, layout, size) };
        };
        let fits = size <= LARGEST && begin + size <= SIZE;
        if fits && self.resize(begin + layout.size(), begin + size) {
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
        let heap = Box::new(Heap::new());
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
    fn what_is_large_or_does_not_fit_is_the_c_librarys() {
        let heap = Box::new(Heap::new());
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
        let heap = Heap::new();
        std::thread::scope(|scope| {
            for mark in 1..=4 {
                let heap = &heap;
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
