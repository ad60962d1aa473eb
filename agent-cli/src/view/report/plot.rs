//! A plot over time as SVG: lines, a band, marks. Its colours are the page's, so that they suit light and dark.

use std::ops::Range;

use chrono::{DateTime, Utc};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use crate::exit::Failure;
use crate::history::SECOND;
use crate::history::timeline::{Line, Steps};

/// What a plot is drawn on, as seen: text is as large on it as on a phone's page.
const SIZE: (u32, u32) = (380, 185);
/// Points of the drawing for one of these: coordinates are whole numbers.
const FINE: u32 = 4;
/// How high a plot's text is.
const TEXT: u32 = 12;

const INK: RGBColor = RGBColor(0, 0, 1);
const GRID: RGBColor = RGBColor(0, 0, 2);
const BAND: RGBColor = RGBColor(0, 0, 3);

/// What a colour means; the page's style sheet says which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// The n-th of those that tell lines apart, from 0.
    Line(usize),
    /// What is bad.
    Bad,
    /// What needs a look.
    Warning,
    /// A model was changed.
    Change,
    /// One of many.
    Other,
}

/// Colours that tell lines apart.
pub(super) const LINES: usize = 6;

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            // Below 6.
            Self::Line(place) => RGBColor(0, 0, 0x11 + u8::try_from(place % LINES).unwrap_or(0)),
            Self::Bad => RGBColor(0, 0, 0x21),
            Self::Warning => RGBColor(0, 0, 0x22),
            Self::Change => RGBColor(0, 0, 0x23),
            Self::Other => BAND,
        }
    }

    /// Its name in the style sheet.
    pub(super) fn variable(self) -> String {
        match self {
            Self::Line(place) => format!("--c{}", 1 + place % LINES),
            Self::Bad => "--bad".to_owned(),
            Self::Warning => "--warn".to_owned(),
            Self::Change => "--change".to_owned(),
            Self::Other => "--band".to_owned(),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..LINES).map(Self::Line).chain([Self::Bad, Self::Warning, Self::Change, Self::Other])
    }
}

/// How numbers at the left are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Number,
    Seconds,
    Celsius,
}

/// A line and its colour.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) line: Line,
    pub(super) colour: Colour,
}

/// Something that happened at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: i64,
    pub(super) colour: Colour,
}

/// A plot over time.
#[derive(Debug, Clone)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) steps: Steps,
    pub(super) unit: Unit,
    pub(super) curves: Vec<Curve>,
    /// Lowest and highest of what is not drawn line by line.
    pub(super) band: Option<(Line, Line)>,
    pub(super) marks: &'a [Mark],
    /// Steps in which something was wrong, told by a bar below the lines.
    pub(super) alarms: Option<Line>,
}

/// The axis of time.
#[derive(Debug, Clone)]
pub(super) struct Time {
    begin: i64,
    end: i64,
    tick: i64,
}

impl Time {
    /// Of these steps.
    pub(super) fn of(steps: &Steps) -> Self {
        const MINUTES: [i64; 16] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080, 20_160, 43_200];
        let length = steps.end() - steps.begin;
        let ticks = MINUTES.map(|minutes| minutes * 60 * SECOND);
        let tick = ticks.into_iter().find(|tick| length / tick <= 5).unwrap_or(length / 5);
        Self { begin: steps.begin, end: steps.end(), tick: tick.max(1) }
    }
}

impl Ranged for Time {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    #[expect(clippy::cast_possible_truncation, reason = "a place on the drawing")]
    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let share = (value.clamp(&self.begin, &self.end) - self.begin) as f64 / (self.end - self.begin).max(1) as f64;
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<i64> {
        let first = (self.begin - 1).div_euclid(self.tick) + 1;
        (first..).map(|number| number * self.tick).take_while(|at| *at <= self.end).take(12).collect()
    }

    fn range(&self) -> Range<i64> {
        self.begin..self.end
    }
}

impl ValueFormatter<i64> for Time {
    fn format_ext(&self, value: &i64) -> String {
        let day = 24 * 3600 * SECOND;
        let format = if self.tick >= day || value % day == 0 { "%-d %b" } else { "%H:%M" };
        DateTime::<Utc>::from_timestamp_nanos(*value).format(format).to_string()
    }
}

