//! An allocator that counts, to prove that a hot function allocates nothing.
//!
//! A bench makes it the global one: `#[global_allocator] static COUNTING: Counting = Counting;`
#![expect(unsafe_code, reason = "an allocator cannot be written without; each block says why")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting allocations of each thread.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

/// Allocations this thread made while `work` ran; 0 as well when [`Counting`] is not the global
/// allocator, so a bench first shows that something counts.
pub fn during(work: impl FnOnce()) -> u64 {
    let before = MADE.get();
    work();
    MADE.get() - before
}

fn count() {
    // A thread that is ending has no counter any more, and nobody who would read it.
    let _ = MADE.try_with(|made| made.set(made.get() + 1));
}

// SAFETY: every method hands its arguments unchanged to `System`, which keeps the contract; the
// counter is a constant-initialised thread-local without a destructor, so counting never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises about `layout` are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from this allocator, and so from `System`, with `layout`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    #[test]
    fn what_is_allocated_is_counted_and_nothing_else() {
        assert_eq!(during(|| drop(std::hint::black_box(Box::new(7_u64)))), 1);
        assert_eq!(during(|| _ = std::hint::black_box([0_u8; 64])), 0);
        let mut grown = Vec::with_capacity(1);
        assert!(during(|| grown.extend([1_u8; 100])) >= 1);
    }
}
