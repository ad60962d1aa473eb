//! Ctrl-C while something is under way.

use crate::exit::Failure;

/// Does `work`, unless Ctrl-C comes first: then the work is dropped, and its call at the daemon is cancelled with it.
///
/// From the first time that `work` waits, Ctrl-C no longer ends the process by itself.
pub(crate) async fn or_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        // In this order, so that work that blocks before it waits, such as reading its input, can be ended as ever.
        biased;
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}
