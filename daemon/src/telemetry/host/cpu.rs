//! Where the cores' time went: `/proc/stat`.

use procfs::{FromReadSI as _, KernelStats, LocalSystemInfo};

use super::files::Root;

/// As the conventions name them.
const MODES: [&str; 7] = ["user", "nice", "system", "idle", "iowait", "interrupt", "steal"];

/// The counters at the last reading.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    last: [u64; MODES.len()],
}

impl Cpu {
    /// Shares since the last reading; none where no time has passed.
    pub(super) fn read(&mut self, root: &Root) -> Vec<(&'static str, f64)> {
        let Some(now) = root.text("proc/stat").and_then(|text| ticks(&text)) else { return Vec::new() };
        // Some counters may go back: `iowait` does, and all of them where a machine is restored from a snapshot.
        let spent: [u64; MODES.len()] = std::array::from_fn(|mode| now[mode].saturating_sub(self.last[mode]));
        self.last = now;
        let total: u64 = spent.iter().fold(0, |sum, ticks| sum.saturating_add(*ticks));
        if total == 0 {
            return Vec::new();
        }
        MODES.iter().zip(spent).map(|(mode, ticks)| (*mode, ticks as f64 / total as f64)).collect()
    }
}

/// Ticks of all cores, by mode. Time of guests is in `user` and `nice` already.
fn ticks(text: &str) -> Option<[u64; MODES.len()]> {
    let total = KernelStats::from_read(text.as_bytes(), &LocalSystemInfo).ok()?.total;
    let interrupt = total.irq.unwrap_or_default().saturating_add(total.softirq.unwrap_or_default());
    let (iowait, steal) = (total.iowait.unwrap_or_default(), total.steal.unwrap_or_default());
    Some([total.user, total.nice, total.system, total.idle, iowait, interrupt, steal])
}
