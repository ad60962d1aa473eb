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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{answer, minute, store};

    #[test]
    fn names_with_commas_and_quotes_come_back_as_they_are() {
        let (_folder, mut store) = store();
        store.keep("press, \"north\"\nline", "a", 0, &answer("a", &[minute(1)])).unwrap();
        let id = store.histories().unwrap()[0].id;
        let mut out = Vec::new();
        write(&store, &[id], 0, &mut out).unwrap();
        let mut csv = csv::Reader::from_reader(out.as_slice());
        let head = csv.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        let of = |row: usize, name: &str| rows[row][head.iter().position(|column| column == name).unwrap()].to_owned();
        let row = rows.iter().position(|row| row.iter().any(|cell| cell == "hw.temperature")).unwrap();
        assert_eq!(of(row, "device"), "press, \"north\"\nline");
        assert_eq!((of(row, "time").as_str(), of(row, "value").as_str()), ("2026-03-01T00:01:00.000Z", "45.3"));
        assert_eq!((of(row, "attributes").as_str(), of(row, "seconds").as_str()), ("{\"hw.id\":\"cpu\"}", "60"));
        assert_eq!(of(2, "count"), "3");
    }
}
