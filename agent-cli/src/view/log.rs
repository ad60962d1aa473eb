//! Log lines of a daemon, for people and for programs.

use chrono::{DateTime, Local};
use console::Style;
use recurve_proto::v1::{LogLevel, LogLine};
use serde::Serialize;

use crate::output::printable;

/// The moment of a line, by the device's clock.
fn moment(line: &LogLine) -> Option<DateTime<Local>> {
    let at = line.at?;
    let utc = DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).unwrap_or(0))?;
    Some(utc.with_timezone(&Local))
}

/// The name of a level.
pub(crate) fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "ERROR",
        LogLevel::Warn => "WARN",
        LogLevel::Info => "INFO",
        LogLevel::Debug => "DEBUG",
        LogLevel::Trace => "TRACE",
        LogLevel::Unspecified => "?",
    }
}

/// The line as people read it, safe for a terminal. `time`: how to write its moment, in strftime's words.
pub(crate) fn shown(line: &LogLine, time: &str, colour: bool) -> String {
    let time = moment(line).map_or_else(|| "?".to_owned(), |at| at.format(time).to_string());
    let style = match line.level() {
        LogLevel::Error => Style::new().red().bold(),
        LogLevel::Warn => Style::new().yellow(),
        LogLevel::Info => Style::new().green(),
        LogLevel::Debug | LogLevel::Trace | LogLevel::Unspecified => Style::new().dim(),
    };
    let level = style.force_styling(colour).apply_to(format!("{:5}", level(line.level())));
    let fields: String = line.fields.iter().map(|(key, value)| format!(" {key}={}", quoted(value))).collect();
    let text = format!("{}: {}{fields}", line.target, line.message);
    format!("{time} {level} {}", printable(&text))
}

/// A value, in quotes where its end could not be seen without.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c.is_control());
    if plain { value.to_owned() } else { format!("{value:?}") }
}

/// The line for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    device: &'a str,
    number: u64,
    /// RFC 3339, by the device's clock; null where it told none.
    at: Option<String>,
    level: &'static str,
    target: &'a str,
    message: &'a str,
    fields: &'a std::collections::BTreeMap<String, String>,
}

impl<'a> Line<'a> {
    /// A line of this device.
    pub(crate) fn of(device: &'a str, line: &'a LogLine) -> Self {
        Self {
            device,
            number: line.number,
            at: moment(line).map(|at| at.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)),
            level: level(line.level()),
            target: &line.target,
            message: &line.message,
            fields: &line.fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLine {
        LogLine {
            number: 7,
            at: Some(prost_types::Timestamp { seconds: 1_764_077_401, nanos: 123_000_000 }),
            level: LogLevel::Warn.into(),
            target: "recurved::engine".to_owned(),
            message: "slow \x1b[2Jstep".to_owned(),
            fields: [("ms", "12"), ("why", "no memory"), ("empty", "")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn a_line_reads_from_its_time_to_its_fields() {
        let text = shown(&line(), "%S%.3f", false);
        assert_eq!(text, "01.123 WARN  recurved::engine: slow \u{fffd}[2Jstep empty=\"\" ms=12 why=\"no memory\"");
        assert!(shown(&line(), "%S", true).contains("\x1b[33mWARN \x1b[0m"));
    }

    #[test]
    fn programs_get_the_moment_in_utc() {
        let json = serde_json::to_value(Line::of("gw-1", &line())).unwrap();
        assert_eq!(json["at"], "2025-11-25T13:30:01.123000Z");
        assert_eq!((&json["device"], &json["fields"]["ms"]), (&"gw-1".into(), &"12".into()));
    }
}
