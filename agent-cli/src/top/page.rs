//! The page of one device: all its figures, how they were lately, and what it logged.

use std::time::Duration;

use indicatif::HumanBytes;
use ratatui::style::{Color, Modifier, Style};
use recurve_proto::v1::WatchNodeResponse;
use recurve_telemetry::histogram;

use super::device::{Device, Link, Row};
use super::draw::{Canvas, Light};
use super::rates::{Bar, each_token, first_token};
use super::words;
use crate::view::log;

/// Where figures stand.
const FIGURES: usize = 14;
/// Most bars of a sparkline.
const BARS: usize = 100;
/// From nothing to the most.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws it.
pub(super) fn draw(device: &Device, row: &Row, light: &Light, canvas: &mut Canvas<'_>) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    canvas.write(0, 0, &device.name, bold);
    let state = words::width(&device.name) + 2;
    canvas.write(0, state, row.state.word(), bold.patch(canvas.of_state(row.state)));
    let mut lines = about(device, row);
    if device.told.is_some() {
        let room = usize::from(canvas.area.width).saturating_sub(FIGURES + 22);
        lines.extend(sparks(&device.rates.bars(room.clamp(1, BARS))));
    }
    let mut line = 1;
    for (title, text) in &lines {
        canvas.write(line, 0, title, Style::new());
        let style = if *title == "alarms" { canvas.coloured(Color::Yellow) } else { Style::new() };
        canvas.write(line, FIGURES, text, style);
        line += 1;
    }
    if let Link::Away { since, clock, why, .. } = &device.link {
        let lasting = words::lasting(light.now.saturating_sub(*since));
        let style = canvas.coloured(Color::Red);
        canvas.write(line, 0, &format!("since {clock} ({lasting}): {why}"), style);
        line += 1;
    }
    logged(device, line, canvas);
    let last = usize::from(canvas.area.height.saturating_sub(1));
    canvas.write(last, 0, "Esc back  up down another device  space stand still  q quit", Style::new());
}

fn about(device: &Device, row: &Row) -> Vec<(&'static str, String)> {
    let mut lines = vec![("address", device.address.clone())];
    let Some(told) = &device.told else { return lines };
    let node = told.state.clone().unwrap_or_default();
    let uptime = node.uptime.and_then(|uptime| Duration::try_from(uptime).ok()).unwrap_or_default();
    lines.push(("recurved", format!("{}, up for {}", node.version, words::lasting(uptime))));
    let model = if told.model.is_empty() { "none" } else { &told.model };
    let kernels = if told.kernels.is_empty() { String::new() } else { format!(", kernels {}", told.kernels) };
    let left = node.probation.and_then(|left| Duration::try_from(left).ok());
    let probation = left.map(|left| format!(", on probation for {}", words::lasting(left))).unwrap_or_default();
    lines.push(("model", format!("{model}{kernels}{probation}")));
    lines.push(("tokens/s", format!("{} made, {} read", words::number(row.made), words::number(row.read))));
    lines.push((
        "first token",
        quantiles(|q| words::first_token(first_token(&row.first, q)), histogram::count(&row.first)),
    ));
    lines.push(("per token", quantiles(|q| words::each_token(each_token(&row.each, q)), histogram::count(&row.each))));
    lines.push(("work", work(told)));
    lines.push(("since start", {
        let number = |value: u64| words::number(Some(value as f64));
        let (made, read) = (number(told.tokens_out), number(told.tokens_in));
        format!("{} requests, {} failed, {made} tokens made, {read} read", told.requests, told.errors)
    }));
    let memory = format!("{} of {}", HumanBytes(told.memory_used), HumanBytes(told.memory));
    let own = HumanBytes(told.process_memory);
    lines.push(("machine", format!("cpu {}, memory {memory}, recurved {own}", words::percent(row.cpu))));
    let sensors = told.temperatures.iter().map(|it| format!("{} {:.1}°", it.sensor, it.celsius));
    let sensors: Vec<String> = sensors.collect();
    lines.push(("temperatures", if sensors.is_empty() { "no sensor".to_owned() } else { sensors.join(", ") }));
    lines.push(("alarms", if row.alarms.is_empty() { "none".to_owned() } else { row.alarms.join(", ") }));
    lines
}

fn quantiles(at: impl Fn(f64) -> String, count: u64) -> String {
    format!("p50 {}, p95 {}, p99 {} of {count} in 5 minutes", at(0.5), at(0.95), at(0.99))
}

fn work(told: &WatchNodeResponse) -> String {
    let WatchNodeResponse { active_rows, rows, waiting, queue, prefill_backlog, .. } = told;
    format!("rows {active_rows}/{rows}, queue {waiting}/{queue}, {prefill_backlog} tokens of prompts to read")
}

/// The last minutes as bars, and how much the highest one stands for.
fn sparks(bars: &[Bar]) -> [(&'static str, String); 2] {
    let made = bars.iter().map(|bar| bar.tokens).collect::<Vec<_>>();
    let first = bars.iter().map(|bar| bar.first).collect::<Vec<_>>();
    let most = |values: &[Option<f64>]| values.iter().flatten().copied().max_by(f64::total_cmp);
    let (tokens, times) = (words::number(most(&made)), words::time(most(&first)));
    [
        ("5 minutes", format!("{} {tokens} tok/s at most", spark(&made))),
        ("", format!("{} {times} ttft at most", spark(&first))),
    ]
}

/// A bar for each value.
fn spark(values: &[Option<f64>]) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let level = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if most <= 0.0 || *value <= 0.0 => LEVELS[1],
        // Never below what nothing looks like, never above the highest.
        Some(value) => (1..=8)
            .rev()
            .find(|level| *value >= most * (f64::from(*level) - 0.5) / 8.0)
            .map_or(LEVELS[1], |level| LEVELS.get(usize::try_from(level).unwrap_or(1)).copied().unwrap_or('█')),
    };
    values.iter().map(level).collect()
}

fn logged(device: &Device, first: usize, canvas: &mut Canvas<'_>) {
    let last = usize::from(canvas.area.height.saturating_sub(1));
    let room = last.saturating_sub(first + 1);
    if room == 0 {
        return;
    }
    canvas.write(first, 0, "log, warnings and errors", Style::new().add_modifier(Modifier::BOLD));
    if !device.no_lines.is_empty() {
        canvas.write(first + 1, 0, &format!("cannot be read: {}", device.no_lines), Style::new());
        return;
    }
    if device.lines.is_empty() {
        canvas.write(first + 1, 0, "nothing", Style::new());
    }
    let newest = device.lines.len().saturating_sub(room);
    for (line, entry) in device.lines.iter().skip(newest).enumerate() {
        canvas.write(first + 1 + line, 0, &log::shown(entry, "%H:%M:%S", false).replace('\n', " "), Style::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(spark(&[None, Some(0.0), Some(1.0), Some(4.0), Some(8.0)]), " ▁▁▄█");
        assert_eq!(spark(&[Some(0.0), None]), "▁ ");
        assert_eq!(spark(&[]), "");
    }
}
