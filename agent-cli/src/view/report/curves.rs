//! Which lines of many are drawn, and with how many points.

use std::cmp::Ordering;

use super::Key;
use super::plot::{Colour, Curve};
use crate::history::timeline::{Line, Lines, Steps};

/// So many devices are told apart by their lines; of more, only the extremes are.
const FEW: usize = 5;

/// A line.
pub(super) fn one(line: Line, colour: Colour) -> Curve {
    Curve { line, colour }
}

/// Lines, the band that stands for those that are not drawn, and what the colours mean.
pub(super) type Many = (Vec<Curve>, Option<(Line, Line)>, Vec<Key>);

/// The lines of many devices: each, or the two that are highest on average, the lowest, and a band for the rest.
pub(super) fn many<'a>(lines: impl Iterator<Item = (&'a str, &'a Line)>) -> Many {
    let mut lines: Vec<(&str, &Line, f64)> = lines.filter_map(|(name, line)| Some((name, line, mean(line)?))).collect();
    let mut rest = Vec::new();
    if lines.len() > FEW {
        lines.sort_by(|(_, _, a), (_, _, b)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
        let last = lines.len() - 1;
        rest = lines.drain(2..last).map(|(_, line, _)| line).collect();
    }
    let colour = |place: usize| Colour::Line(place);
    let mut key: Vec<Key> =
        lines.iter().enumerate().map(|(place, (name, ..))| Key::new(colour(place), *name)).collect();
    if !rest.is_empty() {
        key.push(Key::new(Colour::Other, format!("the other {}", rest.len())));
    }
    let curves = lines.iter().enumerate().map(|(place, (_, line, _))| one((*line).clone(), colour(place))).collect();
    (curves, (!rest.is_empty()).then(|| (ends(&rest, f64::min), ends(&rest, f64::max))), key)
}

fn mean(line: &Line) -> Option<f64> {
    let (sum, count) = line.iter().flatten().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The lowest or the highest of all lines in each step.
fn ends(lines: &[&Line], end: fn(f64, f64) -> f64) -> Line {
    let steps = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let at = |step: usize| lines.iter().filter_map(|line| line.get(step).copied().flatten()).reduce(end);
    (0..steps).map(at).collect()
}

/// The same lines with at most about so many points: temperatures and alarms keep their highest value, the others their mean.
pub(super) fn coarse(lines: &Lines, steps: &Steps, points: usize) -> (Lines, Steps) {
    let together = steps.count.div_ceil(points).max(1);
    if together == 1 {
        return (lines.clone(), *steps);
    }
    let highest = |line: &Line| -> Line {
        line.chunks(together).map(|part| part.iter().flatten().copied().reduce(f64::max)).collect()
    };
    let means = |line: &Line| -> Line { line.chunks(together).map(|part| mean(&part.to_vec())).collect() };
    let coarse = Lines {
        tokens: means(&lines.tokens),
        requests: means(&lines.requests),
        errors: means(&lines.errors),
        temperature: highest(&lines.temperature),
        alarm: highest(&lines.alarm),
        ..lines.together(together)
    };
    let step = steps.step.saturating_mul(i64::try_from(together).unwrap_or(1));
    (coarse, Steps { step, count: steps.count.div_ceil(together), ..*steps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_devices_the_extremes_are_drawn_and_a_band_for_the_rest() {
        let lines: Vec<(String, Line)> =
            (0..10).map(|place| (format!("gw-{place}"), vec![Some(f64::from(place)), None])).collect();
        let (curves, band, key) = many(lines.iter().map(|(name, line)| (name.as_str(), line)));
        assert_eq!(curves.len(), 3);
        assert_eq!(band, Some((vec![Some(1.0), None], vec![Some(7.0), None])));
        let names: Vec<_> = key.into_iter().map(|key| key.name).collect();
        assert_eq!(names, ["gw-9", "gw-8", "gw-0", "the other 7"]);
        let (curves, band, _) = many(lines.iter().take(5).map(|(name, line)| (name.as_str(), line)));
        assert_eq!((curves.len(), band), (5, None));
    }

    #[test]
    fn with_fewer_points_no_peak_of_temperature_is_lost() {
        let line: Line = (0..1000).map(|step| Some(if step == 777 { 90.0 } else { 50.0 })).collect();
        let lines = Lines { temperature: line.clone(), tokens: line, ..Lines::default() };
        let steps = Steps { begin: 0, step: 60, count: 1000 };
        let (few, few_steps) = coarse(&lines, &steps, 240);
        assert_eq!((few.temperature.len(), few_steps.count, few_steps.step), (200, 200, 300));
        assert_eq!(few.temperature[155], Some(90.0));
        assert_eq!(few.tokens[155], Some(58.0));
    }
}
