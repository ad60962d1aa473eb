//! Rounding activations to 8 bits.

use proptest::prelude::*;

use super::{Case, Numbers, cases, equal::activation, scalar};
use crate::layout::{GROUP, Group, UNIT, lane};
use crate::{Bits, Kernels, Shape};

fn rounded(kernels: &Kernels, case: &Case) -> Vec<Group> {
    // What was there before must not matter.
    let old = Group { planes: [[77; 64]; 8], offset: [77; 16], scale: [77.0; 16] };
    let mut groups = vec![old; case.m * case.shape.groups()];
    for (row, groups) in case.x.chunks(case.shape.columns()).zip(groups.chunks_mut(case.shape.groups())) {
        kernels.round(case.shape.bits(), row, groups);
    }
    groups
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn all_kernels_round_alike(case in cases(Numbers::Any)) {
        let needed = rounded(&scalar(), &case);
        for kernels in Kernels::tested() {
            for (found, needed) in rounded(&kernels, &case).iter().zip(&needed) {
                prop_assert_eq!(found.planes, needed.planes, "{}", kernels.name());
                prop_assert_eq!(found.offset, needed.offset, "{}", kernels.name());
                prop_assert!(super::difference(&found.scale, &needed.scale).is_none(), "{}", kernels.name());
            }
        }
    }

    /// A rounded value is within half a step of the value; values of units that are too small for a scale are taken as zeros.
    #[test]
    fn half_a_step(case in cases(Numbers::Finite)) {
        let groups = rounded(&Kernels::best(), &case);
        for (m, row) in case.x.chunks(case.shape.columns()).enumerate() {
            for (column, &x) in row.iter().enumerate() {
                let group = &groups[m * case.shape.groups() + column / GROUP];
                let scale = f64::from(group.scale[lane(column % GROUP / UNIT)]);
                let error = (activation(&case, &groups, m, column) - f64::from(x)).abs();
                match scale {
                    0.0 => prop_assert!(error < 1e-30),
                    _ => prop_assert!(error <= scale * (0.5 + 1e-4), "{x} with scale {scale}"),
                }
            }
        }
    }

    /// No value is -128, each lane's offset is that of its values, and nothing lies behind the row's end.
    #[test]
    fn offsets_and_ends(case in cases(Numbers::Any)) {
        let groups = rounded(&Kernels::best(), &case);
        for (g, group) in groups.iter().enumerate() {
            for unit in 0..16 {
                let lane = lane(unit);
                let values = group.planes.iter().flat_map(|plane| &plane[4 * lane..4 * lane + 4]);
                let sum: i32 = values.clone().map(|&value| i32::from(value)).sum();
                prop_assert!(values.clone().all(|&value| value > -128));
                prop_assert_eq!(group.offset[lane], -case.shape.bits().zero() * sum);
                if (g % case.shape.groups()) * GROUP + unit * UNIT >= case.shape.columns() {
                    prop_assert!(values.clone().all(|&value| value == 0));
                    prop_assert_eq!(group.scale[lane].to_bits(), 0);
                }
            }
        }
    }
}

/// The largest magnitude becomes 127, ties go to the even neighbour.
#[test]
fn ties() {
    let mut case = Case::new(Shape::new(1, 32, Bits::Eight, 32).unwrap(), 1, Numbers::Plain, 7);
    case.x.fill(0.0);
    case.x[..7].copy_from_slice(&[127.0, -127.0, 0.5, 1.5, -2.5, 126.5, -0.49]);
    let group = &rounded(&Kernels::best(), &case)[0];
    let values: Vec<_> = (0..7).map(|i| group.planes[i / 4][i % 4]).collect();
    assert_eq!(values, [127, -127, 0, 2, -2, 126, 0]);
    assert_eq!(group.scale[0], 1.0);
}
