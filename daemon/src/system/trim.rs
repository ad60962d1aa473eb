//! Gives memory back to the system after large requests. The C library's heap keeps what was freed, and a burst of large requests
//! would count as the process's own for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// From which size of a message on a request is large.
pub(crate) const LARGE: usize = 1 << 18;
/// How long after a large request: what belongs to it is freed by then, and many of them are one burst.
const AFTER: Duration = Duration::from_millis(500);

/// Whether it is going to happen.
static PENDING: AtomicBool = AtomicBool::new(false);

/// Gives free memory back in a moment. Costs some milliseconds of a core, at most twice a second.
pub(crate) fn soon() {
    let Ok(runtime) = Handle::try_current() else { return };
    if PENDING.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(async {
        sleep(AFTER).await;
        PENDING.store(false, Ordering::Relaxed);
        // Only a panic of it would be an error.
        let _ = spawn_blocking(recurve_runtime::release_free_memory).await;
    });
}
