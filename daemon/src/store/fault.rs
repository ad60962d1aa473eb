//! What can go wrong at each step on the disk: nothing, but in tests, which have it go wrong at every one of them.

#[cfg(not(test))]
pub(super) use none::{part_of, point, removes, renames, synced};
#[cfg(test)]
pub(super) use some::{Kind, arm, disarm, part_of, point, removes, renames, synced};

#[cfg(not(test))]
mod none {
    use std::io;
    use std::path::Path;

    /// Before a step.
    pub(in crate::store) fn point(_: &str, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// What of these bytes the disk takes.
    pub(in crate::store) fn part_of<'a>(bytes: &'a [u8], _: &Path) -> &'a [u8] {
        bytes
    }

    /// A file or a folder is on the disk.
    pub(in crate::store) fn synced(_: &Path) {}

    /// A file is about to get this name.
    pub(in crate::store) fn renames(_: &Path, _: &Path) {}

    /// A file is about to go.
    pub(in crate::store) fn removes(_: &Path) {}
}

/// Faults of this thread's steps. Besides failing, the power can be cut: what was not synced is lost then.
#[cfg(test)]
mod some {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs::{self, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    /// What goes wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::store) enum Kind {
        /// The system refuses.
        Error,
        /// The disk takes half of what is written; where nothing is written, as `Error`.
        Short,
        /// The process is gone: a panic, to be caught.
        Stop,
        /// So is the machine: besides, what was not synced is lost.
        PowerCut,
    }

    #[derive(Default)]
    struct Plan {
        /// At which step.
        at: u64,
        kind: Option<Kind>,
        passed: u64,
        short: bool,
        /// Bytes that are safe, of files that were written to.
        safe: BTreeMap<PathBuf, u64>,
        /// Changes of names that are not safe yet, the oldest first: what was there before.
        names: Vec<(PathBuf, Option<Vec<u8>>)>,
    }

    thread_local! {
        static PLAN: RefCell<Plan> = RefCell::default();
    }

    /// From now on, step number `at` goes wrong, counted from 0.
    pub(in crate::store) fn arm(at: u64, kind: Kind) {
        PLAN.set(Plan { at, kind: Some(kind), ..Plan::default() });
    }

    /// Nothing goes wrong any more. Gives the number of steps that were done since.
    pub(in crate::store) fn disarm() -> u64 {
        PLAN.take().passed
    }

    pub(in crate::store) fn point(action: &str, path: &Path) -> io::Result<()> {
        PLAN.with_borrow_mut(|plan| {
            let Some(kind) = plan.kind else { return Ok(()) };
            let now = plan.passed;
            plan.passed += 1;
            if now != plan.at {
                return Ok(());
            }
            match kind {
                Kind::Short if action == "write" => plan.short = true,
                Kind::Error | Kind::Short => return Err(io::Error::other(format!("fault {now}: {action}"))),
                Kind::Stop => std::panic::panic_any(format!("stopped at {now}: {action} {}", path.display())),
                Kind::PowerCut => {
                    plan.lose();
                    std::panic::panic_any(format!("power cut at {now}: {action} {}", path.display()));
                }
            }
            Ok(())
        })
    }

    pub(in crate::store) fn part_of<'a>(bytes: &'a [u8], path: &Path) -> &'a [u8] {
        PLAN.with_borrow_mut(|plan| {
            let there = || fs::metadata(path).map_or(0, |found| found.len());
            plan.safe.entry(path.to_owned()).or_insert_with(there);
            let half = std::mem::take(&mut plan.short).then_some(bytes.len() / 2);
            &bytes[..half.unwrap_or(bytes.len())]
        })
    }

    pub(in crate::store) fn synced(path: &Path) {
        PLAN.with_borrow_mut(|plan| {
            plan.safe.remove(path);
            plan.names.retain(|(name, _)| name.parent() != Some(path));
        });
    }

    pub(in crate::store) fn renames(from: &Path, to: &Path) {
        PLAN.with_borrow_mut(|plan| {
            // In the order in which they are undone: the old name comes back, the new one is what it was.
            plan.names.push((to.to_owned(), fs::read(to).ok()));
            let mut bytes = fs::read(from).ok();
            // What was written and not synced is as little safe under the new name.
            if let Some(safe) = plan.safe.remove(from) {
                plan.safe.insert(to.to_owned(), safe);
                bytes.iter_mut().for_each(|bytes| bytes.truncate(safe as usize));
            }
            plan.names.push((from.to_owned(), bytes));
        });
    }

    pub(in crate::store) fn removes(path: &Path) {
        PLAN.with_borrow_mut(|plan| plan.names.push((path.to_owned(), fs::read(path).ok())));
    }

    impl Plan {
        /// What a power cut does to what was not synced.
        fn lose(&mut self) {
            for (path, safe) in std::mem::take(&mut self.safe) {
                let file = OpenOptions::new().write(true).open(&path);
                let _ = file.and_then(|file| file.set_len(safe));
            }
            while let Some((path, before)) = self.names.pop() {
                let _ = match before {
                    Some(bytes) => fs::write(&path, bytes),
                    None => fs::remove_file(&path),
                };
            }
        }
    }
}
