//! A row's result depends on nothing but the row.

use proptest::prelude::*;

use super::{Case, Numbers, cases, difference, pool};
use crate::{Bits, Kernels, Shape};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    /// Not on the rows beside it, nor on how many they are.
    #[test]
    fn alone_and_in_company(case in cases(Numbers::Any), turn in 0..40usize, kept in 1..=40usize) {
        let columns = case.shape.columns();
        for kernels in Kernels::tested() {
            let all = case.product(&kernels);
            // The first rows in another order, and fewer of them.
            let order: Vec<_> = (0..case.m).map(|m| (m + turn) % case.m).take(kept).collect();
            let x: Vec<_> = order.iter().flat_map(|m| &case.x[m * columns..][..columns]).copied().collect();
            let some = case.product_of(&kernels, &mut pool(1), &x);
            for (place, m) in order.into_iter().enumerate() {
                let found = difference(case.row(&some, place), case.row(&all, m));
                prop_assert!(found.is_none(), "{}, row {m} at {place}: {}", kernels.name(), found.unwrap_or_default());
            }
        }
    }
}

/// Not on the number of threads. The matrix is large enough for several parts, the last of them a small one.
#[test]
fn threads() {
    for (bits, columns) in [(Bits::Four, 4096), (Bits::Eight, 2080)] {
        for m in [1, 3, 12] {
            let case = Case::new(Shape::new(237, columns, bits, 32).unwrap(), m, Numbers::Finite, m as u64);
            for kernels in Kernels::tested() {
                let needed = case.product(&kernels);
                for threads in 2..=4 {
                    let found = case.product_of(&kernels, &mut pool(threads), &case.x);
                    assert_eq!(difference(&found, &needed), None, "{} with {threads} threads", kernels.name());
                }
            }
        }
    }
}

/// Nor on what was computed before with the same memory.
#[test]
fn memory_used_before() {
    let large = Case::new(Shape::new(8, 2048, Bits::Eight, 32).unwrap(), 40, Numbers::Any, 5);
    let small = Case::new(Shape::new(6, 544, Bits::Four, 32).unwrap(), 6, Numbers::Plain, 6);
    for kernels in Kernels::tested() {
        let mut scratch = crate::Scratch::default();
        let mut y = vec![0.0; 8 * 40];
        crate::product(&kernels, &mut pool(1), &mut scratch, large.matrix(), &large.x, None, &mut y);
        let y = &mut y[..6 * 6];
        crate::product(&kernels, &mut pool(1), &mut scratch, small.matrix(), &small.x, small.bias.as_deref(), y);
        assert_eq!(difference(y, &small.product(&kernels)), None, "{}", kernels.name());
    }
}
