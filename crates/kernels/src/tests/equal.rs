//! Every set of kernels against the definition, and the definition against real numbers.

use proptest::prelude::*;

use super::{Case, Numbers, Random, cases, difference, scalar};
use crate::layout::{GROUP, Group, LANES, UNIT, lane};
use crate::{Bits, Kernels, Shape};

/// All kernels of this machine give the definition's bits.
fn all_equal(case: &Case) -> Result<(), TestCaseError> {
    let needed = case.product(&scalar());
    for kernels in Kernels::tested() {
        let found = difference(&case.product(&kernels), &needed);
        prop_assert!(found.is_none(), "{}: {}", kernels.name(), found.unwrap_or_default());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn plain_numbers(case in cases(Numbers::Plain)) {
        all_equal(&case)?;
    }

    #[test]
    fn finite_numbers(case in cases(Numbers::Finite)) {
        all_equal(&case)?;
    }

    #[test]
    fn any_numbers(case in cases(Numbers::Any)) {
        all_equal(&case)?;
    }

    /// Each step of the definition rounds once, so that its error is bounded by their number times the sum of all
    /// magnitudes.
    #[test]
    fn definition_against_real_numbers(case in cases(Numbers::Plain)) {
        let found = case.product(&scalar());
        let groups = rounded(&case);
        for m in 0..case.m {
            for row in 0..case.shape.rows() {
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for column in 0..case.shape.columns() {
                    let product = weight(&case, row, column) * activation(&case, &groups, m, column);
                    sum += product;
                    magnitude += product.abs();
                }
                let bias = case.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                let steps = (case.shape.groups() + 8) as f64;
                let tolerance = steps * f64::from(f32::EPSILON) * (magnitude + bias.abs());
                let found = f64::from(found[m * case.shape.rows() + row]);
                prop_assert!((found - sum - bias).abs() <= tolerance, "{found} for {}, tolerance {tolerance}", sum + bias);
            }
        }
    }
}

/// One shape of each kind with everything at the ends of its range, whatever the random cases above hit.
#[test]
fn largest_sums() {
    for bits in [Bits::Four, Bits::Eight] {
        for byte in [0x00, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
            for sign in [1.0, -1.0] {
                for m in [1, 2, 3, 4, 5, 9] {
                    let shape = Shape::new(5, 1088, bits, 32).unwrap();
                    let mut case = Case::new(shape, m, Numbers::Plain, 1);
                    case.values.fill(byte);
                    case.x.fill(sign);
                    all_equal(&case).unwrap();
                }
            }
        }
    }
}

/// A zero of the result has the definition's sign.
#[test]
fn zeros() {
    let shape = Shape::new(3, 96, Bits::Four, 32).unwrap();
    for (x, scale) in [(0.0, 1.0), (-0.0, 1.0), (1.0, -0.0), (-1e-40, -1.0)] {
        let mut case = Case::new(shape, 2, Numbers::Plain, 2);
        (case.bias, case.scales) = (None, vec![scale; 9]);
        case.x.fill(x);
        all_equal(&case).unwrap();
        assert!(case.product(&scalar()).iter().all(|y| y.to_bits() == 0));
    }
}

/// Where the activations of a row are no numbers, its results are none, and the other rows are as they were.
#[test]
fn not_a_number_stays_in_its_row() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xff80_0001)] {
        for m in [1, 2, 4, 7, 20] {
            let shape = Shape::new(9, 1184, Bits::Eight, 32).unwrap();
            let case = Case::new(shape, m, Numbers::Plain, 3);
            for column in [0, 511, 512, 1183] {
                let mut other = case.clone();
                let at = Random(column as u64).below(m);
                other.x[at * shape.columns() + column] = broken;
                for kernels in Kernels::tested() {
                    let (with, without) = (other.product(&kernels), case.product(&kernels));
                    for row in 0..m {
                        match row == at {
                            true => assert!(case.row(&with, row).iter().all(|y| y.is_nan()), "{}", kernels.name()),
                            false => assert_eq!(difference(case.row(&with, row), case.row(&without, row)), None),
                        }
                    }
                }
            }
        }
    }
}

/// A scale of the weights that is no number shows in its row of the matrix and nowhere else.
#[test]
fn scale_that_is_no_number() {
    let shape = Shape::new(7, 640, Bits::Four, 64).unwrap();
    for m in [1, 3, 6] {
        for broken in [f32::NAN, f32::INFINITY] {
            let case = Case::new(shape, m, Numbers::Plain, 4);
            let mut other = case.clone();
            other.scales[4 * shape.row_scales() + 9] = broken;
            all_equal(&other).unwrap();
            let (with, without) = (other.product(&Kernels::best()), case.product(&Kernels::best()));
            for (i, (with, without)) in with.iter().zip(&without).enumerate() {
                match i % 7 {
                    4 => assert!(!with.is_finite()),
                    _ => assert_eq!(with.to_bits(), without.to_bits()),
                }
            }
        }
    }
}

fn rounded(case: &Case) -> Vec<Group> {
    let mut groups = vec![Group::EMPTY; case.m * case.shape.groups()];
    for (row, groups) in case.x.chunks(case.shape.columns()).zip(groups.chunks_mut(case.shape.groups())) {
        scalar().round(case.shape.bits(), row, groups);
    }
    groups
}

fn weight(case: &Case, row: usize, column: usize) -> f64 {
    let shape = case.shape;
    let byte = case.values[row * shape.row_bytes() + shape.bits().bytes(column)];
    let stored = match shape.bits() {
        Bits::Four => byte >> (4 * (column % 2)) & 15,
        Bits::Eight => byte,
    };
    f64::from(i32::from(stored) - shape.bits().zero())
        * f64::from(case.scales[row * shape.row_scales() + column / shape.block()])
}

/// The activation as it was rounded, by the description of [`Group`].
pub(super) fn activation(case: &Case, groups: &[Group], m: usize, column: usize) -> f64 {
    let group = &groups[m * case.shape.groups() + column / GROUP];
    let (lane, at) = (lane(column % GROUP / UNIT), column % UNIT);
    let (plane, byte) = match case.shape.bits() {
        Bits::Four => (at / 8 + 4 * (at % 2), at % 8 / 2),
        Bits::Eight => (at / 4, at % 4),
    };
    assert!(lane < LANES);
    f64::from(group.planes[plane][4 * lane + byte]) * f64::from(group.scale[lane])
}
