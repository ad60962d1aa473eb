//! Waves: how many devices a rollout has tried after each, and which come next. Pure.

use std::fmt;
use std::str::FromStr;

/// A number of devices, or a share of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// So many.
    Count(usize),
    /// So many of a hundred, rounded up for waves and down for failures.
    Percent(usize),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number of devices nor a percentage from 0% to 100%");
        match text.strip_suffix('%') {
            Some(number) => match number.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Share {
    fn up(self, devices: usize) -> usize {
        match self {
            Self::Count(count) => count.min(devices),
            Self::Percent(percent) => (devices * percent).div_ceil(100),
        }
    }

    /// Of so many devices, rounded down.
    pub(super) fn down(self, devices: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => devices * percent / 100,
        }
    }
}

/// How large waves are: each says how many devices have been tried when it is over, those of the waves before included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waves(Vec<Share>);

impl FromStr for Waves {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shares: Vec<Share> = text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        if shares.iter().any(|share| matches!(share, Share::Count(0) | Share::Percent(0))) {
            return Err("a wave of 0 devices tries nothing".to_owned());
        }
        if shares.last() != Some(&Share::Percent(100)) {
            return Err("the last wave must be 100%, so that no device is left out".to_owned());
        }
        let falls = shares.windows(2).any(|pair| match pair {
            [Share::Count(a), Share::Count(b)] | [Share::Percent(a), Share::Percent(b)] => a >= b,
            _ => false,
        });
        if falls {
            return Err("waves are counted from the beginning, so each must be larger than the one before".to_owned());
        }
        Ok(Self(shares))
    }
}

impl Waves {
    /// How many of so many devices have been tried after each wave: it grows, and ends with all of them. A wave that would
    /// add nothing is left out.
    pub(super) fn targets(&self, devices: usize) -> Vec<usize> {
        let mut targets = Vec::new();
        for share in &self.0 {
            let target = share.up(devices);
            if targets.last().copied().unwrap_or(0) < target {
                targets.push(target);
            }
        }
        targets
    }
}

/// What a wave must know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its turn has not come.
    Open,
    /// It took the model, or failed with it: it says something of the model.
    Tried,
    /// It could not take it, for a reason of its own.
    Skipped,
}

/// The devices that come next, by their place: as many as lack until the wave's target. A device that is skipped gives its
/// place in the wave to the next one, so that a wave is never smaller because devices are out of reach.
pub(super) fn next(devices: &[Standing], target: usize) -> Vec<usize> {
    let tried = devices.iter().filter(|standing| **standing == Standing::Tried).count();
    let open = devices.iter().enumerate().filter(|(_, standing)| **standing == Standing::Open);
    open.map(|(place, _)| place).take(target.saturating_sub(tried)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(text: &str) -> Waves {
        text.parse().unwrap()
    }

    #[test]
    fn waves_are_cumulative_and_end_with_all() {
        for (text, devices, expected) in [
            ("1,10%,100%", 100, &[1, 10, 100][..]),
            ("1,10%,100%", 12, &[1, 2, 12]),
            ("1,10%,100%", 5, &[1, 5]),
            ("1,10%,100%", 1, &[1]),
            ("100%", 7, &[7]),
            ("5,20,100%", 10, &[5, 10]),
            ("10%,50%,100%", 3, &[1, 2, 3]),
            ("1,100%", 0, &[]),
        ] {
            assert_eq!(waves(text).targets(devices), expected, "{text} of {devices}");
        }
    }

    #[test]
    fn wrong_waves_say_what_is_wrong() {
        for (text, expected) in [
            ("", "neither a number"),
            ("1,x,100%", "\"x\" is neither"),
            ("1,110%", "0% to 100%"),
            ("0,100%", "tries nothing"),
            ("0%,100%", "tries nothing"),
            ("1,10%", "the last wave must be 100%"),
            ("5,1,100%", "larger than the one before"),
            ("50%,10%,100%", "larger than the one before"),
            ("100%,100%", "larger than the one before"),
        ] {
            let words = text.parse::<Waves>().unwrap_err();
            assert!(words.contains(expected), "{text}: {words}");
        }
    }

    #[test]
    fn who_is_skipped_gives_its_place_to_the_next() {
        use Standing::{Open, Skipped, Tried};
        for (devices, target, expected) in [
            (&[Open, Open, Open][..], 1, &[0][..]),
            (&[Skipped, Open, Open], 1, &[1]),
            (&[Tried, Open, Open], 1, &[]),
            (&[Tried, Skipped, Open, Open], 2, &[2]),
            (&[Tried, Skipped, Open, Open], 4, &[2, 3]),
            (&[Skipped, Skipped], 1, &[]),
        ] {
            assert_eq!(next(devices, target), expected, "{devices:?} {target}");
        }
    }

    proptest::proptest! {
        /// Whoever is skipped, every device has its turn once, and a wave over never leaves its target undone.
        #[test]
        fn every_device_has_its_turn_once(fates in proptest::collection::vec(proptest::bool::ANY, 0..60), share in 1usize..100) {
            let waves = waves(&if share == 1 { "1,100%".to_owned() } else { format!("1,{share}%,100%") });
            let mut standings = vec![Standing::Open; fates.len()];
            for target in waves.targets(fates.len()) {
                loop {
                    let batch = next(&standings, target);
                    if batch.is_empty() {
                        break;
                    }
                    for place in batch {
                        proptest::prop_assert_eq!(standings[place], Standing::Open);
                        standings[place] = if fates[place] { Standing::Tried } else { Standing::Skipped };
                    }
                    let tried = standings.iter().filter(|standing| **standing == Standing::Tried).count();
                    proptest::prop_assert!(tried <= target);
                }
                let tried = standings.iter().filter(|standing| **standing == Standing::Tried).count();
                proptest::prop_assert!(tried == target || !standings.contains(&Standing::Open));
            }
            proptest::prop_assert!(!standings.contains(&Standing::Open));
        }
    }
}
