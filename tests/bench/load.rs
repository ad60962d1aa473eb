//! The group `load`: time and memory of loading a graph, each in a process of its own.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::args::{Kind, LoadOnce};
use crate::bare::Bare;
use crate::machine::{Memory, memory};
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// Rows of state that memory is taken for.
const ROWS: [usize; 2] = [1, 8];
/// What is loaded, in this order in every round.
const CASES: [(Kind, usize); 4] =
    [(Kind::Recurve, ROWS[0]), (Kind::Onnxruntime, ROWS[0]), (Kind::Recurve, ROWS[1]), (Kind::Onnxruntime, ROWS[1])];

/// What a process told of one load.
#[derive(Debug, Clone, Default)]
struct Taken {
    seconds: Samples,
    first_step: Samples,
    anonymous: Samples,
    resident: Samples,
}

/// The group `load`.
///
/// # Errors
/// A process of this program failed.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    progress(&format!("{}: load", subject.name()));
    let mut taken = vec![Taken::default(); CASES.len()];
    for _ in 0..bench.effort.loads {
        for ((kind, rows), taken) in CASES.into_iter().zip(&mut taken) {
            let told = in_a_process(subject, kind, rows, bench.threads)?;
            taken.seconds.push(number(&told, "load_seconds")?);
            taken.first_step.push(number(&told, "step_seconds")?);
            taken.anonymous.push(number(&told, "anonymous")?);
            taken.resident.push(number(&told, "resident")?);
        }
    }
    let mut table = Table::new(format!("loading a graph, weights in the page cache, {} threads", bench.threads)).note(
        "Memory is that of the whole process after one step of all rows; resident memory has the mapped weights in it.",
    );
    for ((kind, rows), taken) in CASES.into_iter().zip(&taken) {
        table.push(
            Line::new()
                .of("kernels", kind.name())
                .of("rows", rows)
                .figure("load", Unit::Milliseconds, &taken.seconds.map(|seconds| seconds * 1e3))
                .figure("first step", Unit::Milliseconds, &taken.first_step.map(|seconds| seconds * 1e3))
                .figure("anonymous", Unit::Megabytes, &taken.anonymous.map(|bytes| bytes / 1e6))
                .figure("resident", Unit::Megabytes, &taken.resident.map(|bytes| bytes / 1e6)),
        );
    }
    Ok(vec![table])
}

fn number(told: &Value, key: &str) -> Result<f64, Failure> {
    told[key].as_f64().ok_or_else(|| format!("a process that loaded a graph told no {key}: {told}").into())
}

/// Runs this program for one load; what it told.
fn in_a_process(subject: &Subject, kind: Kind, rows: usize, threads: usize) -> Result<Value, Failure> {
    let ended = Command::new(std::env::current_exe()?)
        .args(["load-once", "--kernels", kind.name()])
        .args(["--rows", &rows.to_string(), "--threads", &threads.to_string()])
        .arg(subject.bundle.dir())
        .stderr(Stdio::inherit())
        .output()?;
    if !ended.status.success() {
        return Err(format!("a process that was to load {} failed: {}", subject.name(), ended.status).into());
    }
    Ok(serde_json::from_slice(&ended.stdout)?)
}

/// Loads a graph in this process, makes one step of all rows, and prints what that took.
///
/// # Errors
/// The graph cannot be loaded, or the step failed.
pub(crate) fn once(once: &LoadOnce) -> Result<(), Failure> {
    let subject = Subject::open(&once.bundle)?;
    let begun = Instant::now();
    let mut bare = Bare::load(&subject, once.kernels, once.rows, once.threads)?;
    let load = begun.elapsed();
    let begun = Instant::now();
    bare.decode(once.rows, 0)?;
    let step = begun.elapsed();
    let Memory { anonymous, resident } = memory(std::process::id())?;
    let told = json!({
        "load_seconds": load.as_secs_f64(),
        "step_seconds": step.as_secs_f64(),
        "anonymous": anonymous,
        "resident": resident,
    });
    println!("{told}");
    Ok(())
}
