//! Which device served which model, when.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::plot::{self, Colour, LINES, Time};
use crate::exit::Failure;
use crate::history::timeline::{Served, Steps};

/// How wide the drawing is, and how high each device's row.
const WIDTH: u32 = 380;
const ROW: u32 = 17;
/// Room for names, and for the axis of time.
const NAMES: u32 = 92;
const BELOW: u32 = 22;
/// Most letters of a name.
const LETTERS: usize = 15;

/// The models of a fleet, in the order in which they came.
pub(super) fn bundles(devices: &[(String, Vec<Served>)]) -> Vec<(String, String)> {
    let mut all: Vec<&Served> = devices.iter().flat_map(|(_, served)| served).collect();
    all.sort_by_key(|served| served.begin);
    let mut bundles: Vec<(String, String)> = Vec::new();
    for served in all {
        let key = (served.model.clone(), served.bundle.clone());
        if !bundles.contains(&key) {
            bundles.push(key);
        }
    }
    bundles
}

/// The colour of each; those after the first few share one.
pub(super) fn colour(place: usize) -> Colour {
    if place < LINES { Colour::Line(place) } else { Colour::Other }
}

/// A row for each device.
pub(super) fn drawn(devices: &[(String, Vec<Served>)], steps: &Steps) -> Result<String, Failure> {
    let bundles = bundles(devices);
    let rows = u32::try_from(devices.len()).unwrap_or(u32::MAX).min(1000);
    let size = (WIDTH, rows * ROW + BELOW);
    plot::drawn("models", size, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_right(plot::fine(16))
            .set_label_area_size(LabelAreaPosition::Left, plot::fine(NAMES))
            .set_label_area_size(LabelAreaPosition::Bottom, plot::fine(BELOW))
            .build_cartesian_2d(Time::of(steps), f64::from(rows)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(plot::grid())
            .axis_style(plot::grid())
            .label_style(plot::text())
            .draw()?;
        let style = plot::text().pos(Pos::new(HPos::Right, VPos::Center));
        for ((name, served), row) in devices.iter().zip(0_u32..rows) {
            let top = f64::from(row);
            let height = plot::fine(ROW * row + ROW / 2);
            let at = (i32::try_from(plot::fine(NAMES - 6))?, i32::try_from(height)?);
            area.draw(&Text::new(short(name), at, style.clone()))?;
            for served in served {
                let place =
                    bundles.iter().position(|(model, bundle)| *model == served.model && *bundle == served.bundle);
                let style = plot::filled(colour(place.unwrap_or(LINES)));
                let area = [(served.begin, top + 0.15), (served.ended, top + 0.85)];
                chart.draw_series([Rectangle::new(area, style)])?;
            }
        }
        Ok(())
    })
}

/// A name that fits: its beginning and its end.
fn short(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LETTERS {
        return name.to_owned();
    }
    let (head, tail) = (&letters[..LETTERS / 2], &letters[letters.len() - LETTERS / 2..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SECOND;

    #[test]
    fn names_are_shown_as_text_and_never_too_long() {
        let served = |bundle: &str, from: i64| Served {
            model: "m".to_owned(),
            bundle: bundle.to_owned(),
            begin: from * SECOND,
            ended: (from + 600) * SECOND,
        };
        let devices = vec![
            ("<script>".to_owned(), vec![served("a", 0), served("b", 600)]),
            ("a-gateway-with-a-very-long-name-7".to_owned(), vec![served("b", 0)]),
        ];
        let svg = drawn(&devices, &Steps::of(0, 1200 * SECOND)).unwrap();
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
        assert!(svg.contains("a-gatew…-name-7"), "{svg}");
        assert_eq!(svg.matches("var(--c2)").count(), 2);
    }
}
