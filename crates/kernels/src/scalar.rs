//! The block product as it is defined: what every other kernel is compared with, to the last bit.

use std::ops::Range;

use crate::job::Job;
use crate::layout::{Bits, GROUP, LANES, UNIT, lane, sum_lanes};

/// The products of rows `rows` of the matrix with all rows of activations.
pub(crate) fn product(job: &Job<'_>, rows: Range<usize>) {
    for row in rows {
        for m in 0..job.m {
            let mut lanes = [0.0f32; LANES];
            for unit in 0..job.matrix.shape.columns() / UNIT {
                let (dot, scale) = unit_product(job, row, m, unit);
                let sum = &mut lanes[lane(unit % LANES)];
                *sum = (dot as f32).mul_add(scale, *sum);
            }
            job.put(m, row, sum_lanes(&lanes));
        }
    }
}

/// The sum of 32 products of integers, exact, and the scale of both sides.
fn unit_product(job: &Job<'_>, row: usize, m: usize, unit: usize) -> (i32, f32) {
    let shape = job.matrix.shape;
    let group = &job.groups[m * shape.groups() + unit * UNIT / GROUP];
    let lane = lane(unit % LANES);
    let bytes = shape.bits().bytes(UNIT);
    let weights = &job.matrix.values[row * shape.row_bytes() + unit * bytes..][..bytes];
    let activation = |plane: usize, i: usize| i32::from(group.planes[plane][4 * lane + i]);
    let mut dot = 0;
    for (byte, &weight) in weights.iter().enumerate() {
        match shape.bits() {
            Bits::Four => {
                dot += (i32::from(weight & 15) - 8) * activation(byte / 4, byte % 4);
                dot += (i32::from(weight >> 4) - 8) * activation(4 + byte / 4, byte % 4);
            }
            Bits::Eight => dot += (i32::from(weight) - 128) * activation(byte / 4, byte % 4),
        }
    }
    let scale = job.matrix.scales[row * shape.row_scales() + unit * UNIT / shape.block()];
    (dot, scale * group.scale[lane])
}
