//! A page with plots about a fleet: one file that needs nothing else, no script, no network.

mod curves;
mod models;
mod plot;

use minijinja::Environment;
use serde::Serialize;

use self::curves::{coarse, many, one};
use self::plot::{Colour, Curve, Mark, Plot, Unit};
use super::telemetry::{Overview, Shown, cells, time};
use crate::exit::Failure;
use crate::history::read::{Happened, Which};
use crate::history::timeline::{Line, Lines, Steps};
use crate::history::{SECOND, Store};
use crate::view::table;

const TEMPLATE: &str = include_str!("report/page.html");
/// Events that are listed, and marks that are drawn.
const EVENTS: usize = 300;
const MARKS: usize = 60;
/// The plot that only boards with sensors have.
const TEMPERATURE: &str = "Temperature";
/// Points of a line of one device among many.
const POINTS: usize = 240;

#[derive(Serialize)]
struct Page {
    heading: String,
    count: usize,
    since: String,
    until: String,
    step: &'static str,
    columns: [&'static str; 8],
    rows: Vec<Row>,
    marks: Vec<Key>,
    plots: Vec<Figure>,
    devices: Vec<Section>,
    events: Vec<Event>,
    more: bool,
}

#[derive(Serialize)]
struct Row {
    all: bool,
    device: String,
    model: String,
    cells: Vec<String>,
    error: Option<String>,
}

/// What a colour stands for.
#[derive(Debug, Clone, Serialize)]
struct Key {
    colour: String,
    name: String,
}

impl Key {
    fn new(colour: Colour, name: impl Into<String>) -> Self {
        Self { colour: colour.variable(), name: name.into() }
    }
}

#[derive(Serialize)]
struct Figure {
    title: &'static str,
    unit: &'static str,
    key: Vec<Key>,
    svg: String,
}

#[derive(Serialize)]
struct Section {
    name: String,
    words: String,
    plots: Vec<Figure>,
}

#[derive(Serialize)]
struct Event {
    colour: String,
    time: String,
    device: String,
    kind: String,
    message: String,
}

/// The page about these devices, each with its histories, from one time to another.
pub(crate) fn page(
    store: &Store,
    overview: &Overview,
    devices: &[(String, Vec<i64>)],
    (since, until): (i64, i64),
) -> Result<String, Failure> {
    let steps = window(store, devices, since, until)?;
    let mut fleet = Lines::default();
    let mut lines: Vec<(String, Lines)> = Vec::new();
    for (name, histories) in devices {
        let mut own = Lines::default();
        for history in histories {
            own.add(&store.lines(*history, &steps)?);
        }
        if !histories.is_empty() {
            fleet.add(&own);
            lines.push((name.clone(), own));
        }
    }
    let ids: Vec<i64> = devices.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
    let events = store.events(&ids, since, Which::All, EVENTS + 1)?;
    let marks: Vec<Mark> = events.iter().filter_map(mark).take(MARKS).collect();
    let page = Page {
        heading: match devices {
            [(name, _)] => format!("Telemetry of {name}"),
            devices => format!("Telemetry of {} devices", devices.len()),
        },
        count: devices.len(),
        since: minute(steps.begin),
        until: minute(until),
        step: match steps.step / SECOND {
            60 => "a minute",
            300 => "five minutes",
            _ => "an hour",
        },
        columns: [
            "requests",
            "errors, %",
            "tokens/s",
            "first token 50/95/99",
            "per token 50/95",
            "highest °C",
            "throttled, min",
            "warnings/errors",
        ],
        rows: rows(overview),
        marks: key_of_marks(&marks),
        plots: plots_of_all(&lines, &fleet, overview, &steps, &marks)?,
        devices: if lines.len() > 1 { sections(store, overview, &lines, &steps)? } else { Vec::new() },
        more: events.len() > EVENTS,
        events: events.iter().take(EVENTS).map(listed).collect(),
    };
    rendered(&page)
}

/// A moment as people read it.
fn minute(at: i64) -> String {
    time(at).chars().take(16).collect::<String>().replace('T', " ")
}

fn rendered(page: &Page) -> Result<String, Failure> {
    let failed = |error: minijinja::Error| Failure::Failed(format!("cannot make the report: {error}"));
    let mut environment = Environment::new();
    // What ends in .html is escaped.
    environment.add_template("page.html", TEMPLATE).map_err(failed)?;
    environment
        .get_template("page.html")
        .and_then(|template| template.render(minijinja::value::Serde(page)))
        .map_err(failed)
}

/// The window that is drawn: from its first sample on.
fn window(store: &Store, devices: &[(String, Vec<i64>)], since: i64, until: i64) -> Result<Steps, Failure> {
    let mut begin = until;
    for history in devices.iter().flat_map(|(_, ids)| ids) {
        if let Some(first) = store.times(*history, since)?.first() {
            begin = begin.min(first.begin);
        }
    }
    Ok(Steps::of(begin.max(since), until))
}

fn rows(overview: &Overview) -> Vec<Row> {
    let row = |shown: &Shown| {
        let model = shown.summary.model.as_ref();
        Row {
            all: false,
            device: shown.device.clone(),
            model: model.map_or_else(|| "-".to_owned(), |(model, bundle)| format!("{model} {}", table::digest(bundle))),
            cells: cells(&shown.summary, &overview.bounds),
            error: shown.error.clone(),
        }
    };
    let mut rows: Vec<Row> = overview.devices.iter().map(row).collect();
    if overview.devices.len() > 1 {
        rows.push(Row {
            all: true,
            device: format!("all {}", overview.devices.len()),
            model: String::new(),
            cells: cells(&overview.fleet, &overview.bounds),
            error: None,
        });
    }
    rows
}

/// What is marked on the axes of time: deploys, ways back, restarts.
fn mark(event: &Happened) -> Option<Mark> {
    let colour = match event.kind.as_str() {
        "model.activated" => Colour::Change,
        "model.rolled_back" => Colour::Bad,
        "daemon.restarted" | "daemon.started" => Colour::Warning,
        _ => return None,
    };
    Some(Mark { at: event.at, colour })
}

fn key_of_marks(marks: &[Mark]) -> Vec<Key> {
    let all = [
        (Colour::Change, "a model was deployed"),
        (Colour::Bad, "a device went back to the model before"),
        (Colour::Warning, "a daemon started"),
    ];
    let seen = all.into_iter().filter(|(colour, _)| marks.iter().any(|mark| mark.colour == *colour));
    seen.map(|(colour, name)| Key::new(colour, name)).collect()
}

fn listed(event: &Happened) -> Event {
    let colour = match event.severity.as_str() {
        "error" => Colour::Bad,
        "warning" => Colour::Warning,
        _ => Colour::Other,
    };
    Event {
        colour: colour.variable(),
        time: minute(event.at),
        device: event.device.clone(),
        kind: event.kind.clone(),
        message: event.message.clone(),
    }
}

/// The plots of all devices together.
fn plots_of_all(
    lines: &[(String, Lines)],
    fleet: &Lines,
    overview: &Overview,
    steps: &Steps,
    marks: &[Mark],
) -> Result<Vec<Figure>, Failure> {
    let percentiles = fleet.percentiles(steps, &overview.bounds);
    let of_all = |line: fn(&Lines) -> &Line| many(lines.iter().map(|(name, lines)| (name.as_str(), line(lines))));
    let (temperature, band, key) = of_all(|lines| &lines.temperature);
    let mut plots = vec![
        percentile_plot("Time to the first token", &percentiles.first_token, steps, marks)?,
        percentile_plot("Time per token", &percentiles.per_token, steps, marks)?,
        requests_plot(fleet, steps, marks)?,
        Figure {
            title: TEMPERATURE,
            unit: "°C, the highest of each device",
            key: key.into_iter().chain(alarm_key(fleet)).collect(),
            svg: plot::plot(&Plot {
                title: "temperature",
                steps: *steps,
                unit: Unit::Celsius,
                curves: temperature,
                band,
                marks,
                alarms: Some(fleet.alarm.clone()),
            })?,
        },
    ];
    plots.splice(2..2, tokens_plots(lines, fleet, steps, marks)?);
    if is_empty(&fleet.temperature) {
        plots.retain(|plot| plot.title != TEMPERATURE);
    }
    let served: Vec<_> = lines.iter().map(|(name, lines)| (name.clone(), lines.models.clone())).collect();
    let key = models::bundles(&served)
        .into_iter()
        .enumerate()
        .map(|(place, (model, bundle))| Key::new(models::colour(place), format!("{model} {}", table::digest(&bundle))));
    plots.push(Figure { title: "Models", unit: "", key: key.collect(), svg: models::drawn(&served, steps)? });
    Ok(plots)
}

/// No board of these tells it.
fn is_empty(line: &Line) -> bool {
    line.iter().all(Option::is_none)
}

fn alarm_key(lines: &Lines) -> Option<Key> {
    let any = lines.alarm.iter().flatten().any(|share| *share > 0.0);
    any.then(|| Key::new(Colour::Bad, "the hardware complained"))
}

fn percentile_plot(
    title: &'static str,
    percentiles: &[Line; 3],
    steps: &Steps,
    marks: &[Mark],
) -> Result<Figure, Failure> {
    let colours = [Colour::Line(0), Colour::Line(2), Colour::Line(1)];
    let curves = percentiles.iter().zip(colours).map(|(line, colour)| Curve { line: line.clone(), colour }).collect();
    let key = ["50 of 100", "95 of 100", "99 of 100"].into_iter().zip(colours);
    Ok(Figure {
        title,
        unit: "",
        key: key.map(|(name, colour)| Key::new(colour, name)).collect(),
        svg: plot::plot(&Plot { title, steps: *steps, unit: Unit::Seconds, curves, band: None, marks, alarms: None })?,
    })
}

/// Tokens of all together; where there are several devices, also of each.
fn tokens_plots(
    lines: &[(String, Lines)],
    fleet: &Lines,
    steps: &Steps,
    marks: &[Mark],
) -> Result<Vec<Figure>, Failure> {
    let drawn = |curves, band| {
        let title = "tokens made in a second";
        plot::plot(&Plot { title, steps: *steps, unit: Unit::Number, curves, band, marks, alarms: None })
    };
    let all = drawn(vec![one(fleet.tokens.clone(), Colour::Line(0))], None)?;
    let mut plots = vec![Figure { title: "Tokens", unit: "made in a second", key: Vec::new(), svg: all }];
    if lines.len() > 1 {
        let (curves, band, key) = many(lines.iter().map(|(name, lines)| (name.as_str(), &lines.tokens)));
        let svg = drawn(curves, band)?;
        plots.push(Figure { title: "Tokens of each device", unit: "made in a second", key, svg });
    }
    Ok(plots)
}

fn requests_plot(of: &Lines, steps: &Steps, marks: &[Mark]) -> Result<Figure, Failure> {
    let any = of.errors.iter().flatten().any(|errors| *errors > 0.0);
    let mut curves = vec![one(of.requests.clone(), Colour::Line(0))];
    let mut key = vec![Key::new(Colour::Line(0), "all")];
    if any {
        curves.insert(0, one(of.errors.clone(), Colour::Bad));
        key.push(Key::new(Colour::Bad, "with an error"));
    }
    let plot = Plot { title: "requests", steps: *steps, unit: Unit::Number, curves, band: None, marks, alarms: None };
    Ok(Figure { title: "Requests", unit: "in a minute", key, svg: plot::plot(&plot)? })
}

/// A part for each device, drawn with fewer points.
fn sections(
    store: &Store,
    overview: &Overview,
    lines: &[(String, Lines)],
    steps: &Steps,
) -> Result<Vec<Section>, Failure> {
    let all = store.histories()?;
    let mut sections = Vec::new();
    for (name, lines) in lines {
        let ids: Vec<i64> = all.iter().filter(|kept| kept.name == *name).map(|kept| kept.id).collect();
        let events = store.events(&ids, steps.begin, Which::All, EVENTS)?;
        let marks: Vec<Mark> = events.iter().filter_map(mark).take(MARKS).collect();
        let (lines, steps) = coarse(lines, steps, POINTS);
        let percentiles = lines.percentiles(&steps, &overview.bounds);
        let temperature = Plot {
            title: "temperature",
            steps,
            unit: Unit::Celsius,
            curves: vec![one(lines.temperature.clone(), Colour::Line(1))],
            band: None,
            marks: &marks,
            alarms: Some(lines.alarm.clone()),
        };
        let tokens = Plot {
            title: "tokens in a second",
            unit: Unit::Number,
            curves: vec![one(lines.tokens.clone(), Colour::Line(0))],
            alarms: None,
            ..temperature.clone()
        };
        let mut plots = vec![
            percentile_plot("Time to the first token", &percentiles.first_token, &steps, &marks)?,
            Figure { title: "Tokens", unit: "made in a second", key: Vec::new(), svg: plot::plot(&tokens)? },
            requests_plot(&lines, &steps, &marks)?,
        ];
        if !is_empty(&lines.temperature) {
            let (key, svg) = (alarm_key(&lines).into_iter().collect(), plot::plot(&temperature)?);
            plots.push(Figure { title: TEMPERATURE, unit: "°C", key, svg });
        }
        sections.push(Section {
            name: name.clone(),
            words: overview.devices.iter().find(|shown| shown.device == *name).map(words).unwrap_or_default(),
            plots,
        });
    }
    Ok(sections)
}

fn words(shown: &Shown) -> String {
    let model = shown.summary.model.as_ref().map_or("no model", |(model, _)| model);
    format!("{model}, {} requests", shown.summary.requests)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use recurve_proto::v1::series::Value;
    use recurve_proto::v1::{NodeEvent, Severity, TelemetryRecord, telemetry_record::Content};
    use recurve_telemetry::catalogue::name;

    use super::*;
    use crate::history::made::{self, BEGIN, answer, gauge, histogram_of, minute_of, series};
    use crate::history::summary::Summary;

    /// A day's course of a device: busier and warmer by day, hot and throttled for an hour, another model from noon on.
    fn course(device: u32, minutes: u64) -> Vec<TelemetryRecord> {
        let mut records: Vec<TelemetryRecord> = (1..=minutes).map(|minute| busy(device, minute, minutes)).collect();
        let event = |place: u64, kind: &str, severity: Severity, message: &str| {
            let Some(Content::Sample(sample)) = &busy(device, place, minutes).content else { panic!() };
            let event = NodeEvent {
                at: sample.begin,
                kind: kind.to_owned(),
                severity: severity.into(),
                message: message.to_owned(),
                ..NodeEvent::default()
            };
            let sequence = minutes + 1000 + place;
            TelemetryRecord { sequence, first: sequence, content: Some(Content::Event(event)) }
        };
        records.push(event(1, "daemon.started", Severity::Info, "the daemon started"));
        records.push(event(minutes / 2, "model.activated", Severity::Info, "demo-2 is served & <well>"));
        if device.is_multiple_of(7) {
            records.push(event(minutes * 3 / 4, "model.rolled_back", Severity::Error, "demo-2 failed: it hung"));
        }
        records.push(event(minutes / 3, "hw.alarm", Severity::Warning, "the hardware throttles"));
        records
    }

    fn busy(device: u32, minute: u64, minutes: u64) -> TelemetryRecord {
        let share = minute as f64 / minutes as f64;
        let load =
            0.6 - 0.5 * (TAU * share).cos() + 0.1 * f64::from((minute as u32 * 7919 + device * 104_729) % 17) / 17.0;
        let count = (load * 6.0) as usize;
        let latency = |low: f64, spread: f64| -> Vec<f64> {
            (0..count)
                .map(|place| low + spread * f64::from((place as u32 * 31 + minute as u32 * 17 + device) % 10) / 10.0)
                .collect()
        };
        let hot = (0.33..0.4).contains(&share) && device.is_multiple_of(3);
        let celsius = 42.0 + f64::from(device % 11) + 18.0 * load + if hot { 15.0 } else { 0.0 };
        let second = share > 0.5 && !(device.is_multiple_of(7) && share > 0.75);
        let bundle = if second { "sha256:22222222aaaa" } else { "sha256:11111111bbbb" };
        let histogram = |metric: &str, values: Vec<f64>| Value::Histogram(histogram_of(metric, &values));
        let mut all = vec![
            series(name::TOKENS, &[("gen_ai.token.type", "output")], Value::Counter(load * 1500.0)),
            series(name::TOKENS, &[("gen_ai.token.type", "input")], Value::Counter(load * 5000.0)),
            series(name::TEMPERATURE, &[("hw.id", "cpu")], gauge(celsius as f32)),
            series(name::HW_ALARM, &[("recurve.alarm", "throttled")], gauge(if hot { 1.0 } else { 0.0 })),
            series(name::REQUEST_DURATION, &[], histogram(name::REQUEST_DURATION, latency(1.0, 4.0))),
            series(
                name::TIME_TO_FIRST_TOKEN,
                &[],
                histogram(name::TIME_TO_FIRST_TOKEN, latency(0.15 + load / 4.0, 0.8)),
            ),
            series(name::TIME_PER_OUTPUT_TOKEN, &[], histogram(name::TIME_PER_OUTPUT_TOKEN, latency(0.03, 0.06))),
            series(
                name::MODEL,
                &[("gen_ai.request.model", if second { "demo-2" } else { "demo" }), ("recurve.bundle.digest", bundle)],
                gauge(1.0),
            ),
        ];
        if minute.is_multiple_of(97) {
            all.push(series(
                name::REQUEST_DURATION,
                &[("error.type", "CANCELLED")],
                histogram(name::REQUEST_DURATION, vec![0.5]),
            ));
        }
        minute_of(minute, all)
    }

    /// The page about so many devices after so many minutes.
    fn made(devices: u32, minutes: u64) -> String {
        let (_folder, mut store) = made::store();
        for device in 1..=devices {
            let (name, of) = (format!("gw-{device:02}"), format!("store-{device}"));
            for part in course(device, minutes).chunks(256) {
                store.keep(&name, &of, 0, &answer(&of, part)).unwrap();
            }
        }
        let mut overview = Overview { bounds: store.latency_bounds().unwrap(), ..Overview::default() };
        let mut chosen = Vec::new();
        for kept in store.histories().unwrap() {
            let summary: Summary = store.summary(kept.id, 0).unwrap();
            overview.fleet.add(&summary);
            overview.devices.push(Shown { device: kept.name.clone(), summary, ..Shown::default() });
            chosen.push((kept.name, vec![kept.id]));
        }
        overview.devices[0].error = Some("nothing <listens> there".to_owned());
        let until = BEGIN + i64::try_from(minutes).unwrap() * 60 * SECOND;
        page(&store, &overview, &chosen, (BEGIN - 3600 * SECOND, until)).unwrap()
    }

    #[test]
    fn a_page_needs_nothing_else_and_shows_names_as_they_are() {
        let page = made(3, 120);
        for never in ["<script", "http:", "https:", "src=", "@import", "<link", "<well>", "<listens>"] {
            let place = page.find(never).map(|at| &page[at.saturating_sub(80)..at + 20]);
            assert!(
                place.is_none_or(|place| never.starts_with("http") && place.contains("www.w3.org")),
                "{never}: {place:?}"
            );
        }
        assert!(page.contains("demo-2 is served &amp; &lt;well&gt;") && page.contains("nothing &lt;listens&gt; there"));
        assert_eq!(page.matches("<svg ").count(), 7 + 3 * 4);
        assert_eq!(page.matches("<details open>").count(), 3);
    }

    #[test]
    fn a_page_about_fifty_devices_is_small_enough_to_be_sent() {
        let page = made(50, 6 * 60);
        assert!(page.len() < 3_000_000, "{}", page.len());
        assert!(page.contains("the other 47") && page.matches("<details>").count() == 1 + 50);
    }
}
