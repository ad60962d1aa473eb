//! What the engine does in one tick, as a pure function of what it has: no clock, no threads, no model.
//!
//! Every tick reads at most a bounded number of prompt tokens of one row, and runs one decode step for all rows that have a
//! token to take. So the gap between two tokens of a running stream is one step and one bounded prefill, whatever is
//! asked of the node.

use super::job::Priority;

/// What a row of the slab is waiting for, in slab order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// Its next token is known: it takes part in the decode step.
    Decode,
    /// It reads its prompt.
    Prefill {
        /// Prompt tokens that are left; at least one.
        left: usize,
        /// Most tokens that it can take at a time.
        most: usize,
        /// Rows of a higher priority read first.
        priority: Priority,
        /// When it came or last read: of one priority, the row reads that has waited longest.
        turn: u64,
    },
    /// Its caller does not read: it keeps its state and is not stepped.
    Parked,
}

/// What to do in a tick.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Rows to exchange before anything else, in this order: it makes the rows that decode the slab's first ones.
    pub(super) swaps: Vec<(usize, usize)>,
    /// How many rows decode: a prefix of the slab.
    pub(super) decode: usize,
    /// The row that reads next (its place after the exchanges), and how many tokens.
    pub(super) prefill: Option<(usize, usize)>,
}

