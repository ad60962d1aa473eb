//! How devices did, as a table and as JSON.

use chrono::{DateTime, SecondsFormat, Utc};
use recurve_proto::v1::Histogram;
use recurve_telemetry::histogram::Quantile;
use serde::Serialize;

use super::table;
use crate::history::read::Happened;
use crate::history::summary::{Bounds, Summary, quantile};

/// A device, and what is known of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) device: String,
    pub(crate) summary: Summary,
    /// Records that came now.
    pub(crate) new: u64,
    /// Why not all of its history is here.
    pub(crate) error: Option<String>,
    /// It answered, or was not asked.
    pub(crate) reachable: bool,
}

impl Shown {
    /// It did not answer, and nothing was gathered of it before.
    pub(crate) fn is_nothing(&self) -> bool {
        self.error.is_some() && self.summary.newest.is_none()
    }
}

/// All that is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overview {
    pub(crate) devices: Vec<Shown>,
    pub(crate) fleet: Summary,
    pub(crate) bounds: Bounds,
    /// The newest notable events, the newest first.
    pub(crate) events: Vec<Happened>,
    pub(crate) since: i64,
}

/// A moment as people and programs read it: RFC 3339, to the second.
pub(crate) fn time(nanos: i64) -> String {
    DateTime::<Utc>::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The percentiles of a latency; one in the last bucket, which has no upper bound, is more than its lower one, and one in the
/// first is less than its upper one.
pub(crate) fn percentiles(of: &Histogram, bounds: &[f64], which: &[f64]) -> String {
    let found: Option<Vec<_>> = which.iter().map(|q| quantile(of, bounds, *q).map(|found| signed(&found))).collect();
    let Some(found) = found else { return "-".to_owned() };
    // One unit is written once.
    let units: Vec<&str> = found.iter().map(|(_, value)| unit(*value)).collect();
    let one = units.iter().all(|unit| Some(unit) == units.first());
    let words = found
        .iter()
        .zip(&units)
        .map(|((sign, value), unit)| format!("{sign}{}{}", in_unit(*value), if one { "" } else { unit }));
    let words = words.collect::<Vec<_>>().join("/");
    if one { words + units.first().unwrap_or(&"") } else { words }
}

/// A quantile as it is known.
fn signed(found: &Quantile) -> (&'static str, f64) {
    match found.between {
        (_, upper) if upper.is_infinite() => (">", found.value),
        (0.0, upper) => ("<", upper),
        _ => ("", found.value),
    }
}

fn unit(seconds: f64) -> &'static str {
    if seconds < 0.995 { "ms" } else { "s" }
}

/// A time with two or three digits that count.
fn in_unit(seconds: f64) -> String {
    let value = if unit(seconds) == "ms" { seconds * 1e3 } else { seconds };
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// A number with at most one digit after the point.
fn number(value: f64) -> String {
    if value < 9.95 && value > 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn or_dash<T>(value: Option<T>, words: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), words)
}

/// Cells that a device and its fleet have in common.
pub(crate) fn cells(of: &Summary, bounds: &Bounds) -> Vec<String> {
    vec![
        of.requests.to_string(),
        or_dash(of.error_percent(), number),
        or_dash(of.tokens_per_second, number),
        percentiles(&of.first_token, &bounds.first_token, &[0.5, 0.95, 0.99]),
        percentiles(&of.per_token, &bounds.per_token, &[0.5, 0.95]),
        or_dash(of.hottest, |celsius| format!("{celsius:.0}")),
        or_dash(of.throttled, |seconds| format!("{:.0}", seconds / 60.0)),
        format!("{}/{}", of.warnings, of.failures),
    ]
}

