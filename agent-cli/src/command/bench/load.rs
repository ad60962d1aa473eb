//! Requests to a daemon, several at once, each timed as its client sees it.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{GenerateRequest, Sampling, TokenIds};
use tokio::task::JoinSet;

use crate::args::On;
use crate::client::Client;
use crate::exit::Failure;
use crate::report;

/// Random prompts, different ones each time, so that nothing can be reused between requests.
#[derive(Debug)]
pub(super) struct Prompts {
    vocabulary: u32,
    state: u64,
}

/// Ids below this are special tokens in RecurrentGemma's vocabulary: padding, end and beginning of text.
const FIRST_ID: u32 = 3;

impl Prompts {
    /// Prompts of ids from 3 to below `vocabulary`, which must be above 3.
    pub(super) fn new(vocabulary: u32) -> Self {
        Self { vocabulary, state: RandomState::new().hash_one(vocabulary) }
    }

    /// The next prompt, of `tokens` ids.
    pub(super) fn next(&mut self, tokens: u32) -> Vec<u32> {
        let ids = u64::from(self.vocabulary - FIRST_ID);
        (0..tokens).map(|_| FIRST_ID + (self.random() % ids) as u32).collect()
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One prompt length at one concurrency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) prompt_tokens: u32,
    pub(super) concurrency: u32,
    pub(super) requests: u32,
    pub(super) max_tokens: u32,
}

/// What one request took, as its client sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// From sending until the first token arrived; none where there was no token.
    pub(super) first_token: Option<Duration>,
    /// From each token to the next. Tokens that arrive together share the time evenly.
    pub(super) between: Vec<Duration>,
    pub(super) tokens: usize,
    /// In the daemon's queue, in milliseconds, as the daemon tells it.
    pub(super) queue_ms: Option<f64>,
}

/// What a whole load took.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) samples: Vec<Sample>,
    pub(super) wall: Duration,
}

impl Load {
    /// Makes the requests; `concurrency` of them are under way until too few are left.
    pub(super) async fn run(
        &self,
        on: &On,
        prompts: &mut Prompts,
        progress: &ProgressBar,
    ) -> Result<Measured, Failure> {
        let mut clients = Vec::new();
        for _ in 0..self.concurrency {
            clients.push(Client::connect(on).await?);
        }
        let queue: VecDeque<_> =
            (0..self.requests).map(|_| request(prompts.next(self.prompt_tokens), self.max_tokens)).collect();
        let queue = Arc::new(Mutex::new(queue));
        let begin = Instant::now();
        let mut streams = JoinSet::new();
        for client in clients {
            streams.spawn(stream(client, Arc::clone(&queue), progress.clone()));
        }
        let mut samples = Vec::new();
        while let Some(done) = streams.join_next().await {
            let done = done.map_err(|error| Failure::Failed(format!("a stream ended badly: {error}")))?;
            samples.extend(done.map_err(|failure| self.explain(failure))?);
        }
        Ok(Measured { samples, wall: begin.elapsed() })
    }

    /// A daemon that is too busy for the load gives no figures worth having.
    fn explain(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Busy(message) => Failure::Busy(format!(
                "{message}; its queue does not hold {} streams at once: lower --concurrency, or wait until others are done",
                self.concurrency
            )),
            other => other,
        }
    }
}

/// A request for exactly `max_tokens` tokens.
pub(super) fn request(ids: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::Tokens(TokenIds { ids })),
        sampling: Some(Sampling { temperature: Some(0.0), ..Default::default() }),
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        ..Default::default()
    }
}

/// Makes requests from the queue, one after the other, until it is empty.
async fn stream(
    mut client: Client,
    queue: Arc<Mutex<VecDeque<GenerateRequest>>>,
    progress: ProgressBar,
) -> Result<Vec<Sample>, Failure> {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut samples = Vec::new();
    while let Some(request) = next() {
        samples.push(timed(&mut client, request).await?);
        progress.inc(1);
    }
    Ok(samples)
}

async fn timed(client: &mut Client, request: GenerateRequest) -> Result<Sample, Failure> {
    let mut sample = Sample::default();
    let sent = Instant::now();
    let mut last = sent;
    let finish = client
        .generate(request, None, |delta| {
            let now = Instant::now();
            sample.arrived(delta.tokens.len(), now - sent, now - last);
            if !delta.tokens.is_empty() {
                last = now;
            }
            Ok(())
        })
        .await?;
    sample.queue_ms = finish.timings.and_then(|timings| timings.queue).map(report::milliseconds);
    Ok(sample)
}

impl Sample {
    /// Notes `tokens` that arrived together, so long after sending and after the token before.
    fn arrived(&mut self, tokens: usize, since_sent: Duration, since_last: Duration) {
        let Ok(share @ 1..) = u32::try_from(tokens) else {
            return;
        };
        self.tokens += tokens;
        if self.first_token.is_none() {
            self.first_token = Some(since_sent);
            self.between.extend(std::iter::repeat_n(Duration::ZERO, tokens - 1));
        } else {
            self.between.extend(std::iter::repeat_n(since_last / share, tokens));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_stay_inside_the_vocabulary_and_differ() {
        let mut prompts = Prompts::new(8);
        let one = prompts.next(500);
        assert_eq!(one.len(), 500);
        for id in 3..8 {
            assert!(one.contains(&id), "{id}");
        }
        assert!(one.iter().all(|id| (3..8).contains(id)));
        assert_ne!(one, prompts.next(500));
        assert_eq!(Prompts::new(4).next(2), [3, 3]);
    }

    #[test]
    fn tokens_that_arrive_together_share_the_time() {
        let ms = Duration::from_millis;
        let mut sample = Sample::default();
        sample.arrived(0, ms(1), ms(1));
        sample.arrived(1, ms(5), ms(5));
        sample.arrived(0, ms(6), ms(1));
        sample.arrived(2, ms(11), ms(6));
        assert_eq!(sample.first_token, Some(ms(5)));
        assert_eq!(sample.between, [ms(3), ms(3)]);
        assert_eq!(sample.tokens, 3);
    }
}
