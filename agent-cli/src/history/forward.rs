//! Samples as the devices sent them, for a collector, and how far each collector is.

use std::collections::BTreeMap;

use recurve_proto::v1::series::Value as Of;
use recurve_proto::v1::{Gauge, Histogram, Life, Sample, Series};
use recurve_telemetry::otlp;
use recurve_telemetry::wire::metrics::v1::ResourceMetrics;
use rusqlite::{OptionalExtension as _, params};

use super::read::{Attributes, Kept, parsed};
use super::{Store, timestamp};
use crate::client::collector::Collector;
use crate::exit::Failure;

/// Samples that are read at once.
const PAGE: i64 = 64;

/// A sample, and the number that it has in its history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) sequence: i64,
    /// The first of the records that it stands for.
    pub(crate) first: i64,
    pub(crate) sample: Sample,
}

/// What a collector got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Samples.
    sent: u64,
    /// Those that stand for some that it had before.
    left_out: u64,
    /// Points that it took and rejected, and why.
    rejected: u64,
    words: String,
}

impl Told {
    /// For people.
    pub(crate) fn words(&self, endpoint: &str) -> String {
        let mut words = format!("{endpoint} took {} samples", self.sent);
        if self.rejected > 0 {
            words.push_str(&format!(" and rejected {} points of them: {}", self.rejected, self.words));
        }
        if self.left_out > 0 {
            words.push_str(&format!("; {} hours were left out, since it has had some of their minutes", self.left_out));
        }
        words
    }
}

/// Sends a collector what it has not had yet of a history, page by page; after each page it is remembered how far it is.
pub(crate) async fn send(
    store: &Store,
    history: &Kept,
    collector: &mut Collector,
    told: &mut Told,
) -> Result<(), Failure> {
    let mut after = store.forwarded(collector.endpoint(), history.id)?;
    loop {
        let samples = store.samples(history, after)?;
        let Some(last) = samples.last().map(|numbered| numbered.sequence) else { return Ok(()) };
        // A minute that was sent is not sent again as part of its hour.
        let (fresh, had): (Vec<_>, Vec<_>) = samples.into_iter().partition(|numbered| numbered.first > after);
        let metrics: Vec<_> = fresh.iter().map(|numbered| of_device(&numbered.sample, history)).collect();
        if !metrics.is_empty() {
            let rejected = collector.export(metrics).await?;
            told.sent += u64::try_from(fresh.len()).unwrap_or(0);
            if let Some(rejected) = rejected {
                told.rejected += rejected.points;
                told.words = rejected.words;
            }
        }
        told.left_out += u64::try_from(had.len()).unwrap_or(0);
        store.took(collector.endpoint(), history.id, last)?;
        after = last;
    }
}

