//! How much each column of each matrix matters for what the model computes.
//!
//! An error in a weight changes a product by that error times the input of its column. Over many tokens the squared error of a
//! product is, as far as columns are independent, `Σ error² · mean(input²)`: the mean square of each column's input is the weight
//! that the error of its values has (the diagonal of the Hessian of Frantar et al., GPTQ, 2023; what Lin et al., AWQ, 2024,
//! scale by).

use std::collections::HashMap;

/// A column's weight is at least this share of the mean of its matrix: a column that calibration never used may be used later.
const LEAST: f32 = 1e-3;

/// The mean squared input of every column, by the matrix's name in the checkpoint.
#[derive(Debug, Default)]
pub struct Importance {
    columns: HashMap<String, Vec<f32>>,
}

impl Importance {
    /// One weight a column, or none for a matrix that no token went through.
    pub fn of(&self, matrix: &str) -> Option<&[f32]> {
        self.columns.get(matrix).map(Vec::as_slice)
    }
}

/// Sums over tokens.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    matrices: HashMap<String, (u64, Vec<f64>)>,
}

impl Inputs {
    /// Takes what flowed into a matrix: `[tokens, columns]`.
    pub(crate) fn add(&mut self, matrix: &str, x: &[f32], columns: usize) {
        let (tokens, sums) = self.matrices.entry(matrix.to_owned()).or_insert_with(|| (0, vec![0.0; columns]));
        for row in x.chunks_exact(columns) {
            *tokens += 1;
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
    }

    /// The means.
    pub(crate) fn importance(self) -> Importance {
        let mean = |(tokens, sums): (u64, Vec<f64>)| {
            let total: f64 = sums.iter().sum();
            let least = f64::from(LEAST) * total / sums.len().max(1) as f64;
            sums.iter().map(|sum| (sum.max(least) / tokens.max(1) as f64) as f32).collect()
        };
        Importance { columns: self.matrices.into_iter().map(|(name, seen)| (name, mean(seen))).collect() }
    }
}
