//! What measuring costs, counted in this process: the time of each part, beside that of a token.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use recurve_telemetry::builder::Builder;
use recurved::engine::job::{Timings, Usage};
use recurved::engine::meter::Meter;
use recurved::telemetry::{CallSpan, Outcome, Request, Telemetry};
use uuid::Uuid;

use super::minutes::settings;
use crate::args::Kind;
use crate::bare::Bare;
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure};

/// What answers begin with.
const PROMPT: [u32; 2] = [2, 10];
/// Repetitions of what takes nanoseconds.
const MANY: u32 = 20_000;
/// Tokens of an answer, by which its costs are divided: short ones are the worst case.
const ANSWER: u32 = 32;
/// How often the daemon reads everything.
const READ: Duration = Duration::from_secs(10);

/// The costs of one stream.
pub(super) fn measure(bench: &Bench, subject: &Subject) -> Result<Table, Failure> {
    let mut bare = Bare::load(subject, Kind::Recurve, 1, bench.threads)?;
    // Spans are made, and wait on the disk: nothing listens at that port.
    let mut with_spans = settings(&["--bundle", "/none"])?;
    let collector = recurved::config::Collector {
        endpoint: "http://127.0.0.1:9".to_owned(),
        every: None,
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
        ca: None,
        own: None,
    };
    let plain = Telemetry::start(&with_spans)?.telemetry;
    with_spans.telemetry.collector = Some(collector);
    let traced = Telemetry::start(&with_spans)?.telemetry;
    let meter = Meter::default();
    let mut builder = Builder::default();
    let [mut token, mut tick, mut request, mut span, mut read] = <[Samples; 5]>::default();
    for round in 0..=bench.effort.pairs {
        let one = bare.generate(&PROMPT, ANSWER)?;
        let parts = [
            each(|| {
                black_box(&meter).stands(1, 0);
                black_box(&meter).made(1);
            }),
            each(|| record(&plain)),
            each(|| {
                record(&traced);
                traced.span(call);
            }),
            time(|| builder.observe(&plain.read())),
        ];
        // The first round warms all of it up.
        if round > 0 {
            token.push(one * 1e6);
            for (samples, part) in [&mut tick, &mut request, &mut span, &mut read].into_iter().zip(parts) {
                samples.push(part * 1e6);
            }
        }
    }
    let answer = f64::from(ANSWER);
    let share = |extra: &Samples| {
        let parts = extra.pair(&tick, move |request, tick| request / answer + tick);
        // What is read in turn takes its time from whatever is computed then.
        let parts = parts.pair(&token, |part, token| 100.0 * part / token);
        parts.pair(&read, |share, read| share + 100.0 * read / (READ.as_secs_f64() * 1e6))
    };
    let mut table = Table::new(format!("what measuring costs one stream of answers of {ANSWER} tokens")).note(
        "Counted in this process: each part alone, many times over. A request's costs are divided by its tokens.",
    );
    table.push(
        Line::new()
            .figure("a token", Unit::Microseconds, &token)
            .figure("each tick", Unit::Microseconds, &tick)
            .figure("each request", Unit::Microseconds, &request)
            .figure("with spans", Unit::Microseconds, &span)
            .figure("a reading, every 10 s", Unit::Microseconds, &read)
            .figure("of a token's time", Unit::Percent, &share(&request))
            .figure("of it with spans", Unit::Percent, &share(&span)),
    );
    Ok(table)
}

fn record(telemetry: &Telemetry) {
    telemetry.request(&ended());
    telemetry.call("recurve.v1.Inference/Generate", "OK", Duration::from_millis(6));
}

fn ended() -> Request<'static> {
    let ms = Duration::from_millis;
    Request {
        operation: "chat",
        model: Some("demo-model"),
        server: ("gateway", Some(50051)),
        outcome: Outcome::Answered,
        usage: Usage { prompt_tokens: 18, completion_tokens: u64::from(ANSWER) },
        timings: Timings { queue: ms(1), prefill: ms(2), time_to_first_token: ms(3), decode: ms(3), total: ms(6) },
        waited: Some(ms(1)),
        total: ms(6),
    }
}

fn call() -> CallSpan<'static> {
    CallSpan {
        method: "Generate",
        id: Uuid::now_v7(),
        begun: SystemTime::now(),
        parent: None,
        finish: "max_tokens",
        status: "OK",
        request: ended(),
        content: None,
    }
}

/// Seconds that one of many takes.
fn each(mut part: impl FnMut()) -> f64 {
    time(|| (0..MANY).for_each(|_| part())) / f64::from(MANY)
}

fn time(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}
