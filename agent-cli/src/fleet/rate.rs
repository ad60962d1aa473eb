//! How fast bytes may leave, shared by all devices that they go to.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(f64);

const UNITS: [(&str, f64); 10] = [
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kbit", 125.0),
    ("Mbit", 125e3),
    ("Gbit", 125e6),
    ("B", 1.0),
];

impl FromStr for Rate {
    type Err = String;

    /// `2MB/s`, `500kB`, `10Mbit/s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let each = text.strip_suffix("/s").unwrap_or(text);
        let digits = each.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(each.len());
        let (number, unit) = each.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim());
        let rate = number.parse().ok().zip(unit).map(|(number, (_, unit)): (f64, _)| number * unit);
        match rate {
            Some(rate) if (1.0..=1e12).contains(&rate) => Ok(Self(rate)),
            _ => Err("write a number and a unit: 2MB/s, 500kB/s, 1.5MiB/s or 10Mbit/s; at least 1B/s".to_owned()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) =
            [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)].into_iter().find(|(_, unit)| self.0 >= *unit).unwrap_or(("B", 1.0));
        write!(f, "{} {name}/s", (self.0 / unit * 100.0).round() / 100.0)
    }
}

impl Rate {
    /// So many bytes a second.
    pub(super) const fn of(bytes: f64) -> Self {
        Self(bytes)
    }

    /// How long so many bytes take.
    pub(super) fn seconds(self, bytes: u64) -> f64 {
        bytes as f64 / self.0
    }

    /// Bytes that are worth sending at once: a twentieth of a second's, within bounds.
    pub(super) fn piece(self, most: usize) -> usize {
        ((self.0 / 20.0) as usize).clamp(1024.min(most), most)
    }
}

/// A token bucket that may go into debt: who takes more than is there waits until it is paid, and who comes next waits behind.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Most bytes that are saved up.
    most: f64,
    saved: f64,
    /// When `saved` was true.
    at: Duration,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        // A tenth of a second: short waits are made up for, a pause is not.
        Self { rate, most: rate.0 / 10.0, saved: 0.0, at: Duration::ZERO }
    }

    /// Takes bytes at a moment; gives how long to wait before they may leave.
    fn take(&mut self, bytes: usize, now: Duration) -> Duration {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.saved = (self.saved + since * self.rate.0).min(self.most) - bytes as f64;
        if self.saved >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.saved / self.rate.0) }
    }
}

/// The rate limit of a rollout, for all its transfers together.
#[derive(Debug)]
pub(crate) struct Limiter {
    bucket: Option<Mutex<Bucket>>,
    begun: Instant,
    rate: Option<Rate>,
}

impl Limiter {
    /// Without a rate nothing waits.
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { bucket: rate.map(|rate| Mutex::new(Bucket::new(rate))), begun: Instant::now(), rate }
    }

    /// Bytes to send at once, at most so many.
    pub(crate) fn piece(&self, most: usize) -> usize {
        self.rate.map_or(most, |rate| rate.piece(most))
    }

    /// Waits until so many bytes may leave.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(bucket) = &self.bucket else { return };
        let now = self.begun.elapsed();
        // A panic while it was held leaves numbers that are still numbers.
        let wait = bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take(bytes, now);
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, expected) in [
            ("2MB/s", 2e6),
            ("2MB", 2e6),
            ("500kB/s", 5e5),
            ("1.5MiB/s", 1_572_864.0),
            ("10Mbit/s", 1.25e6),
            ("100B/s", 100.0),
        ] {
            assert_eq!(text.parse(), Ok(Rate(expected)), "{text}");
        }
        for wrong in ["", "2", "MB/s", "0MB/s", "-1MB/s", "2mb/s", "2MB/m", "inf", "1e9B/s", "9999999GB/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
        assert_eq!(Rate(12.5e6).to_string(), "12.5 MB/s");
        assert_eq!(Rate(2e6).to_string(), "2 MB/s");
    }

    #[test]
    fn pieces_are_small_where_the_rate_is() {
        assert_eq!(Rate(20_000.0).piece(256 << 10), 1024);
        assert_eq!(Rate(2e6).piece(256 << 10), 100_000);
        assert_eq!(Rate(1e9).piece(256 << 10), 256 << 10);
    }

    #[test]
    fn what_is_taken_too_early_is_waited_for() {
        let mut bucket = Bucket::new(Rate(1000.0));
        let at = Duration::from_millis;
        assert_eq!(bucket.take(500, at(0)), at(500));
        assert_eq!(bucket.take(500, at(0)), at(1000), "behind the one before");
        assert_eq!(bucket.take(100, at(1000)), at(100));
        assert_eq!(bucket.take(100, at(60_000)), at(0), "saved up");
        assert_eq!(bucket.take(1000, at(60_000)), at(1000), "a pause is not made up for");
    }

    proptest::proptest! {
        /// Whoever takes what and when: until any moment no more has left than the rate and what may be saved up allow.
        #[test]
        fn no_more_leaves_than_the_rate_allows(
            takes in proptest::collection::vec((0u64..2000, 1usize..5000), 1..100),
            rate in 100.0f64..100_000.0,
        ) {
            let mut bucket = Bucket::new(Rate(rate));
            let (mut now, mut left) = (0u64, Vec::new());
            for (later, bytes) in takes {
                now += later;
                let wait = bucket.take(bytes, Duration::from_millis(now));
                left.push((now as f64 / 1e3 + wait.as_secs_f64(), bytes));
            }
            let (mut sent, mut last) = (0.0, 0.0);
            for (when, bytes) in left {
                // Nobody overtakes.
                proptest::prop_assert!(when >= last - 1e-6);
                last = when;
                sent += bytes as f64;
                proptest::prop_assert!(sent <= rate * (when + 0.1) + 1.0, "{} bytes after {} s", sent, when);
            }
        }
    }
}
