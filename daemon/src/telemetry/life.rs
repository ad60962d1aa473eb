//! Which life of the machine and of the daemon it is: the wall clock of a gateway may jump, these do not.

use std::time::Duration;

use recurve_proto::v1;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// This life.
#[derive(Debug)]
pub(super) struct Life {
    boot: String,
    instance: Uuid,
}

impl Life {
    /// The daemon's life begins.
    pub(super) fn begin() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.trim().to_owned(), instance: Uuid::now_v7() }
    }

    /// The kernel's boot id; empty where the system has none.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// The daemon's own.
    pub(super) fn instance(&self) -> Uuid {
        self.instance
    }

    /// Where in it this moment is.
    pub(super) fn now(&self) -> v1::Life {
        v1::Life {
            boot: self.boot.clone(),
            instance: self.instance.to_string(),
            since_boot: since_boot().try_into().ok(),
        }
    }
}

/// Since the machine started, sleep included. Goes on where the wall clock is set.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The machine's name.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
