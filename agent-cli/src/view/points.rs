//! What was gathered, value by value, for spreadsheets and programs.

use std::io::{self, Write};

use crate::exit::Failure;
use crate::history::Store;

/// The columns. A gauge has its last value, with min, max and mean where it had several; a counter what it grew by; a
/// histogram count, sum, and the counts of its buckets.
const COLUMNS: [&str; 13] = [
    "device",
    "time",
    "seconds",
    "metric",
    "unit",
    "attributes",
    "value",
    "min",
    "max",
    "mean",
    "count",
    "sum",
    "counts",
];

/// Writes every value of these histories that ended after `since`.
pub(crate) fn write(store: &Store, histories: &[i64], since: i64, out: impl Write) -> Result<(), Failure> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS).map_err(failed)?;
    for history in histories {
        store.raw(*history, since, |values| csv.write_record(values).map_err(failed))?;
    }
    csv.flush().map_err(|error| crate::output::failed(&error))
}

fn failed(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => crate::output::failed(&error),
        other => crate::output::failed(&io::Error::other(format!("{other:?}"))),
    }
}
