//! The group `kernels`: block products alone, for each instruction set that this processor has.

use std::time::Instant;

use recurve_kernels::{Bits, Kernels, Matrix, Pool, Scratch, Shape, product};

use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::{Bench, Failure};

const BITS: Bits = Bits::Four;
const BLOCKS: [usize; 2] = [32, 128];
const ROWS: [usize; 4] = [1, 4, 8, 128];
/// As in the runtime: longer than anything between two products takes.
const SPIN: std::time::Duration = std::time::Duration::from_micros(50);

/// As many equal matrices as caches do not hold.
struct Weights {
    shape: Shape,
    values: Vec<Vec<u8>>,
    scales: Vec<f32>,
}

impl Weights {
    fn new(outputs: usize, inputs: usize, block: usize, least_bytes: usize) -> Result<Self, Failure> {
        let shape = Shape::new(outputs, inputs, BITS, block)?;
        let bytes = outputs * shape.row_bytes();
        let values = |copy: usize| (0..bytes).map(|i| (i * 7 + copy * 31) as u8).collect();
        let copies = least_bytes.div_ceil(bytes).max(1);
        Ok(Self { shape, values: (0..copies).map(values).collect(), scales: vec![0.01; outputs * shape.row_scales()] })
    }

    /// Bytes of one matrix.
    fn bytes(&self) -> usize {
        self.shape.rows() * self.shape.row_bytes() + size_of_val(self.scales.as_slice())
    }

    /// Seconds that one product takes, over all matrices in turn.
    fn time(
        &self,
        kernels: &Kernels,
        pool: &mut Pool,
        scratch: &mut Scratch,
        x: &[f32],
        y: &mut [f32],
    ) -> Result<f64, Failure> {
        let begun = Instant::now();
        for values in &self.values {
            product(kernels, pool, scratch, Matrix::new(self.shape, values, &self.scales)?, x, None, y);
        }
        Ok(begun.elapsed().as_secs_f64() / self.values.len() as f64)
    }
}

/// All that this processor can run; scalar, which nothing is served with where there is another, only as the last resort.
fn instruction_sets() -> Vec<Kernels> {
    let mut sets = Kernels::available();
    if sets.len() > 1 {
        sets.retain(|set| set.name() != "scalar");
    }
    sets
}

/// The group `kernels`.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Table>, Failure> {
    let mut pool = Pool::new(bench.threads, SPIN)?;
    let mut table = Table::new(format!("block products, int4, {} threads", bench.threads))
        .note("GB/s are those of the weights; the share is of the bandwidth measured beside each sample.");
    for &(outputs, inputs) in bench.effort.shapes {
        for block in BLOCKS {
            let weights = Weights::new(outputs, inputs, block, bench.effort.product_bytes)?;
            for rows in ROWS {
                for line in one_shape(bench, &mut pool, &weights, rows)? {
                    table.push(line);
                }
            }
        }
    }
    Ok(vec![table])
}

/// A line for each instruction set.
fn one_shape(bench: &mut Bench, pool: &mut Pool, weights: &Weights, rows: usize) -> Result<Vec<Line>, Failure> {
    let (outputs, inputs) = (weights.shape.rows(), weights.shape.columns());
    let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 31 % 101) as f32 - 50.0) / 37.0).collect();
    let mut y = vec![0.0; rows * outputs];
    let mut scratch = Scratch::default();
    let sets = instruction_sets();
    let mut times = vec![Samples::default(); sets.len()];
    let mut bandwidths = vec![Samples::default(); sets.len()];
    for sample in 0..=bench.effort.products {
        for (i, set) in sets.iter().enumerate() {
            let bandwidth = bench.bandwidth.pass();
            let time = weights.time(set, pool, &mut scratch, &x, &mut y)?;
            // The first warms up.
            if sample > 0 {
                bandwidths[i].push(bandwidth);
                times[i].push(time);
            }
        }
    }
    let (bytes, macs) = (weights.bytes() as f64, (rows * outputs * inputs) as f64);
    let lines = sets.iter().zip(times.iter().zip(&bandwidths)).map(|(set, (times, bandwidths))| {
        Line::new()
            .of("outputs", outputs)
            .of("inputs", inputs)
            .of("block", weights.shape.block())
            .of("rows", rows)
            .of("kernels", set.name())
            .figure("time", Unit::Milliseconds, &times.map(|seconds| seconds * 1e3))
            .figure("weights", Unit::GigabytesPerSecond, &times.map(|seconds| bytes / seconds / 1e9))
            .figure("products", Unit::GigaMacs, &times.map(|seconds| macs / seconds / 1e9))
            .figure(
                "of the bandwidth",
                Unit::Percent,
                &times.pair(bandwidths, |seconds, read| 100.0 * bytes / seconds / read),
            )
    });
    Ok(lines.collect())
}
