//! The machine's memory: `/proc/meminfo`.

use super::files::Root;
use super::readings::Memory;

/// What it says now.
pub(super) fn read(root: &Root) -> Option<Memory> {
    let text = root.text("proc/meminfo")?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let (total, free) = (field("MemTotal")?, field("MemFree")?);
    // Some systems in containers lack these.
    let (buffers, cached) = (field("Buffers").unwrap_or_default(), field("Cached").unwrap_or_default());
    Some(Memory {
        total,
        available: field("MemAvailable").unwrap_or(free),
        used: total.saturating_sub(free).saturating_sub(buffers).saturating_sub(cached),
        free,
        buffers,
        cached,
    })
}
