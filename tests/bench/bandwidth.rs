//! How fast memory is read: the roofline. A step reads every weight once, so no step is faster than that.

use std::hint::black_box;
use std::time::{Duration, Instant};

use recurve_kernels::Pool;

use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::{Bench, Failure};

/// Words that are added up side by side, so that no load waits for the one before.
const LANES: usize = 16;
/// Words that a thread takes at a time, one after the other in memory: 1 MiB.
const PART: usize = 128 << 10;
/// How long a thread looks for more to read before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Memory to read, larger than caches, and the threads that read it.
pub(crate) struct Bandwidth {
    words: Vec<u64>,
    pool: Pool,
}

impl Bandwidth {
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(bytes: usize, threads: usize) -> Result<Self, Failure> {
        // Not zeros: those would all be one page of the kernel's.
        let words = (0..bytes as u64 / 8).collect();
        Ok(Self { words, pool: Pool::new(threads, SPIN)? })
    }

    /// Reads all of it once; bytes a second.
    pub(crate) fn pass(&mut self) -> f64 {
        let words = &self.words;
        let begun = Instant::now();
        self.pool.run(words.len().div_ceil(PART), &|part| {
            let from = part * PART;
            black_box(sum(&words[from..(from + PART).min(words.len())]));
        });
        size_of_val(words.as_slice()) as f64 / begun.elapsed().as_secs_f64()
    }
}

fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; LANES];
    let chunks = words.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(0, |sum, word| sum ^ word);
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane ^= word;
        }
    }
    lanes.iter().fold(rest, |sum, lane| sum ^ lane)
}

/// The group `bandwidth`.
pub(crate) fn measure(bench: &mut Bench) -> Vec<Table> {
    let bytes: Samples = (0..bench.effort.passes).map(|_| bench.bandwidth.pass() / 1e9).collect();
    let megabytes = bench.effort.buffer / 1_000_000;
    let mut table = Table::new(format!("reading {megabytes} MB of memory, {} threads", bench.threads));
    table.push(Line::new().figure("read", Unit::GigabytesPerSecond, &bytes).single(
        "best",
        Unit::GigabytesPerSecond,
        bytes.best(),
    ));
    vec![table]
}
