//! One block product, as the kernels of all instruction sets see it.

use std::marker::PhantomData;

use crate::layout::{Group, Matrix};

/// `y [m, rows] = x [m, columns] · matrixᵀ + bias`. Threads compute different rows of the matrix.
pub(crate) struct Job<'a> {
    pub(crate) matrix: Matrix<'a>,
    /// The activations, `[m, groups]`.
    pub(crate) groups: &'a [Group],
    /// Rows of activations.
    pub(crate) m: usize,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    _out: PhantomData<&'a mut [f32]>,
}

// SAFETY: the output is written through `put` alone, and each of its elements by the one thread that computes its row.
#[allow(unsafe_code)]
unsafe impl Sync for Job<'_> {}

impl<'a> Job<'a> {
    /// # Panics
    /// If a size does not fit the others.
    pub(crate) fn new(
        matrix: Matrix<'a>,
        groups: &'a [Group],
        m: usize,
        bias: Option<&'a [f32]>,
        out: &'a mut [f32],
    ) -> Self {
        let shape = matrix.shape;
        assert_eq!(groups.len(), m * shape.groups(), "rounded activations of every row");
        assert_eq!(out.len(), m * shape.rows(), "an output for each row of both");
        assert!(bias.is_none_or(|bias| bias.len() == shape.rows()), "a bias for each row of the matrix");
        Self { matrix, groups, m, bias, out: out.as_mut_ptr(), _out: PhantomData }
    }

    /// Writes the sum for activation row `m` and matrix row `row`, which is this thread's.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn put(&self, m: usize, row: usize, sum: f32) {
        debug_assert!(m < self.m && row < self.matrix.shape.rows());
        let value = match self.bias {
            None => sum,
            Some(bias) => sum + bias[row],
        };
        // SAFETY: `out` has `m * rows` elements (checked in `new`) and is borrowed for 'a; kernels pass rows of their own
        // range only, and ranges of different threads do not overlap.
        unsafe { *self.out.add(m * self.matrix.shape.rows() + row) = value };
    }
}