/// A sample as OTLP, with what tells its device from others.
fn of_device(sample: &Sample, history: &Kept) -> ResourceMetrics {
    let instance = sample.life.as_ref().map(|life| life.instance.clone()).unwrap_or_default();
    let resource = [("service.name", "recurved"), ("service.instance.id", &instance), ("host.name", &history.name)];
    otlp::metrics(sample, &resource.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
}

impl Store {
    /// The last sample of a history that an endpoint took; 0 where it took none.
    pub(crate) fn forwarded(&self, endpoint: &str, history: i64) -> Result<i64, Failure> {
        let found = self
            .db
            .query_row(
                "SELECT sequence FROM forwarded WHERE endpoint = ? AND device = ?",
                params![endpoint, history],
                |row| row.get(0),
            )
            .optional();
        Ok(self.done(found)?.unwrap_or(0))
    }

    /// An endpoint took the samples of a history up to this one.
    pub(crate) fn took(&self, endpoint: &str, history: i64, sequence: i64) -> Result<(), Failure> {
        let done = self.db.execute(
            "INSERT INTO forwarded (endpoint, device, sequence) VALUES (?1, ?2, ?3) \
             ON CONFLICT (endpoint, device) DO UPDATE SET sequence = max(sequence, excluded.sequence)",
            params![endpoint, history, sequence],
        );
        self.done(done).map(drop)
    }

    /// The next samples of a history after this one.
    pub(crate) fn samples(&self, history: &Kept, after: i64) -> Result<Vec<Numbered>, Failure> {
        self.done(self.read_samples(history.id, after))
    }

    fn read_samples(&self, history: i64, after: i64) -> rusqlite::Result<Vec<Numbered>> {
        let mut found: BTreeMap<i64, Numbered> = self
            .rows(
                "SELECT id, sequence, first, begin, seconds, boot, instance, since_boot FROM sample \
                 WHERE device = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                &[&history, &after, &PAGE],
                |row| {
                    let length = |seconds: f64| std::time::Duration::try_from_secs_f64(seconds).ok()?.try_into().ok();
                    let sample = Sample {
                        begin: Some(timestamp(row.get(3)?)),
                        length: length(row.get(4)?),
                        life: Some(Life { boot: row.get(5)?, instance: row.get(6)?, since_boot: length(row.get(7)?) }),
                        series: Vec::new(),
                    };
                    Ok((row.get(0)?, Numbered { sequence: row.get(1)?, first: row.get(2)?, sample }))
                },
            )?
            .into_iter()
            .collect();
        let (Some(low), Some(high)) = (found.keys().next().copied(), found.keys().next_back().copied()) else {
            return Ok(Vec::new());
        };
        let series: Vec<(i64, String, Attributes)> = self.rows(
            "SELECT series.id, metric.name, attributes FROM series JOIN metric ON metric.id = series.metric \
             WHERE device = ? ORDER BY metric.name, attributes",
            &[&history],
            |row| Ok((row.get(0)?, row.get(1)?, parsed(row, 2)?)),
        )?;
        for (id, metric, attributes) in series {
            let mut add = |sample: i64, value: Of| {
                if let Some(found) = found.get_mut(&sample) {
                    let (metric, attributes) = (metric.clone(), attributes.clone());
                    found.sample.series.push(Series { metric, attributes, value: Some(value) });
                }
            };
            let sql =
                "SELECT sample, last, min, max, mean, delta FROM value WHERE series = ? AND sample BETWEEN ? AND ?";
            for (sample, value) in self.rows(sql, &[&id, &low, &high], |row| {
                let value = match row.get(5)? {
                    Some(delta) => Of::Counter(delta),
                    None => Of::Gauge(Gauge {
                        last: row.get::<_, Option<f32>>(1)?.unwrap_or(f32::NAN),
                        min: row.get(2)?,
                        max: row.get(3)?,
                        mean: row.get(4)?,
                    }),
                };
                Ok((row.get(0)?, value))
            })? {
                add(sample, value);
            }
            let sql = "SELECT sample, counts, sum FROM histogram_value WHERE series = ? AND sample BETWEEN ? AND ?";
            for (sample, counts, sum) in
                self.rows(sql, &[&id, &low, &high], |row| Ok((row.get(0)?, parsed(row, 1)?, row.get(2)?)))?
            {
                add(sample, Of::Histogram(Histogram { counts, sum }));
            }
        }
        let mut samples: Vec<Numbered> = found.into_values().collect();
        samples.sort_by_key(|numbered| numbered.sequence);
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{self, answer, hour, minute};
    use recurve_proto::v1::telemetry_record::Content;

    #[test]
    fn samples_come_back_as_the_device_sent_them() {
        let (_folder, mut store) = made::store();
        let records = [minute(1), minute(2), hour(3, 70)];
        store.keep("gw-1", "a", 0, &answer("a", &records)).unwrap();
        let kept = store.histories().unwrap().remove(0);
        let samples = store.samples(&kept, 1).unwrap();
        assert_eq!(
            samples.iter().map(|numbered| (numbered.first, numbered.sequence)).collect::<Vec<_>>(),
            [(2, 2), (3, 70)]
        );
        for (numbered, record) in samples.iter().zip(&records[1..]) {
            let Some(Content::Sample(sent)) = &record.content else { panic!() };
            let sorted = |sample: &Sample| {
                let mut series = sample.series.clone();
                series.sort_by(|a, b| (&a.metric, &a.attributes).cmp(&(&b.metric, &b.attributes)));
                (sample.begin, sample.length, series)
            };
            assert_eq!(sorted(&numbered.sample), sorted(sent));
        }
        let metrics = of_device(&samples[0].sample, &kept);
        let names: Vec<_> = metrics.resource.unwrap().attributes.into_iter().map(|attribute| attribute.key).collect();
        assert_eq!(names, ["host.name", "service.instance.id", "service.name"]);
    }

    #[test]
    fn each_endpoint_stands_where_it_is() {
        let (_folder, mut store) = made::store();
        store.keep("gw-1", "a", 0, &answer("a", &[minute(1)])).unwrap();
        let id = store.histories().unwrap()[0].id;
        store.took("http://a:4317", id, 7).unwrap();
        store.took("http://a:4317", id, 5).unwrap();
        assert_eq!(
            (store.forwarded("http://a:4317", id).unwrap(), store.forwarded("http://b:4317", id).unwrap()),
            (7, 0)
        );
    }
}
