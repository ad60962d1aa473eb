//! The same figures once, for who has no terminal.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::device::{Device, Link, News, Row, State};
use super::rates::WINDOW;
use super::sort::{COLUMNS, Column};
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;
use crate::view::table;

/// How long a device may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks all devices twice, `every` apart, and prints what they are like.
pub(crate) async fn run(
    devices: Vec<(String, Address)>,
    every: Duration,
    format: Format,
    one: bool,
) -> Result<(), Failure> {
    let answers = ask_all(devices, move |address: Address| async move {
        let all = tokio::time::timeout(every + PATIENCE * 2, ask(&address, every)).await;
        let silent = || Trouble::lost(&address.target, format!("it gave no answer for {:?}", every + PATIENCE * 2));
        all.unwrap_or_else(|_| Err(silent()))
    })
    .await;
    let (count, mut silent, mut rows) = (answers.len(), Vec::new(), Vec::new());
    for (place, (name, answer)) in answers.into_iter().enumerate() {
        let mut device = match answer {
            Ok(device) => device,
            Err(trouble) => {
                let (why, refuses) = (trouble.words.clone(), !trouble.lost);
                silent.push(trouble.failure);
                let link = Link::Away { since: Duration::ZERO, clock: String::new(), why, refuses };
                Device { link, ..Device::default() }
            }
        };
        device.name = name;
        rows.push((device.row(place, true), device));
    }
    // That the only one does not answer is said once, as the command's failure.
    match (silent.pop(), one) {
        (Some(failure), true) => Err(failure),
        (None, _) => print(&rows, format),
        (Some(_), false) => {
            print(&rows, format)?;
            Err(Failure::Partly(format!("{} of {count} devices did not answer", silent.len() + 1)))
        }
    }
}

async fn ask(address: &Address, every: Duration) -> Result<Device, Trouble> {
    let mut node = Node::at(address, PATIENCE).await?;
    let mut stream = node.watch(every).await?;
    let (mut device, start) = (Device::default(), Instant::now());
    for _ in 0..2 {
        let Some(told) = stream.next_within(every * 3 + PATIENCE).await? else { break };
        device.take(WINDOW + start.elapsed(), News::Told(Box::new(told)));
    }
    if device.told.is_none() {
        return Err(Trouble::lost(&address.target, "it ended the connection".to_owned()));
    }
    Ok(device)
}

fn print(rows: &[(Row, Device)], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return rows.iter().try_for_each(|(row, device)| output::json(&Shown::of(row, device)));
    }
    output::line(&text(rows))
}

fn text(rows: &[(Row, Device)]) -> String {
    let head: Vec<&str> = COLUMNS.iter().map(|about| about.title).collect();
    let mut shown = table::with_head(&head);
    for (row, _) in rows {
        shown.add_row(COLUMNS.iter().map(|about| match (about.column, &row.why) {
            (Column::Alarms, Some((_, why))) => why.clone(),
            (column, _) => column.cell(row),
        }));
    }
    let numbers: Vec<usize> = (0..COLUMNS.len()).filter(|place| COLUMNS[*place].column.is_number()).collect();
    table::right(&mut shown, &numbers);
    shown.trim_fmt()
}

/// A device, for programs. Times are those since its daemon started.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    device: &'a str,
    state: State,
    model: Option<&'a str>,
    tokens_per_second: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    time_to_first_token_p50_ms: Option<f64>,
    time_to_first_token_p95_ms: Option<f64>,
    time_per_output_token_p50_ms: Option<f64>,
    waiting: Option<u32>,
    queue: Option<u32>,
    active_rows: Option<u32>,
    rows: Option<u32>,
    requests: Option<u64>,
    errors: Option<u64>,
    /// Of the hottest sensor, in degrees Celsius.
    temperature: Option<f64>,
    /// 0 to 1.
    cpu: Option<f64>,
    memory: Option<f64>,
    alarms: &'a [String],
    /// Why it did not answer.
    error: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(row: &'a Row, device: &'a Device) -> Self {
        let ms = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e3);
        Self {
            device: &row.name,
            state: row.state,
            model: Some(row.model.as_str()).filter(|model| !model.is_empty()),
            tokens_per_second: row.made,
            prompt_tokens_per_second: row.read,
            time_to_first_token_p50_ms: ms(row.first_p50),
            time_to_first_token_p95_ms: ms(row.first_p95),
            time_per_output_token_p50_ms: ms(row.each_p50),
            waiting: row.queue.map(|(waiting, _)| waiting),
            queue: row.queue.map(|(_, queue)| queue),
            active_rows: row.rows.map(|(active, _)| active),
            rows: row.rows.map(|(_, rows)| rows),
            requests: device.told.as_ref().map(|told| told.requests),
            errors: device.told.as_ref().map(|told| told.errors),
            temperature: row.celsius,
            cpu: row.cpu,
            memory: row.memory,
            alarms: &row.alarms,
            error: row.why.as_ref().map(|(_, why)| why.as_str()),
        }
    }
}
