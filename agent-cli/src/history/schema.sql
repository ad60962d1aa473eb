-- Times are nanoseconds since 1970-01-01 UTC by the device's clock; the views give them as text.

CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    store TEXT NOT NULL UNIQUE,   -- identifies the history; a device whose disk was replaced begins another
    name TEXT NOT NULL            -- as the inventory calls the device, or its address
);
CREATE INDEX device_by_name ON device (name);

CREATE TABLE cursor (
    device INTEGER PRIMARY KEY REFERENCES device (id),
    sequence INTEGER NOT NULL,    -- the last record that was gathered
    since INTEGER NOT NULL,       -- records that ended before this time were not asked for
    gathered INTEGER NOT NULL     -- when, by the clock of the machine that gathers
);

CREATE TABLE metric (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL,           -- UCUM
    kind TEXT NOT NULL,           -- gauge, counter, histogram
    description TEXT NOT NULL,
    bounds TEXT NOT NULL          -- JSON: of a histogram, the upper bounds of all buckets but the last
);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    metric INTEGER NOT NULL REFERENCES metric (id),
    attributes TEXT NOT NULL,     -- JSON, keys in order
    UNIQUE (device, metric, attributes)
);

CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device (id),
    sequence INTEGER NOT NULL,    -- an hour has that of its last minute
    first INTEGER NOT NULL,       -- the first record that it stands for
    begin INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    seconds REAL NOT NULL,        -- its length, by a clock that does not jump
    boot TEXT NOT NULL,           -- the kernel's boot id
    instance TEXT NOT NULL,       -- the daemon's life
    since_boot REAL NOT NULL,     -- seconds since the machine started, at the end
    UNIQUE (device, sequence)
);
CREATE INDEX sample_by_time ON sample (device, ended);

CREATE TABLE value (
    series INTEGER NOT NULL REFERENCES series (id),
    sample INTEGER NOT NULL REFERENCES sample (id),
    last REAL,                    -- of a gauge; min, max and mean where it had more than one value
    min REAL,
    max REAL,
    mean REAL,
    delta REAL,                   -- of a counter: what it grew by
    PRIMARY KEY (series, sample)
) WITHOUT ROWID;

CREATE TABLE histogram_value (
    series INTEGER NOT NULL REFERENCES series (id),
    sample INTEGER NOT NULL REFERENCES sample (id),
    counts TEXT NOT NULL,         -- JSON: values in each bucket, zeros at the end left out
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    PRIMARY KEY (series, sample)
) WITHOUT ROWID;

CREATE TABLE event (
    device INTEGER NOT NULL REFERENCES device (id),
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    boot TEXT NOT NULL,
    instance TEXT NOT NULL,
    since_boot REAL NOT NULL,
    kind TEXT NOT NULL,           -- such as model.activated
    severity TEXT NOT NULL,       -- info, warning, error
    message TEXT NOT NULL,
    attributes TEXT NOT NULL,     -- JSON
    PRIMARY KEY (device, sequence)
);
CREATE INDEX event_by_time ON event (device, at);

CREATE TABLE forwarded (
    endpoint TEXT NOT NULL,
    device INTEGER NOT NULL REFERENCES device (id),
    sequence INTEGER NOT NULL,    -- the last sample that the endpoint took
    PRIMARY KEY (endpoint, device)
) WITHOUT ROWID;

CREATE VIEW points AS
SELECT device.name AS device,
       strftime('%Y-%m-%dT%H:%M:%fZ', sample.ended / 1e9, 'unixepoch') AS time,
       sample.seconds AS seconds, metric.name AS metric, metric.unit AS unit, metric.kind AS kind,
       series.attributes AS attributes, coalesce(value.last, value.delta) AS value,
       value.min AS min, value.max AS max, value.mean AS mean
FROM value
JOIN series ON series.id = value.series
JOIN metric ON metric.id = series.metric
JOIN sample ON sample.id = value.sample
JOIN device ON device.id = series.device;

CREATE VIEW histograms AS
SELECT device.name AS device,
       strftime('%Y-%m-%dT%H:%M:%fZ', sample.ended / 1e9, 'unixepoch') AS time,
       sample.seconds AS seconds, metric.name AS metric, metric.unit AS unit, series.attributes AS attributes,
       histogram_value.count AS count, histogram_value.sum AS sum,
       histogram_value.counts AS counts, metric.bounds AS bounds
FROM histogram_value
JOIN series ON series.id = histogram_value.series
JOIN metric ON metric.id = series.metric
JOIN sample ON sample.id = histogram_value.sample
JOIN device ON device.id = series.device;

CREATE VIEW events AS
SELECT device.name AS device, strftime('%Y-%m-%dT%H:%M:%fZ', event.at / 1e9, 'unixepoch') AS time,
       event.severity AS severity, event.kind AS kind, event.message AS message, event.attributes AS attributes
FROM event
JOIN device ON device.id = event.device;