fn label(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Number if value == 0.0 => "0".to_owned(),
        Unit::Number if value < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        Unit::Number => format!("{value:.0}"),
        Unit::Seconds if value == 0.0 => "0 s".to_owned(),
        Unit::Seconds if value < 0.01 => format!("{:.1} ms", value * 1e3),
        Unit::Seconds if value < 1.0 => format!("{:.0} ms", value * 1e3),
        Unit::Seconds if value < 10.0 && value.fract() != 0.0 => format!("{value:.1} s"),
        Unit::Seconds => format!("{value:.0} s"),
        Unit::Celsius => format!("{value:.0} °C"),
    }
}

/// Draws on a surface of this size, and makes it part of the page.
pub(super) fn drawn(
    title: &str,
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
        draw(&area)
            .and_then(|()| Ok(area.present()?))
            .map_err(|error| Failure::Failed(format!("cannot draw the plot {title:?}: {error}")))?;
    }
    Ok(themed(&svg, title))
}

/// As wide as its place on the page, in the page's colours.
fn themed(svg: &str, title: &str) -> String {
    let hex = |RGBColor(r, g, b): RGBColor| format!("\"#{r:02X}{g:02X}{b:02X}\"");
    let mut svg = svg.replace(&hex(INK), "\"var(--ink)\"").replace(&hex(GRID), "\"var(--grid)\"");
    for colour in Colour::all() {
        svg = svg.replace(&hex(colour.rgb()), &format!("\"var({})\"", colour.variable()));
    }
    let svg = svg.replace(" opacity=\"1\"", "").replace(",\n", ",");
    let from = svg.find("viewBox").unwrap_or(0);
    format!("<svg role=\"img\" aria-label=\"{title}\" {}", &svg[from..])
}

/// A length on the page as one of the drawing.
pub(super) fn fine(length: u32) -> u32 {
    length * FINE
}

/// How text is written.
pub(super) fn text() -> TextStyle<'static> {
    ("sans-serif", TEXT * FINE).into_font().color(&INK)
}

/// The grid's colour.
pub(super) fn grid() -> ShapeStyle {
    GRID.stroke_width(FINE)
}

/// A filled shape in this colour.
pub(super) fn filled(colour: Colour) -> ShapeStyle {
    colour.rgb().filled()
}

/// The plot. Where nothing was measured, it is empty but for its axes.
pub(super) fn plot(plot: &Plot<'_>) -> Result<String, Failure> {
    drawn(plot.title, SIZE, |area| {
        let steps = &plot.steps;
        let (low, high) = bounds(plot);
        let mut chart = ChartBuilder::on(area)
            .margin_top(fine(8))
            .margin_right(fine(16))
            .set_label_area_size(LabelAreaPosition::Left, fine(48))
            .set_label_area_size(LabelAreaPosition::Bottom, fine(20))
            .build_cartesian_2d(Time::of(steps), low..high)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(5)
            .x_labels(7)
            .light_line_style(TRANSPARENT)
            .bold_line_style(grid())
            .axis_style(grid())
            .label_style(text())
            .y_label_formatter(&|value| label(plot.unit, *value))
            .draw()?;
        let at = |step: usize| steps.begin + steps.step * i64::try_from(step).unwrap_or(0) + steps.step / 2;
        if let Some((least, most)) = &plot.band {
            for run in runs(most, 0) {
                let over = run.iter().filter_map(|step| Some((at(*step), most.get(*step).copied()??)));
                let under = run.iter().rev().filter_map(|step| Some((at(*step), least.get(*step).copied()??)));
                chart.draw_series([Polygon::new(over.chain(under).collect::<Vec<_>>(), BAND.mix(0.35).filled())])?;
            }
        }
        for mark in plot.marks.iter().filter(|mark| (steps.begin..steps.end()).contains(&mark.at)) {
            let style = mark.colour.rgb().stroke_width(FINE);
            chart.draw_series([PathElement::new([(mark.at, low), (mark.at, high)], style)])?;
            chart.draw_series([TriangleMarker::new((mark.at, high), fine(4), mark.colour.rgb().filled())])?;
        }
        for curve in plot.curves.iter().rev() {
            let colour = curve.colour.rgb();
            for run in runs(&curve.line, steps.count / 40) {
                let points: Vec<(i64, f64)> =
                    run.iter().filter_map(|step| Some((at(*step), curve.line.get(*step).copied()??))).collect();
                match points.as_slice() {
                    [one] => drop(chart.draw_series([Circle::new(*one, fine(2), colour.filled())])?),
                    _ => drop(chart.draw_series([PathElement::new(points, colour.stroke_width(FINE + FINE / 2))])?),
                }
            }
        }
        if let Some(alarms) = &plot.alarms {
            let wrong: Line = alarms.iter().map(|share| share.filter(|share| *share > 0.0)).collect();
            for run in runs(&wrong, 0) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
                let half = steps.step / 2;
                let (from, to) = (at(*first) - half, at(*last) + half);
                let top = low + (high - low) * 0.05;
                chart.draw_series([Rectangle::new([(from, low), (to, top)], filled(Colour::Bad))])?;
            }
        }
        Ok(())
    })
}