/// The table, what stands below it, and the newest events.
pub(crate) fn text(overview: &Overview) -> String {
    let models: Vec<Option<&str>> = overview.devices.iter().map(|shown| model(&shown.summary)).collect();
    // One model everywhere needs no column.
    let mut known = models.iter().copied().flatten();
    let one = known.next().filter(|first| known.all(|model| model == *first));
    let mut head = vec!["device"];
    head.extend(one.is_none().then_some("model"));
    let fixed = head.len();
    head.extend(["req.", "err %", "tok/s", "first token", "per token", "°C", "thr.", "w/e", "new"]);
    let mut rows = table::with_head(&head);
    let row = |device: &str, model: &str, summary: &Summary, new: u64| {
        let mut row = vec![device.to_owned()];
        row.extend(one.is_none().then(|| model.to_owned()));
        row.extend(cells(summary, &overview.bounds));
        row.push(new.to_string());
        row
    };
    for (shown, model) in overview.devices.iter().zip(&models) {
        rows.add_row(row(&shown.device, model.unwrap_or("-"), &shown.summary, shown.new));
    }
    if overview.devices.len() > 1 {
        let new = overview.devices.iter().map(|shown| shown.new).sum();
        rows.add_row(row(&format!("all {}", overview.devices.len()), "", &overview.fleet, new));
    }
    table::right(&mut rows, &(fixed..head.len()).collect::<Vec<_>>());
    let mut text = rows.trim_fmt();
    text.push_str(&format!("\n since {}", time(overview.since)));
    if let Some(one) = one {
        text.push_str(&format!("; all serve {one}"));
    }
    text.push_str(
        "\n first token: 50/95/99 of 100 requests; per token: 50/95; thr.: minutes throttled; w/e: warnings/errors",
    );
    for shown in &overview.devices {
        let heard = shown.summary.newest.map_or_else(
            || "nothing was gathered of it in this time".to_owned(),
            |newest| format!("what was gathered ends at {}", time(newest)),
        );
        if let Some(error) = &shown.error {
            text.push_str(&format!("\n {}: {error}; {heard}", shown.device));
        } else if shown.summary.newest.is_none() {
            text.push_str(&format!("\n {}: {heard}", shown.device));
        }
    }
    for (place, event) in overview.events.iter().enumerate() {
        let before = if place == 0 { "\n" } else { "" };
        text.push_str(&format!(
            "{before}\n {} {} {} {}: {}",
            time(event.at),
            event.device,
            event.severity,
            event.kind,
            event.message
        ));
    }
    text
}

fn model(summary: &Summary) -> Option<&str> {
    summary.model.as_ref().map(|(model, _)| model.as_str()).filter(|model| !model.is_empty())
}

/// A device, or all of them, in JSON. What nobody measured is null.
#[derive(Debug, Serialize)]
pub(crate) struct Json<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    /// How many devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<usize>,
    since: String,
    newest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<&'a str>,
    requests: u64,
    errors: u64,
    error_percent: Option<f64>,
    tokens_in: f64,
    tokens_out: f64,
    tokens_per_second: Option<f64>,
    time_to_first_token_seconds: Quantiles,
    time_per_output_token_seconds: Quantiles,
    highest_temperature: Option<f64>,
    throttled_seconds: Option<f64>,
    warnings: u64,
    error_events: u64,
    measured_seconds: f64,
    new_records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<bool>,
    error: Option<&'a str>,
    events: Vec<JsonEvent<'a>>,
}

/// Estimates, each with the bucket that the true value lies in; an upper bound of null: there is none.
#[derive(Debug, Serialize)]
struct Quantiles {
    count: u64,
    p50: Option<Estimate>,
    p95: Option<Estimate>,
    p99: Option<Estimate>,
}

#[derive(Debug, Serialize)]
struct Estimate {
    value: f64,
    from: f64,
    to: Option<f64>,
}

#[derive(Debug, Serialize)]
struct JsonEvent<'a> {
    device: &'a str,
    time: String,
    severity: &'a str,
    kind: &'a str,
    message: &'a str,
}

impl Quantiles {
    fn of(histogram: &Histogram, bounds: &[f64]) -> Self {
        let estimate = |q| {
            quantile(histogram, bounds, q).map(|found| Estimate {
                value: found.value,
                from: found.between.0,
                to: Some(found.between.1).filter(|to| to.is_finite()),
            })
        };
        Self {
            count: recurve_telemetry::histogram::count(histogram),
            p50: estimate(0.5),
            p95: estimate(0.95),
            p99: estimate(0.99),
        }
    }
}

