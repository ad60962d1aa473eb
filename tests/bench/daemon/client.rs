//! Generations, timed where their messages arrive.

use std::time::Instant;

use recurve_tests::client::{Client, begin, greedy};
use tonic::Status;

/// When each token of a stream arrived.
pub(super) struct Arrivals(pub(super) Vec<Instant>);

impl Arrivals {
    /// Seconds a token from the first to the last.
    pub(super) fn seconds_a_token(&self) -> f64 {
        match self.0.as_slice() {
            [first, .., last] => (*last - *first).as_secs_f64() / (self.0.len() - 1) as f64,
            _ => f64::NAN,
        }
    }
}

/// A greedy generation of exactly this many tokens.
pub(super) async fn generate(client: &Client, prompt: &[u32], tokens: u32) -> Result<Arrivals, Status> {
    let mut stream = begin(client, greedy(prompt, tokens)).await?;
    let mut arrivals = Vec::with_capacity(tokens as usize);
    while stream.next().await? {
        arrivals.resize(stream.answer.tokens.len(), Instant::now());
    }
    if arrivals.len() != tokens as usize {
        return Err(Status::internal(format!("{} of {tokens} tokens came", arrivals.len())));
    }
    Ok(Arrivals(arrivals))
}
