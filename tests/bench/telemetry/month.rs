//! A month of one device: what it takes on the disk, and how long a question to all of it takes.

use std::time::{Instant, SystemTime};

use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Histogram, series::Value};
use recurve_telemetry::catalogue::{find, name};
use recurve_telemetry::histogram;

use super::minutes::Minutes;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// Records that are read at once, as the daemon does.
const BATCH: usize = 256;

/// Minutes of so many days, and the question how long the first token took in each hour.
pub(super) fn measure(bench: &Bench, _: &Subject) -> Result<Table, Failure> {
    let dir = tempfile::tempdir()?;
    let minutes = bench.effort.days * 24 * 60;
    let history = Minutes::new()?.history(dir.path(), minutes, SystemTime::now())?;
    let asked_for = [name::TIME_TO_FIRST_TOKEN.to_owned()];
    let mut asked = Samples::default();
    let mut hours = 0;
    for _ in 0..=bench.effort.starts {
        let begun = Instant::now();
        let (mut after, mut sums): (u64, Vec<Histogram>) = (0, Vec::new());
        while let Some((records, last)) = history.read(after, None, &asked_for, BATCH)? {
            after = last;
            for record in records {
                let Some(Content::Sample(sample)) = record.content else { continue };
                sums.resize_with((record.sequence / 60) as usize + 1, Histogram::default);
                let Some(sum) = sums.last_mut() else { continue };
                for series in sample.series.iter().filter(|series| series.metric == name::TIME_TO_FIRST_TOKEN) {
                    if let Some(Value::Histogram(more)) = &series.value {
                        histogram::add(sum, more);
                    }
                }
            }
        }
        let bounds = find(name::TIME_TO_FIRST_TOKEN).map(|metric| metric.bounds()).unwrap_or_default();
        hours = sums.iter().filter_map(|sum| histogram::quantile(sum, bounds, 0.95)).count();
        asked.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    history.close()?;
    drop(history);
    let bytes: u64 =
        std::fs::read_dir(dir.path())?.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum();
    let mut table = Table::new(format!("{} days of one device, a record a minute", bench.effort.days))
        .note("The question: the 95th percentile of the time to the first token in each hour, from the records of all minutes.");
    table.push(
        Line::new()
            .of("records", minutes)
            .of("hours answered", hours)
            .single("on the disk", Unit::Megabytes, bytes as f64 / 1e6)
            .single("each record", Unit::Bytes, bytes as f64 / minutes as f64)
            .figure("a question to all of it", Unit::Milliseconds, &asked),
    );
    Ok(table)
}
