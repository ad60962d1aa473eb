//! A place for work on content that others wrote: a thread whose stack is known, so that deeply nested content ends in an
//! error and not in an overflow that ends the process.

use std::panic::AssertUnwindSafe;
use std::thread::{Builder, scope};

/// Bytes of the thread's stack. Memory is used only as far as the stack grows. Sizes of templates and of their tags are
/// bounded before they are parsed ([`crate::template`], whose tests nest all that can be nested).
const STACK_BYTES: usize = 128 << 20;

/// Why work in a bounded place has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BoundedError {
    /// The system gave no thread.
    #[error("no thread with {mib} MiB of stack can be started: {0}", mib = STACK_BYTES >> 20)]
    Thread(std::io::Error),
    /// The work panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// Runs `work` on a thread with a stack of its own, and waits for it.
///
/// # Errors
/// The thread cannot be started, or `work` panicked.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, BoundedError> {
    scope(|scope| {
        let thread = Builder::new()
            .name("bounded".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || std::panic::catch_unwind(AssertUnwindSafe(work)))
            .map_err(BoundedError::Thread)?;
        // The work's own panic is caught above; this one would be of the thread's start or end.
        thread.join().and_then(|result| result).map_err(|panic| BoundedError::Panicked(words(panic.as_ref())))
    })
}

/// The message of a panic.
pub(crate) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_and_panics_are_errors() {
        let text = String::from("borrowed");
        assert_eq!(run(|| text.len()).unwrap(), 8);
        let error = run::<()>(|| panic!("on purpose")).unwrap_err();
        assert_eq!(error.to_string(), "it panicked: on purpose");
    }

    #[test]
    fn the_stack_is_as_large_as_said() {
        fn deep(levels: usize) -> usize {
            let frame = std::hint::black_box([levels; 128]);
            if levels == 0 { 0 } else { deep(levels - 1) + frame[0] - levels + 1 }
        }
        assert_eq!(run(|| deep(100_000)).unwrap(), 100_000);
    }
}
