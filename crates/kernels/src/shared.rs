//! Memory that several threads write different parts of.

#![allow(unsafe_code)]

use std::marker::PhantomData;

/// A slice whose parts are written by different threads.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives nothing but `part`, whose callers promise that parts of different threads do not overlap.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// `count` elements from `first` on.
    ///
    /// # Safety
    /// Nobody else has any of them while the result lives.
    ///
    /// # Panics
    /// If there are not so many.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, first: usize, count: usize) -> &mut [T] {
        assert!(first <= self.len && count <= self.len - first, "a part of the slice");
        // SAFETY: within the slice, which is borrowed for 'a; not aliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}
