//! How long a link that is lost is tried again.

use std::time::Duration;

use crate::error::RegistryError;

/// When to try again after a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often, one after the other, without any progress between them.
    pub times: u32,
    /// The first pause; each is twice the one before,
    pub first: Duration,
    /// up to this.
    pub longest: Duration,
}

impl Retry {
    /// For small requests, the first ones among them: a name that is wrong is told within seconds.
    pub const BRIEF: Self = Self { times: 3, first: Duration::from_millis(500), longest: Duration::from_secs(2) };
    /// For a person who waits: about half a minute.
    pub const PATIENT: Self = Self { times: 6, first: Duration::from_millis(500), longest: Duration::from_secs(10) };
    /// For a device on a bad link: about twenty minutes.
    pub const STUBBORN: Self = Self { times: 24, first: Duration::from_millis(500), longest: Duration::from_secs(60) };

    /// The pause after this many failures in a row; none where it is given up.
    pub fn pause(&self, failures: u32) -> Option<Duration> {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        (failures <= self.times).then(|| self.first.saturating_mul(doubled).min(self.longest))
    }

    /// Tries until it works, or fails in a way that does not pass, or too often.
    pub(crate) async fn run<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, RegistryError> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(error) if error.is_transient() => {
                    failures += 1;
                    let Some(pause) = self.pause(failures) else { return Err(error) };
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let retry = Retry { times: 5, first: Duration::from_secs(1), longest: Duration::from_secs(5) };
        let pauses: Vec<_> = (1..=6).map(|n| retry.pause(n).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), Some(5), None]);
        let many = Retry { times: 100, ..retry };
        assert_eq!(many.pause(99), Some(Duration::from_secs(5)));
    }
}
