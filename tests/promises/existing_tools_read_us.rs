//! What the daemon measures reaches the tools that people have: a collector, Prometheus, Grafana. Each is a real one, with the
//! settings of `deploy/observability/`; of Grafana only the queries of the dashboard are run.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use recurve_proto::v1::TelemetryRequest;
use recurve_proto::v1::node_client::NodeClient;
use recurve_proto::v1::telemetry_record::Content;
use recurve_telemetry::catalogue::{Kind, METRICS, find, name};
use recurve_telemetry::wire::common::v1::KeyValue;
use recurve_telemetry::wire::metrics::v1::metric::Data;
use recurve_telemetry::wire::metrics::v1::{AggregationTemporality, Metric};
use recurve_telemetry::wire::trace::v1::Span;
use recurve_tests::client::{Client, by, channel, chat, connect, generate, greedy, soon};
use recurve_tests::collector::{self, Received, Rotel, attribute, free_port, number};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{LIMIT, run, until};
use recurve_tests::prometheus::{self, Prometheus, file};
use recurve_tests::reference::repository;
use recurve_tests::world;
use serde_json::Value;
use tokio::task::JoinSet;

/// Metrics of sensors: a machine may have none of them.
const SENSORS: [&str; 5] = [name::TEMPERATURE, name::CPU_SPEED, name::POWER, name::VOLTAGE, name::HW_ALARM];
/// The same as Prometheus calls them. What they were on boards that have them is in `tests/observability/`.
const SENSORS_SHOWN: [&str; 5] =
    ["hw_temperature_celsius", "hw_cpu_speed_hertz", "hw_power_watts", "hw_voltage_volts", "recurve_hw_alarm_ratio"];
const AWAY: &str = "the collector takes nothing: what is for it waits on the disk";
const BACK: &str = "the collector has all that waited for it";
const QUESTION: &str = "dim the hall lights to 30";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn exporting(to: &str) -> Setup {
    Setup::new(&world::demo()).set("telemetry.endpoint", to).set("telemetry.interval", 1)
}

