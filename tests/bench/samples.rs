//! Repeated measurements, and what they come to.

/// Repeated measurements of one thing, in the order in which they were taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

/// The middle of a set of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Middle {
    /// A quarter of the samples is below.
    pub(crate) low: f64,
    /// Half of them are.
    pub(crate) median: f64,
    /// Three quarters are.
    pub(crate) high: f64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Samples {
    /// Takes one more.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Each as something else.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        self.0.iter().copied().map(change).collect()
    }

    /// Each with the one that was taken beside it.
    pub(crate) fn pair(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        self.0.iter().zip(&other.0).map(|(&one, &two)| join(one, two)).collect()
    }

    /// Median and quartiles; between two samples, in proportion. None of no samples.
    pub(crate) fn middle(&self) -> Option<Middle> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Middle { low: at(0.25), median: at(0.5), high: at(0.75), count: sorted.len() })
    }

    /// The greatest.
    pub(crate) fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples_in_proportion() {
        let of = |values: &[f64]| values.iter().copied().collect::<Samples>().middle();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(Middle { low: 3.0, median: 3.0, high: 3.0, count: 1 }));
        assert_eq!(of(&[5.0, 1.0, 2.0, 4.0, 3.0]), Some(Middle { low: 2.0, median: 3.0, high: 4.0, count: 5 }));
        assert_eq!(of(&[4.0, 1.0]), Some(Middle { low: 1.75, median: 2.5, high: 3.25, count: 2 }));
    }

    #[test]
    fn pairs_are_compared_before_the_median_is_taken() {
        let one: Samples = [10.0, 20.0, 30.0].into_iter().collect();
        let two: Samples = [5.0, 10.0, 60.0].into_iter().collect();
        let ratio = one.pair(&two, |one, two| one / two);
        assert_eq!(ratio.middle().map(|middle| middle.median), Some(2.0));
    }
}
