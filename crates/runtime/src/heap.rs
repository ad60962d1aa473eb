//! Giving memory back to the system that was freed but kept for later.

#![allow(unsafe_code)]

/// Gives back what loading took and freed again. The C library's heap keeps such memory, which counts as the process's own,
/// until something asks; with other heaps than glibc's this does nothing.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only walks the heap's own lists, under the heap's own locks; no memory in use is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}