/// What the axis at the left spans.
fn bounds(plot: &Plot<'_>) -> (f64, f64) {
    let band = plot.band.iter().flat_map(|(low, high)| low.iter().chain(high));
    let values = plot.curves.iter().flat_map(|curve| &curve.line).chain(band).flatten().copied();
    let values = values.filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    match plot.unit {
        Unit::Celsius if low.is_finite() => ((low - 3.0).floor(), (high + 3.0).ceil()),
        Unit::Celsius => (0.0, 100.0),
        _ if high > 0.0 => (0.0, high * 1.08),
        _ => (0.0, 1.0),
    }
}

/// Steps with a value, in pieces that are drawn as one line: at most `gap` steps are missing between two.
fn runs(line: &Line, gap: usize) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for (step, _) in line.iter().enumerate().filter(|(_, value)| value.is_some_and(f64::is_finite)) {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| step - last <= gap + 1) => run.push(step),
            _ => runs.push(vec![step]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(minutes: i64) -> Steps {
        Steps::of(1_772_323_200 * SECOND, (1_772_323_200 + minutes * 60) * SECOND)
    }

    fn of(line: Line, title: &str) -> String {
        let steps = steps(i64::try_from(line.len()).unwrap());
        let curves = vec![Curve { line, colour: Colour::Line(0) }];
        let marks = [Mark { at: steps.begin + 60 * SECOND, colour: Colour::Change }];
        plot(&Plot { title, steps, unit: Unit::Number, curves, band: None, marks: &marks, alarms: None }).unwrap()
    }

    #[test]
    fn a_plot_takes_its_colours_from_the_page_and_is_as_wide_as_its_place() {
        let svg = of((0..60).map(|step| Some(f64::from(step))).collect(), "tokens");
        assert!(svg.starts_with("<svg role=\"img\" aria-label=\"tokens\" viewBox=\"0 0 1520 740\""), "{svg}");
        assert!(svg.contains("var(--c1)") && svg.contains("var(--change)") && svg.contains("var(--grid)"));
        assert!(!svg.contains("#0000"), "{svg}");
        assert!(svg.contains("00:30") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        for line in [vec![None; 30], vec![Some(f64::NAN); 30], vec![Some(f64::INFINITY); 30], vec![Some(0.0)]] {
            assert!(of(line, "x").contains("<svg"));
        }
    }

    #[test]
    fn lines_break_where_nothing_was_measured() {
        let line = [Some(1.0), Some(1.0), None, Some(1.0), None, None, Some(1.0)];
        assert_eq!(runs(&line.to_vec(), 0), [vec![0, 1], vec![3], vec![6]]);
        assert_eq!(runs(&line.to_vec(), 1), [vec![0, 1, 3], vec![6]]);
    }

    #[test]
    fn times_on_the_axis_are_round() {
        for minutes in [1, 50, 6 * 60, 24 * 60, 60 * 24 * 60, 3650 * 24 * 60] {
            let time = Time::of(&steps(minutes));
            let points = time.key_points(plotters::coord::ranged1d::BoldPoints(10));
            assert!((2..=12).contains(&points.len()), "{minutes} {points:?}");
            assert!(points.iter().all(|at| at % time.tick == 0));
        }
    }
}
