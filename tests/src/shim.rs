//! `tests/shim/fault.c`: one change of a process to files below a folder goes wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::daemon::Setup;
use crate::reference::repository;
use crate::world;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The system refuses the change.
    Error,
    /// The disk is full in the middle of it.
    Short,
    /// The process is killed instead.
    Stop,
}

/// All of them.
pub const FAULTS: [Fault; 3] = [Fault::Error, Fault::Short, Fault::Stop];

/// The library, compiled once in a run of the tests.
fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let out = world::folder().join("fault.so");
        let compiled = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
            .arg(&out)
            .arg(repository().join("tests/shim/fault.c"))
            .arg("-ldl")
            .status();
        assert!(compiled.expect("a C compiler").success(), "tests/shim/fault.c compiles");
        out
    });
    &LIBRARY
}

/// A daemon whose changes below `dir` are counted in `log`, and of which number `at` goes wrong.
pub fn with_fault(setup: Setup, dir: &Path, log: &Path, fault: Option<(u64, Fault)>) -> Setup {
    let setup =
        setup.env("LD_PRELOAD", library().display()).env("FAULT_DIR", dir.display()).env("FAULT_LOG", log.display());
    match fault {
        None => setup,
        Some((at, fault)) => setup.env("FAULT_AT", at).env("FAULT_KIND", format!("{fault:?}").to_lowercase()),
    }
}
