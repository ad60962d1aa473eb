//! Minutes of a device that is in use, made with the daemon's own instruments on this machine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser as _;
use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Life, Sample};
use recurve_telemetry::builder::Builder;
use recurved::config::{self, Cli, Settings};
use recurved::engine::job::{Timings, Usage};
use recurved::telemetry::history::{History, Limits};
use recurved::telemetry::{Outcome, Request, Telemetry};
use uuid::Uuid;

use crate::Failure;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The daemon's telemetry, without a daemon.
pub(super) struct Minutes {
    pub(super) telemetry: Arc<Telemetry>,
    builder: Builder,
    noise: u64,
}

/// What a daemon would be started with.
pub(super) fn settings(flags: &[&str]) -> Result<Settings, Failure> {
    let flags = Cli::try_parse_from([&["recurved", "--config", "/dev/null"], flags].concat())?.flags;
    config::load(&flags, &[]).settings.ok_or_else(|| "the settings of the daemon are wrong".into())
}

impl Minutes {
    pub(super) fn new() -> Result<Self, Failure> {
        // Nothing is loaded: the folder need not be there, and the history is in memory.
        let started = Telemetry::start(&settings(&["--bundle", "/none"])?)?;
        Ok(Self { telemetry: started.telemetry, builder: Builder::default(), noise: 1 })
    }

    /// A number without a pattern, the same each time.
    fn random(&mut self, below: u64) -> u64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 33) % below
    }

    /// A minute with some requests that begins then.
    pub(super) fn minute(&mut self, begin: SystemTime) -> Sample {
        for _ in 0..self.random(30) {
            let ms = |ms: u64| Duration::from_millis(ms);
            let (queue, first, decode) = (ms(self.random(400)), ms(400 + self.random(4000)), ms(self.random(20_000)));
            let operation = ["chat", "text_completion"][self.random(2) as usize];
            let failed = self.random(40) == 0;
            let tokens = 1 + self.random(200);
            self.telemetry.request(&Request {
                operation,
                model: Some("demo-model"),
                server: ("gateway", Some(50051)),
                outcome: if failed { Outcome::Failed("RESOURCE_EXHAUSTED") } else { Outcome::Answered },
                usage: Usage { prompt_tokens: 40, completion_tokens: tokens },
                timings: Timings { queue, time_to_first_token: first, decode, ..Timings::default() },
                waited: Some(queue),
                total: first + decode,
            });
            self.telemetry.call(
                "recurve.v1.Inference/Generate",
                if failed { "RESOURCE_EXHAUSTED" } else { "OK" },
                first + decode,
            );
        }
        for _ in 0..6 {
            self.builder.observe(&self.telemetry.read());
        }
        Sample {
            begin: Some(begin.into()),
            length: MINUTE.try_into().ok(),
            life: Some(Life {
                boot: Uuid::now_v7().to_string(),
                instance: self.telemetry.instance().to_string(),
                since_boot: Some(prost_types::Duration { seconds: 86_400, nanos: 1 }),
            }),
            series: self.builder.finish(),
        }
    }

    /// A history of so many minutes that ends now, on the disk.
    pub(super) fn history(&mut self, folder: &Path, minutes: u64, now: SystemTime) -> Result<History, Failure> {
        let limits = Limits { bytes: 50_000_000, minutes: 90 * DAY, hours: 400 * DAY };
        let history = History::open(Some(folder), limits)?.history;
        for minute in 0..minutes {
            let begin = now - MINUTE * u32::try_from(minutes - minute)?;
            let sample = self.minute(begin);
            history.append(&Content::Sample(sample))?;
        }
        Ok(history)
    }
}