/// Decides one tick. `budget` is the most prompt tokens beside rows that decode; alone, a row takes all it can.
pub(super) fn plan(rows: &[Row], budget: usize) -> Plan {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    let mut swaps = Vec::new();
    let decode = rows.iter().filter(|row| **row == Row::Decode).count();
    let mut from = decode;
    for to in 0..decode {
        if rows[places[to]] == Row::Decode {
            continue;
        }
        // As many rows decode behind the prefix as there are gaps in it.
        while rows[places[from]] != Row::Decode {
            from += 1;
        }
        places.swap(to, from);
        swaps.push((to, from));
    }
    let prefill = places
        .iter()
        .enumerate()
        .filter_map(|(place, &row)| match rows[row] {
            Row::Prefill { left, most, priority, turn } => Some((priority, turn, place, left.min(most))),
            Row::Decode | Row::Parked => None,
        })
        .min()
        .map(|(_, _, place, tokens)| (place, if decode > 0 { tokens.min(budget.max(1)) } else { tokens }));
    Plan { swaps, decode, prefill }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn prefill(left: usize, turn: u64) -> Row {
        Row::Prefill { left, most: 128, priority: Priority::Interactive, turn }
    }

    #[test]
    fn decisions() {
        use Row::{Decode, Parked};
        let cases: &[(&str, &[Row], Plan)] = &[
            ("nothing to do", &[], Plan::default()),
            ("only parked rows", &[Parked, Parked], Plan::default()),
            ("all decode", &[Decode, Decode], Plan { decode: 2, ..Plan::default() }),
            (
                "a prompt alone reads whole chunks",
                &[prefill(500, 0)],
                Plan { prefill: Some((0, 128)), ..Plan::default() },
            ),
            (
                "beside a stream it reads its budget",
                &[Decode, prefill(500, 0)],
                Plan { decode: 1, prefill: Some((1, 16)), ..Plan::default() },
            ),
            (
                "the tail of a prompt",
                &[Decode, prefill(3, 0)],
                Plan { decode: 1, prefill: Some((1, 3)), ..Plan::default() },
            ),
            (
                "the one that has waited longest reads",
                &[prefill(9, 5), prefill(9, 2)],
                Plan { prefill: Some((1, 9)), ..Plan::default() },
            ),
            (
                "an interactive prompt goes before one that was there already",
                &[Row::Prefill { left: 900, most: 128, priority: Priority::Background, turn: 1 }, prefill(3, 9)],
                Plan { prefill: Some((1, 3)), ..Plan::default() },
            ),
            (
                "a row that decodes moves before one that does not",
                &[Parked, Decode, prefill(9, 1), Decode],
                Plan { swaps: vec![(0, 3)], decode: 2, prefill: Some((2, 9)) },
            ),
        ];
        for (name, rows, expected) in cases {
            assert_eq!(&plan(rows, 16), expected, "{name}");
        }
    }

    fn row() -> impl Strategy<Value = Row> {
        prop_oneof![
            Just(Row::Decode),
            Just(Row::Parked),
            (1..300usize, 1..128usize, any::<bool>(), 0..1000u64).prop_map(|(left, most, background, turn)| {
                let priority = if background { Priority::Background } else { Priority::Interactive };
                Row::Prefill { left, most, priority, turn }
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_rows_that_decode_become_a_prefix_with_the_fewest_moves(rows in prop::collection::vec(row(), 0..12), budget in 1..64usize) {
            let plan = plan(&rows, budget);
            let mut after = rows.clone();
            plan.swaps.iter().for_each(|&(a, b)| after.swap(a, b));
            prop_assert!(after[..plan.decode].iter().all(|row| *row == Row::Decode));
            prop_assert!(after[plan.decode..].iter().all(|row| *row != Row::Decode));
            let gaps = rows[..plan.decode].iter().filter(|row| **row != Row::Decode).count();
            prop_assert_eq!(plan.swaps.len(), gaps);
            match plan.prefill {
                None => {
                    let reads = rows.iter().any(|row| matches!(row, Row::Prefill { .. }));
                    prop_assert!(!reads);
                }
                Some((place, tokens)) => {
                    let Row::Prefill { left, most, priority, turn } = after[place] else { panic!("{:?}", after[place]) };
                    prop_assert!(tokens >= 1 && tokens <= left.min(most));
                    prop_assert!(plan.decode == 0 || tokens <= budget);
                    let earlier = |row: &Row| match row {
                        Row::Prefill { priority: p, turn: t, .. } => (*p, *t) < (priority, turn),
                        Row::Decode | Row::Parked => false,
                    };
                    prop_assert!(!after.iter().any(earlier));
                }
            }
        }

        /// Jobs with prompts and answers of any length, arriving at any tick: every job is finished, every stream gets a
        /// token each tick, and a prompt reads at least once in as many ticks as there are rows, however long others are.
        #[test]
        fn a_day_of_work(jobs in prop::collection::vec((0..40u64, 1..200usize, 0..30usize), 1..20), slots in 1..5usize, budget in 1..32usize) {
            let mut waiting: Vec<_> = jobs.iter().enumerate().map(|(id, &(at, prompt, answer))| (at, id, prompt, answer)).collect();
            waiting.sort_unstable();
            let mut waiting = VecDeque::from(waiting);
            // Each row: job, prompt tokens left, answer tokens left, when it came or last read.
            let mut rows: Vec<(usize, usize, usize, u64)> = Vec::new();
            let mut finished = Vec::new();
            for tick in 0.. {
                rows.retain(|&(id, prompt, answer, _)| { let done = prompt == 0 && answer == 0; if done { finished.push(id); } !done });
                while rows.len() < slots && waiting.front().is_some_and(|job| job.0 <= tick) {
                    let (_, id, prompt, answer) = waiting.pop_front().unwrap();
                    rows.push((id, prompt, answer, tick));
                }
                if rows.is_empty() && waiting.is_empty() { break; }
                let view: Vec<Row> = rows.iter().map(|&(_, left, _, turn)| match left {
                    0 => Row::Decode,
                    left => Row::Prefill { left, most: 64, priority: Priority::Interactive, turn },
                }).collect();
                let plan = plan(&view, budget);
                plan.swaps.iter().for_each(|&(a, b)| rows.swap(a, b));
                prop_assert_eq!(plan.decode, view.iter().filter(|row| **row == Row::Decode).count());
                rows[..plan.decode].iter_mut().for_each(|row| row.2 -= 1);
                if let Some((place, tokens)) = plan.prefill {
                    rows[place].1 -= tokens;
                    rows[place].3 = tick + 1;
                }
                for row in rows.iter().filter(|row| row.1 > 0) {
                    prop_assert!(tick + 1 - row.3 <= slots as u64, "a prompt waited from {} to {tick}", row.3);
                }
                prop_assert!(tick < 20_000, "work goes on");
            }
            prop_assert_eq!(finished.len(), jobs.len());
        }
    }
}
