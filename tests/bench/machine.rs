//! What is measured on: processor, versions, and memory of processes.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

use chrono::{SecondsFormat, Utc};
use recurve_kernels::Kernels;
use recurve_tests::graph;
use serde_json::{Map, Value, json};

use crate::Failure;

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// That no file stands behind: what only this process has.
    pub(crate) anonymous: f64,
    /// All that is in memory, mapped weights among it.
    pub(crate) resident: f64,
}

/// Date, processor and versions.
pub(crate) fn describe(threads: usize, short: bool) -> Result<Map<String, Value>, Failure> {
    let kernels: Vec<_> = Kernels::available().iter().map(Kernels::name).collect();
    let fields = json!({
        "date": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        "form": if short { "short" } else { "whole" },
        "processor": processor(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": threads,
        "memory_bytes": field("/proc/meminfo", "MemTotal:"),
        "system": read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load_average": read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "recurve": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "onnxruntime": graph::find_library()?.version(),
        "instruction_sets": kernels,
    });
    match fields {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// The name of the processor, as the kernel has it.
fn processor() -> String {
    let text = read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Arm has no name, only numbers of makers and parts.
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split(": ").nth(1).map(str::to_owned)
    };
    let arm = || Some(format!("Arm implementer {}, part {}", value("CPU implementer")?, value("CPU part")?));
    value("model name").or_else(arm).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The commit that this was built from, if the sources are still there; with a mark where they differ from it.
fn commit() -> Option<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let told = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(sources).output().ok()?;
    told.status.success().then(|| String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// The memory of a process that lives.
///
/// # Errors
/// There is no such process.
pub(crate) fn memory(pid: u32) -> Result<Memory, Failure> {
    let file = format!("/proc/{pid}/status");
    let value = |key: &str| field(&file, key).ok_or_else(|| format!("{file} has no {key}"));
    Ok(Memory { anonymous: value("RssAnon:")?, resident: value("VmRSS:")? })
}

/// The most memory that a process has had, in bytes; none where there is no such process.
pub(crate) fn peak(pid: u32) -> Option<f64> {
    field(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Bytes in a line such as `VmRSS:  1234 kB`.
fn field(file: &str, key: &str) -> Option<f64> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024.0)
}
