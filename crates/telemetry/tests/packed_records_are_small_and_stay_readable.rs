//! Records on a disk: what a busy minute takes, and that what was written is read by every later version.

use std::collections::BTreeMap;

use prost::Message as _;
use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Gauge, Histogram, Life, NodeEvent, Sample, Series, TelemetryRecord, series::Value};
use recurve_telemetry::catalogue::{Kind, METRICS, Metric};
use recurve_telemetry::packed::{pack, unpack, unpack_only};

/// 30 days of minutes in 50 MB, with what the database needs beside them.
const MOST: usize = 1_050;

/// Numbers without a pattern, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// What the attributes of a metric are on a board with a few sensors, one model, two interfaces and calls of a few methods.
fn attribute_sets(metric: &Metric) -> Vec<Vec<(&'static str, &'static str)>> {
    let gen_ai = |operation| {
        vec![
            ("gen_ai.operation.name", operation),
            ("gen_ai.provider.name", "recurve"),
            ("gen_ai.request.model", "demo-model"),
            ("gen_ai.response.model", "demo-model"),
            ("server.address", "gateway"),
            ("server.port", "50051"),
        ]
    };
    let each = |key, values: &[&'static str]| values.iter().map(|value| vec![(key, *value)]).collect();
    let call = |method| vec![("rpc.method", method), ("rpc.response.status_code", "OK"), ("rpc.system.name", "grpc")];
    match metric.name {
        "gen_ai.server.request.duration" => {
            let mut failed = gen_ai("chat");
            failed.push(("error.type", "RESOURCE_EXHAUSTED"));
            vec![gen_ai("chat"), gen_ai("text_completion"), failed]
        }
        name if name.starts_with("gen_ai.") => vec![gen_ai("chat"), gen_ai("text_completion")],
        "rpc.server.call.duration" => vec![
            call("recurve.v1.Inference/Generate"),
            call("grpc.health.v1.Health/Check"),
            call("recurve.v1.Node/Telemetry"),
            call("recurve.v1.Models/List"),
        ],
        "system.cpu.utilization" => {
            each("cpu.mode", &["user", "nice", "system", "idle", "iowait", "interrupt", "steal"])
        }
        "process.cpu.time" => each("cpu.mode", &["user", "system"]),
        "system.memory.usage" => each("system.memory.state", &["used", "free", "buffers", "cached"]),
        "system.filesystem.usage" => ["used", "free", "reserved"]
            .map(|state| {
                vec![
                    ("system.filesystem.mountpoint", "/"),
                    ("system.filesystem.state", state),
                    ("system.filesystem.type", "ext4"),
                ]
            })
            .into(),
        "system.network.io" => [("eth0", "receive"), ("eth0", "transmit"), ("wlan0", "receive"), ("wlan0", "transmit")]
            .map(|(name, way)| vec![("network.interface.name", name), ("network.io.direction", way)])
            .into(),
        "hw.temperature" => [("cpu-thermal", "cpu"), ("rp1_adc", "temp1"), ("nvme", "Composite")]
            .map(|(id, at)| vec![("hw.id", id), ("hw.name", id), ("hw.sensor_location", at)])
            .into(),
        "hw.cpu.speed" => vec![vec![("hw.id", "cpufreq/policy0"), ("hw.name", "cpu0-3")]],
        "hw.power" => [("ina3221/in1", "VDD_GPU_SOC"), ("ina3221/in2", "VDD_CPU_CV"), ("ina3221/in3", "VIN_SYS_5V0")]
            .map(|(id, at)| {
                vec![("hw.id", id), ("hw.name", "ina3221"), ("hw.sensor_location", at), ("hw.type", "enclosure")]
            })
            .into(),
        "hw.voltage" => [("rp1_adc/in1", "in1"), ("rpi_volt/in0", "in0")]
            .map(|(id, at)| vec![("hw.id", id), ("hw.name", id), ("hw.sensor_location", at)])
            .into(),
        "recurve.hw.alarm" => {
            each("recurve.alarm", &["throttled", "under-voltage", "frequency-capped", "soft-temperature-limit"])
        }
        "recurve.queue.wait" => each("gen_ai.operation.name", &["chat", "text_completion"]),
        "recurve.tokens" => ["input", "output"]
            .map(|kind| vec![("gen_ai.request.model", "demo-model"), ("gen_ai.token.type", kind)])
            .into(),
        "recurve.model.info" => vec![vec![
            ("gen_ai.request.model", "demo-model"),
            ("recurve.bundle.digest", "sha256:77404420a2aa3493297127a60fc82a93effc42fd8c515912d625350253c27277"),
            ("recurve.kernels", "neon-dotprod"),
        ]],
        "recurve.telemetry.dropped" => Vec::new(),
        _ => vec![Vec::new()],
    }
}

fn value(kind: Kind, noise: &mut Noise) -> Value {
    let real = |noise: &mut Noise| noise.next(1 << 24) as f32 / 1024.0;
    match kind {
        Kind::Gauge | Kind::UpDownCounter => {
            let (a, b, c) = (real(noise), real(noise), real(noise));
            Value::Gauge(Gauge { last: a, min: Some(a.min(b)), max: Some(a.max(b)), mean: Some(c) })
        }
        Kind::Counter => Value::Counter(noise.next(100_000) as f64),
        Kind::Histogram(bounds) => {
            let used = bounds.len().min(9);
            let counts = (0..used).map(|_| noise.next(40)).collect();
            Value::Histogram(Histogram { counts, sum: noise.next(1 << 40) as f64 / 1e6 })
        }
    }
}

/// A minute in which everything happened that can be counted.
fn busy_minute(seed: u64) -> Sample {
    let mut noise = Noise(seed);
    let mut series = Vec::new();
    for metric in METRICS {
        for attributes in attribute_sets(metric) {
            let attributes: BTreeMap<String, String> =
                attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let value = Some(value(metric.kind, &mut noise));
            series.push(Series { metric: metric.name.to_owned(), attributes, value });
        }
    }
    Sample {
        begin: Some(prost_types::Timestamp {
            seconds: 1_795_000_000 + noise.next(1 << 20).cast_signed(),
            nanos: 123_456_789,
        }),
        length: Some(prost_types::Duration { seconds: 60, nanos: 1_234_567 }),
        life: Some(Life {
            boot: "5d6f7a8b-1c2d-4e3f-8a9b-0c1d2e3f4a5b".to_owned(),
            instance: "01a21306-ad7b-733f-974e-326bdb9b8ceb".to_owned(),
            since_boot: Some(prost_types::Duration { seconds: 86_400, nanos: 5 }),
        }),
        series,
    }
}

#[test]
fn a_busy_minute_takes_its_share_of_the_disk_and_no_more() {
    let sizes: Vec<usize> = (1..=100).map(|seed| pack(&Content::Sample(busy_minute(seed))).unwrap().len()).collect();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    println!("{} series, {mean} bytes", busy_minute(1).series.len());
    assert!(mean <= MOST, "{mean} bytes");
}

#[test]
fn some_metrics_are_unpacked_as_all_are() {
    let (minute, wanted) = (busy_minute(3), ["hw.temperature".to_owned(), "recurve.tokens".to_owned()]);
    let packed = pack(&Content::Sample(minute.clone())).unwrap();
    let series = minute.series.iter().filter(|series| wanted.contains(&series.metric)).cloned().collect();
    assert_eq!(unpack_only(&packed, &wanted).unwrap(), Some(Sample { series, ..minute }));
    let event = pack(&Content::Event(NodeEvent { kind: "daemon.started".to_owned(), ..NodeEvent::default() })).unwrap();
    assert_eq!(unpack_only(&event, &wanted).unwrap(), None);
}

/// What version 1 wrote when it was new.
const WRITTEN: &str = include_str!("version-1.hex");

#[test]
fn what_version_1_wrote_is_read() {
    let bytes: Vec<u8> =
        (0..WRITTEN.trim().len() / 2).map(|at| u8::from_str_radix(&WRITTEN[at * 2..at * 2 + 2], 16).unwrap()).collect();
    assert_eq!(bytes[0], 1);
    let Content::Sample(sample) = unpack(&bytes).unwrap() else { panic!("it is a minute") };
    assert_eq!((sample.series.len(), sample.begin.unwrap().seconds), (57, 1_795_871_550));
    assert_eq!(sample.life.unwrap().boot, "5d6f7a8b-1c2d-4e3f-8a9b-0c1d2e3f4a5b");
    let names: Vec<&str> = sample.series.iter().map(|series| series.metric.as_str()).collect();
    assert_eq!((names[0], names[56]), ("gen_ai.server.request.duration", "recurve.telemetry.outbox.size"));
    assert_eq!(sample.series[0].attributes["gen_ai.operation.name"], "chat");
    let counts = vec![38, 31, 33, 33, 25, 19, 24, 4, 19];
    assert_eq!(sample.series[0].value, Some(Value::Histogram(Histogram { counts, sum: 1_523.885_686 })));
}

/// Once for each version: the dictionary is a record as they are, and what it wrote is kept for the test above.
#[test]
#[ignore = "a dictionary is made once; this one is in use"]
fn make_the_dictionary() {
    let minute = Content::Sample(busy_minute(0));
    let record = TelemetryRecord { content: Some(minute), ..TelemetryRecord::default() };
    std::fs::write("src/dictionary-1.bin", record.encode_to_vec()).unwrap();
}

/// After the dictionary was made and built in.
#[test]
#[ignore = "what a version wrote is kept once; this one is in use"]
fn keep_what_it_writes() {
    let packed = pack(&Content::Sample(busy_minute(7))).unwrap();
    let hex: String = packed.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write("tests/version-1.hex", hex + "\n").unwrap();
}
