//! This process: `/proc/self/stat`.

use super::files::Root;

/// What it took.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Resident bytes.
    pub(super) memory: Option<u64>,
    /// Seconds, by mode.
    pub(super) cpu: Vec<(&'static str, f64)>,
}

/// Fields after the name of the program, which may hold anything: the state is the first.
const USER: usize = 11;
const SYSTEM: usize = 12;
const RESIDENT: usize = 21;

/// What it took until now.
pub(super) fn read(root: &Root) -> Option<Process> {
    let text = root.text("proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let seconds = |at: usize| Some(field(at)? as f64 / procfs::ticks_per_second() as f64);
    Some(Process {
        memory: field(RESIDENT).and_then(|pages| pages.checked_mul(procfs::page_size())),
        cpu: [("user", USER), ("system", SYSTEM)]
            .into_iter()
            .filter_map(|(mode, at)| Some((mode, seconds(at)?)))
            .collect(),
    })
}