/// Asks the question, as a part of this trace where there is one.
async fn ask(daemon: &Daemon, traceparent: Option<&str>) -> String {
    let mut request = tonic::Request::new(chat(QUESTION));
    if let Some(parent) = traceparent {
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    }
    let answer = soon(connect(daemon).await.generate(request)).await.unwrap().into_inner();
    recurve_tests::client::Stream::new(answer).rest().await.unwrap().text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_every_metric_and_the_callers_trace() {
    let Some(program) = collector::installed() else { return };
    let received = Received::default();
    let rotel = Rotel::start(&program, free_port(), &received);
    let daemon = exporting(&rotel.endpoint).env("OTEL_RESOURCE_ATTRIBUTES", "site=north,rack=b%207").start();
    let answer = ask(&daemon, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    ask(&daemon, Some("00-11111111111111111111111111111111-2222222222222222-00")).await;
    assert!(generate(&connect(&daemon).await, greedy(&[u32::MAX], 1)).await.is_err());
    // The call that failed has a span alone, the one that was answered has three within.
    until(|| received.spans().len() >= 5 && received.metrics().iter().any(|(_, of)| of.name == name::REQUEST_DURATION));
    assert!(daemon.stop().success());

    let seen: BTreeSet<String> = received.metrics().into_iter().map(|(_, metric)| metric.name).collect();
    let absent: Vec<&str> = METRICS.iter().map(|metric| metric.name).filter(|name| !seen.contains(*name)).collect();
    let may_be: BTreeSet<&str> = SENSORS.into_iter().chain([name::DROPPED]).collect();
    assert!(absent.iter().all(|name| may_be.contains(name)), "the collector did not get {absent:?}");
    for (scope, metric) in received.metrics() {
        assert_eq!(scope, "recurve");
        is_as_listed(&metric);
    }
    let nodes: BTreeSet<_> = received.resources().into_iter().collect();
    let [node] = nodes.iter().collect::<Vec<_>>()[..] else { panic!("everything is from one node: {nodes:?}") };
    let told = |key| node.get(key).map_or("", String::as_str);
    assert_eq!((told("service.name"), told("site"), told("rack")), ("recurved", "north", "b 7"));
    assert!(!told("host.name").is_empty() && told("service.instance.id").len() == 36, "{node:?}");

    spans_are_whole(&received.spans());
    assert!(answer.contains("hall"));
    let everything = format!("{:?}{:?}", received.metrics(), received.spans());
    assert!(!everything.contains("hall"), "what is asked and answered is nobody's business");
}

/// Name, unit, kind, temporality, buckets and attributes are those of the list.
fn is_as_listed(metric: &Metric) {
    let listed = find(&metric.name).unwrap_or_else(|| panic!("{} is not in the list", metric.name));
    assert_eq!((metric.unit.as_str(), metric.description.as_str()), (listed.unit, listed.doc), "{}", metric.name);
    let cumulative = i32::from(AggregationTemporality::Cumulative);
    let attributes: Vec<Vec<KeyValue>> = match (&metric.data, listed.kind) {
        (Some(Data::Gauge(gauge)), Kind::Gauge) => {
            gauge.data_points.iter().map(|point| point.attributes.clone()).collect()
        }
        (Some(Data::Sum(sum)), Kind::Counter | Kind::UpDownCounter) => {
            assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (cumulative, listed.kind == Kind::Counter));
            sum.data_points.iter().map(|point| point.attributes.clone()).collect()
        }
        (Some(Data::Histogram(histogram)), Kind::Histogram(bounds)) => {
            assert_eq!(histogram.aggregation_temporality, cumulative);
            assert!(histogram.data_points.iter().all(|point| point.explicit_bounds == bounds), "{}", metric.name);
            histogram.data_points.iter().map(|point| point.attributes.clone()).collect()
        }
        (data, kind) => panic!("{} is {kind:?}, and came as {data:?}", metric.name),
    };
    assert!(!attributes.is_empty(), "{} has no value", metric.name);
    for pair in attributes.into_iter().flatten() {
        assert!(listed.attributes.contains(&pair.key.as_str()), "{} has {}", metric.name, pair.key);
    }
}

/// The call is a child of the caller's span, and what it consists of lies within it, one after the other.
fn spans_are_whole(spans: &[Span]) {
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let calls = named("recurve.v1.Inference/Generate");
    assert_eq!(calls.len(), 2, "the caller of the third did not want one");
    let joined: Vec<_> = calls.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let [call] = joined.as_slice() else { panic!("no span of the caller's trace: {spans:?}") };
    assert_eq!((hex(&call.parent_span_id).as_str(), call.kind().as_str_name()), (PARENT, "SPAN_KIND_SERVER"));
    let told = |key| attribute(&call.attributes, key).unwrap_or_default();
    assert_eq!((told("rpc.system.name"), told("rpc.response.status_code")), ("grpc".into(), "OK".into()));
    assert_eq!(
        (told("gen_ai.operation.name"), told("gen_ai.response.finish_reasons")),
        ("chat".into(), "end_of_text".into())
    );
    assert!(told("gen_ai.usage.output_tokens").parse::<u64>().unwrap() > 1);
    assert!(!told("gen_ai.request.model").is_empty() && attribute(&call.attributes, "recurve.content").is_none());
    let mut at = call.start_time_unix_nano;
    for part in ["queue", "prefill", "decode"] {
        let [span] = named(part)[..] else { panic!("not one span of {part}: {spans:?}") };
        assert_eq!((&span.trace_id, &span.parent_span_id), (&call.trace_id, &call.span_id), "{part}");
        assert!(at <= span.start_time_unix_nano && span.start_time_unix_nano < span.end_time_unix_nano, "{part}");
        at = span.end_time_unix_nano;
    }
    assert!(at <= call.end_time_unix_nano, "the parts are longer than the whole");
    let failed = calls.iter().find(|span| hex(&span.trace_id) != TRACE).unwrap();
    assert!(failed.parent_span_id.is_empty(), "it begins a trace");
    assert_eq!(attribute(&failed.attributes, "error.type").as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!(failed.status.clone().unwrap_or_default().code().as_str_name(), "STATUS_CODE_ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_and_answered_is_sent_only_where_it_is_switched_on() {
    let Some(program) = collector::installed() else { return };
    let received = Received::default();
    let rotel = Rotel::start(&program, free_port(), &received);
    let daemon = exporting(&rotel.endpoint).set("telemetry.content", true).allow("telemetry.content is on").start();
    let answer = ask(&daemon, None).await;
    until(|| received.spans().iter().any(|span| span.name == "decode"));
    assert!(daemon.stop().success());
    let spans = received.spans();
    let call = spans.iter().find(|span| span.name == "recurve.v1.Inference/Generate").unwrap();
    let told = |key| attribute(&call.attributes, key).unwrap_or_default();
    assert_eq!(told("recurve.content"), "true");
    assert!(told("gen_ai.input.messages").contains(QUESTION));
    assert!(told("gen_ai.output.messages").contains(&answer));
}

/// Begin and end of each sample in the history, in nanoseconds, and the kinds of events.
async fn history(daemon: &Daemon) -> (Vec<(u64, u64)>, Vec<String>) {
    let mut node = NodeClient::new(channel(daemon).await);
    let mut answers = soon(node.telemetry(TelemetryRequest::default())).await.unwrap().into_inner();
    let (mut samples, mut events) = (Vec::new(), Vec::new());
    while let Some(message) = soon(answers.message()).await.unwrap() {
        for record in message.records {
            match record.content.unwrap() {
                Content::Sample(sample) => {
                    let begin = SystemTime::try_from(sample.begin.unwrap()).unwrap();
                    let begin = begin.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    let end = begin + Duration::try_from(sample.length.unwrap()).unwrap();
                    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
                    samples.push((nanos(begin), nanos(end)));
                }
                Content::Event(event) => events.push(event.kind),
            }
        }
    }
    (samples, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_away_misses_nothing() {
    let Some(program) = collector::installed() else { return };
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let setup = exporting(&format!("http://127.0.0.1:{port}")).unix().set("telemetry.dir", dir.path().display());
    let daemon = setup.allow(AWAY).start();
    daemon.wait_for(AWAY);
    // It serves meanwhile.
    let mut asked = 0;
    while history(&daemon).await.0.len() < 6 {
        ask(&daemon, None).await;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(daemon.lines(BACK), Vec::<Value>::new());
    let before = history(&daemon).await.0;
    let came = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();

    let received = Received::default();
    let _rotel = Rotel::start(&program, port, &received);
    daemon.wait_for(BACK);
    let (samples, _) = history(&daemon).await;
    let uptime = || received.points(name::PROCESS_UPTIME);
    until(|| uptime().last().is_some_and(|last| samples.last().is_some_and(|end| last.time_unix_nano >= end.0)));
    let points = uptime();
    for (begin, end) in &samples {
        let within = points.iter().filter(|point| (*begin..*end).contains(&point.time_unix_nano)).count();
        assert_eq!(within, 1, "of each interval the collector has one reading: {samples:?} {points:?}");
    }
    let old = points.iter().filter(|point| u128::from(point.time_unix_nano) < came).count();
    assert!(old >= before.len(), "{old} readings are from before, of {}", before.len());
    for pair in points.windows(2) {
        let passed = (pair[1].time_unix_nano - pair[0].time_unix_nano) as f64 / 1e9;
        let difference = number(&pair[1]) - number(&pair[0]) - passed;
        assert!(difference.abs() < 0.5, "a reading has another time than its own: {pair:?}");
    }
    let begun: BTreeSet<u64> = received.points(name::TOKENS).iter().map(|point| point.start_time_unix_nano).collect();
    assert_eq!(begun.len(), 1, "sums go on from where they began");
    assert!(asked > 0);
    until(|| received.spans().iter().filter(|span| span.name == "decode").count() == asked);

    assert_eq!((daemon.lines(AWAY).len(), daemon.lines(BACK).len()), (1, 1), "it is said once");
    let told = |(_, events): &(_, Vec<String>), kind| events.iter().filter(|found| *found == kind).count();
    let (last, deadline) = ("telemetry.collector_back", Instant::now() + LIMIT);
    while told(&history(&daemon).await, last) == 0 {
        assert!(Instant::now() < deadline, "the history does not tell that it is back");
    }
    assert_eq!(told(&history(&daemon).await, "telemetry.collector_away"), 1);
    assert!(daemon.stop().success());
}

#[test]
fn alerts_fire_when_they_should() {
    if !prometheus::installed() {
        return;
    }
    let promtool = |args: &[&str]| run(Command::new("promtool").current_dir(file("")).args(args)).success();
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);

    let read = |name| std::fs::read_to_string(file(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for alert in names {
        assert!(
            tests.contains(&format!("alertname: {alert}, exp_alerts: []")),
            "{alert} is never expected to be silent"
        );
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
            "{alert} is never expected to fire"
        );
    }
    for field in ["severity: ", "summary: ", "description: "] {
        assert_eq!(rules.matches(field).count(), rules.matches("- alert: ").count(), "each alert has a {field}");
    }
}

/// A query of the dashboard, with the title of its panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let filled = |query: &str| {
        let query = query.replace("$instance", ".*").replace("$model", ".*").replace("$__rate_interval", "15s");
        assert!(!query.contains('$'), "a variable that nobody knows: {query}");
        query
    };
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), filled(target["expr"].as_str().unwrap())))
    };
    panels.flat_map(of).collect()
}

