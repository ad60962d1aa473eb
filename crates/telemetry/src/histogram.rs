//! Histograms: they add up over minutes and devices, so that percentiles of a fleet are percentiles and no averages of them.

use recurve_proto::v1::Histogram;

/// Adds the second to the first. Both are of the same metric.
pub fn add(to: &mut Histogram, other: &Histogram) {
    if to.counts.len() < other.counts.len() {
        to.counts.resize(other.counts.len(), 0);
    }
    for (to, more) in to.counts.iter_mut().zip(&other.counts) {
        *to = to.saturating_add(*more);
    }
    to.sum += other.sum;
}

/// What came between two readings of a histogram that only grows. One that was begun anew counts from zero.
pub fn since(now: &Histogram, before: &Histogram) -> Histogram {
    let at = |histogram: &Histogram, bucket: usize| histogram.counts.get(bucket).copied().unwrap_or(0);
    let buckets = now.counts.len().max(before.counts.len());
    if (0..buckets).any(|bucket| at(now, bucket) < at(before, bucket)) {
        return trimmed(now.clone());
    }
    let counts = (0..buckets).map(|bucket| at(now, bucket) - at(before, bucket)).collect();
    trimmed(Histogram { counts, sum: now.sum - before.sum })
}

/// Without the zeros at the end.
pub fn trimmed(mut histogram: Histogram) -> Histogram {
    let used = histogram.counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    histogram.counts.truncate(used);
    histogram
}

/// How many values there are.
pub fn count(histogram: &Histogram) -> u64 {
    histogram.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// A quantile as far as a histogram can tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// The bounds of the bucket that it lies in; the last bucket's upper one is infinite.
    pub between: (f64, f64),
    /// The place in the bucket, were its values spread evenly; in the last bucket its lower bound.
    pub value: f64,
}

/// The value that a share `q` (0 to 1) of all values does not exceed; none where there is no value. `bounds`: the metric's.
///
/// The true quantile, by the definition "the smallest value that at least `q` of all values do not exceed", always lies within
/// [`Quantile::between`].
pub fn quantile(histogram: &Histogram, bounds: &[f64], q: f64) -> Option<Quantile> {
    let total = count(histogram);
    if total == 0 {
        return None;
    }
    // The rank of the value that is looked for, counted from 1.
    let rank = (q.clamp(0.0, 1.0) * total as f64).ceil().max(1.0);
    let mut below = 0.0;
    for (bucket, &count) in histogram.counts.iter().enumerate() {
        let within = count as f64;
        if count > 0 && below + within >= rank {
            let low = if bucket == 0 { 0.0 } else { bounds.get(bucket - 1).copied().unwrap_or(f64::INFINITY) };
            let high = bounds.get(bucket).copied().unwrap_or(f64::INFINITY);
            let value = if high.is_finite() { low + (high - low) * (rank - below) / within } else { low };
            return Some(Quantile { between: (low, high), value });
        }
        below += within;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0, 4.0, 8.0];

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram { counts: vec![0; BOUNDS.len() + 1], sum: values.iter().sum() };
        for value in values {
            histogram.counts[BOUNDS.partition_point(|bound| bound < value)] += 1;
        }
        trimmed(histogram)
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_true_one(
            mut values in prop::collection::vec(0.0_f64..12.0, 1..200),
            q in 0.0_f64..=1.0,
        ) {
            let found = quantile(&of(&values), BOUNDS, q).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let real = values[rank - 1];
            prop_assert!(found.between.0 <= real && real <= found.between.1, "{real} {found:?}");
            prop_assert!(found.between.0 <= found.value && found.value <= found.between.1);
        }

        #[test]
        fn the_sum_of_two_is_the_histogram_of_both(
            a in prop::collection::vec(0.0_f64..12.0, 0..100),
            b in prop::collection::vec(0.0_f64..12.0, 0..100),
        ) {
            let mut sum = of(&a);
            add(&mut sum, &of(&b));
            let both = of(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(&sum.counts, &both.counts);
            prop_assert!((sum.sum - both.sum).abs() < 1e-6);
            prop_assert_eq!(since(&sum, &of(&a)).counts, of(&b).counts);
        }
    }

    #[test]
    fn one_that_began_anew_counts_from_zero() {
        assert_eq!(since(&of(&[3.0]), &of(&[3.0, 3.0])).counts, of(&[3.0]).counts);
        assert_eq!(quantile(&Histogram::default(), BOUNDS, 0.5), None);
    }
}