/// One object for each device, and one for all of them.
pub(crate) fn json(overview: &Overview) -> Vec<Json<'_>> {
    let of = |summary: &Summary| Json {
        device: None,
        fleet: None,
        since: time(overview.since),
        newest: summary.newest.map(time),
        model: None,
        bundle: None,
        requests: summary.requests,
        errors: summary.errors,
        error_percent: summary.error_percent(),
        tokens_in: summary.tokens_in,
        tokens_out: summary.tokens_out,
        tokens_per_second: summary.tokens_per_second,
        time_to_first_token_seconds: Quantiles::of(&summary.first_token, &overview.bounds.first_token),
        time_per_output_token_seconds: Quantiles::of(&summary.per_token, &overview.bounds.per_token),
        highest_temperature: summary.hottest,
        throttled_seconds: summary.throttled,
        warnings: summary.warnings,
        error_events: summary.failures,
        measured_seconds: summary.seconds,
        new_records: 0,
        reachable: None,
        error: None,
        events: Vec::new(),
    };
    let mut all: Vec<Json<'_>> = overview
        .devices
        .iter()
        .map(|shown| Json {
            device: Some(&shown.device),
            model: shown.summary.model.as_ref().map(|(model, _)| model.as_str()),
            bundle: shown.summary.model.as_ref().map(|(_, bundle)| bundle.as_str()),
            new_records: shown.new,
            reachable: Some(shown.reachable),
            error: shown.error.as_deref(),
            ..of(&shown.summary)
        })
        .collect();
    all.push(Json {
        fleet: Some(overview.devices.len()),
        new_records: overview.devices.iter().map(|shown| shown.new).sum(),
        events: overview
            .events
            .iter()
            .map(|event| JsonEvent {
                device: &event.device,
                time: time(event.at),
                severity: &event.severity,
                kind: &event.kind,
                message: &event.message,
            })
            .collect(),
        ..of(&overview.fleet)
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::histogram_of;
    use recurve_telemetry::catalogue::{self, name};

    #[test]
    fn latencies_have_the_digits_that_count_and_their_unit() {
        let bounds = catalogue::find(name::TIME_TO_FIRST_TOKEN).unwrap().bounds();
        let of =
            |values: &[f64]| percentiles(&histogram_of(name::TIME_TO_FIRST_TOKEN, values), bounds, &[0.5, 0.95, 0.99]);
        assert_eq!(of(&[]), "-");
        assert_eq!(of(&[0.004]), "5.0/5.0/5.0ms");
        assert_eq!(of(&[0.03, 0.03, 2.0]), "40ms/2.5s/2.5s");
        assert_eq!(of(&[15.0, 1000.0]), "20/>320/>320s");
    }

    fn shown(device: &str, model: Option<&str>) -> Shown {
        let summary = Summary {
            model: model.map(|model| (model.to_owned(), "sha256:1234567890".to_owned())),
            requests: 48_211,
            errors: 97,
            tokens_per_second: Some(163.0),
            first_token: histogram_of(name::TIME_TO_FIRST_TOKEN, &[0.3, 0.9, 1.4]),
            per_token: histogram_of(name::TIME_PER_OUTPUT_TOKEN, &[0.03, 0.06]),
            hottest: Some(84.2),
            throttled: Some(754.0),
            newest: Some(1),
            ..Summary::default()
        };
        Shown { device: device.to_owned(), summary, new: 1440, error: None, reachable: true }
    }

    #[test]
    fn a_row_fits_into_eighty_characters_where_all_serve_the_same() {
        let bound = |metric| catalogue::find(metric).unwrap().bounds().to_vec();
        let bounds =
            Bounds { first_token: bound(name::TIME_TO_FIRST_TOKEN), per_token: bound(name::TIME_PER_OUTPUT_TOKEN) };
        let mut away = Shown { error: Some("nothing listens there".to_owned()), ..Shown::default() };
        away.device = "gw-03".to_owned();
        let devices = vec![shown("gw-01", Some("demo")), shown("gw-02", Some("demo")), away];
        let overview = Overview { devices, bounds, ..Overview::default() };
        let told = text(&overview);
        assert!(told.lines().take(5).all(|line| line.chars().count() <= 80), "{told}");
        assert!(
            told.contains("all serve demo") && told.contains("gw-03: nothing listens there; nothing was"),
            "{told}"
        );
        let mut overview = overview;
        overview.devices[0] = shown("gw-01", Some("other"));
        assert!(text(&overview).lines().nth(1).unwrap().contains("other"));
    }
}