/// The parts `name{labels}` of an expression.
fn selectors(expression: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let of = |(at, _): (usize, &str)| {
        let name = expression[..at].rfind(|c| !is_name(c)).map_or(0, |before| before + 1);
        let end = at + expression[at..].find('}').expect("labels end");
        (name < at).then(|| expression[name..=end].to_owned())
    };
    expression.match_indices('{').filter_map(of).collect()
}

/// Requests of every kind, more than one slot takes, until it is told to stop.
fn load(client: &Client, over: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (client, over) = (client.clone(), Arc::clone(over));
        tasks.spawn(async move {
            let mut turn = 0_u64;
            while !over.load(Ordering::SeqCst) {
                turn += 1;
                // Answers and refusals are both wanted.
                let _ = match turn % 8 {
                    0 => generate(&client, greedy(&[u32::MAX], 1)).await.map(|_| ()),
                    1 => soon(client.clone().generate(by(chat(QUESTION), Duration::from_millis(1)))).await.map(|_| ()),
                    2 => generate(&client, greedy(&[2; 200], 16)).await.map(|_| ()),
                    _ => generate(&client, chat(QUESTION)).await.map(|_| ()),
                };
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    tasks
}

/// Whether there is a value that is a number, and of the gateway where no sensor is asked for.
fn has_data(query: &str, series: &[Value]) -> bool {
    let of_sensor = SENSORS_SHOWN.iter().any(|sensor| query.contains(sensor));
    series.iter().any(|one| {
        let value: f64 = one["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        let from = &one["metric"]["instance"];
        value.is_finite() && (of_sensor || from.is_null() || from == "gateway")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_alert_has_data() {
    if !prometheus::installed() {
        return;
    }
    let (shown, nobody) = (free_port(), free_port());
    let daemon = exporting(&format!("http://127.0.0.1:{nobody}"))
        .set("telemetry.prometheus", format!("127.0.0.1:{shown}"))
        .set("telemetry.outbox_bytes", 65_536)
        .set("engine.slots", 1)
        .set("engine.queue", 2)
        .allow(AWAY)
        .allow("the oldest of what waits for it is dropped")
        // ONNX Runtime's own line where the stop ends a step of its kernels.
        .allow("terminate flag being set")
        .start();
    let board = |name: &str| {
        let port = prometheus::shown(&repository().join(format!("tests/observability/{name}.prom")));
        format!("127.0.0.1:{port}")
    };
    let devices = [
        ("gateway", format!("127.0.0.1:{shown}")),
        ("pi-4", board("raspberry-pi-4")),
        ("pi-5", board("raspberry-pi-5")),
        ("orin", board("jetson-orin")),
    ];
    let prometheus = Prometheus::start(&devices).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut load = load(&connect(&daemon).await, &over);

    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file("dashboard.json")).unwrap()).unwrap();
    let mut waiting = queries(&dashboard);
    assert!(waiting.len() > 30, "the dashboard has {} queries", waiting.len());
    let texts = [&dashboard["templating"]["list"], &dashboard["annotations"]["list"]].map(Value::to_string).join(" ");
    let texts = texts.replace("\\\"", "\"").replace("$instance", ".*");
    let alerts = prometheus.alerts().await;
    assert!(alerts.len() > 10, "{alerts:?}");
    let asked = alerts.into_iter().chain([("the dashboard's variables".to_owned(), texts)]);
    let asked = asked.flat_map(|(name, text)| selectors(&text).into_iter().map(move |one| (name.clone(), one)));
    // Errors that no caller can bring about do not happen here; alerts.test.yml has series of them.
    let asked = asked.filter(|(name, selector)| !(name == "RecurveErrors" && selector.contains("error_type!~")));
    waiting.extend(asked.map(|(name, selector)| (name, format!("last_over_time({selector}[1m])"))));
    // Two that fire at once: of a board whose supply is weak, and of what was dropped.
    for (alert, instance) in [("RecurveUnderVoltage", "pi-4"), ("RecurveTelemetryDropped", "gateway")] {
        let firing = format!(r#"ALERTS{{alertname="{alert}",instance="{instance}",alertstate="firing"}}"#);
        waiting.push((alert.to_owned(), format!("count({firing})")));
    }

    let begun = Instant::now();
    while !waiting.is_empty() && begun.elapsed() < LIMIT {
        let mut left = Vec::new();
        for (title, query) in waiting {
            if !has_data(&query, &prometheus.query(&query).await) {
                left.push((title, query));
            }
        }
        waiting = left;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(waiting.is_empty(), "no data for {waiting:#?}");
    let named =
        prometheus.query(r#"process_uptime_seconds{job="recurved",instance="gateway",site="here",device=""}"#).await;
    assert_eq!(named.len(), 1, "series are called after the device");
    let page = std::fs::read_to_string(repository().join("docs/telemetry.md")).unwrap();
    for one in prometheus.query(r#"count by (__name__) ({otel_scope_name="recurve",__name__!~"ALERTS.*"})"#).await {
        let shown = one["metric"]["__name__"].as_str().unwrap();
        let ends = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| shown.strip_suffix(end));
        let shown = ends.unwrap_or(shown);
        assert!(page.contains(&format!("`{shown}`")), "docs/telemetry.md does not know what Prometheus calls {shown}");
    }
    over.store(true, Ordering::SeqCst);
    while load.join_next().await.is_some() {}
    assert!(daemon.stop().success());
}
