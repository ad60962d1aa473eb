//! A block product from activations to outputs, on all threads.

use crate::dispatch::Kernels;
use crate::job::Job;
use crate::layout::{Group, Matrix};
use crate::pool::Pool;

/// Weights that one part of a product reads, in bytes: small enough that threads end together, large enough that taking
/// a part costs nothing.
const PART: usize = 96 << 10;
/// Rows that a part has at least, so that kernels can take several at a time.
const LEAST_ROWS: usize = 8;

/// Memory that products use again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    groups: Vec<Group>,
}

/// `y [m, rows] = x [m, columns] · matrixᵀ + bias`. Activations are rounded to 8 bits in units of 32 values. What a row of
/// `x` gives does not depend on the other rows, nor on the number of threads.
///
/// # Panics
/// If `x`, `bias` or `y` have other sizes than the matrix and `m` need.
pub fn product(
    kernels: &Kernels,
    pool: &mut Pool,
    scratch: &mut Scratch,
    matrix: Matrix<'_>,
    x: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let shape = matrix.shape();
    let m = y.len() / shape.rows().max(1);
    assert_eq!(x.len(), m * shape.columns(), "{m} rows of activations");
    if y.is_empty() {
        return;
    }
    round(kernels, pool, &mut scratch.groups, matrix, x);
    let job = Job::new(matrix, &scratch.groups[..m * shape.groups()], m, bias, y);
    let rows = (PART / shape.row_bytes().max(1)).max(1).next_multiple_of(LEAST_ROWS);
    pool.run(shape.rows().div_ceil(rows), &|part| {
        kernels.product(&job, part * rows..((part + 1) * rows).min(shape.rows()));
    });
}

fn round(kernels: &Kernels, pool: &mut Pool, groups: &mut Vec<Group>, matrix: Matrix<'_>, x: &[f32]) {
    let shape = matrix.shape();
    let m = x.len() / shape.columns().max(1);
    if groups.len() < m * shape.groups() {
        groups.resize(m * shape.groups(), Group::EMPTY);
    }
    let rows: Vec<_> = x
        .chunks_exact(shape.columns())
        .zip(groups.chunks_exact_mut(shape.groups()))
        .map(std::sync::Mutex::new)
        .collect();
    pool.run(m, &|row| {
        // Each part has its own row: nobody waits.
        if let Ok(mut row) = rows[row].lock() {
            let (values, groups) = &mut *row;
            kernels.round(shape.bits(), values, groups);
        }
    });
}
