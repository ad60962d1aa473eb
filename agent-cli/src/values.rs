//! Values of the command line: numbers, times, token ids. Each error says what is allowed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Reads a whole number within these bounds.
pub(crate) fn whole<T: TryFrom<u64> + 'static>(
    bounds: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse::<u64>().ok().filter(|number| bounds.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match (*bounds.start(), *bounds.end()) {
            (least, u64::MAX) => format!("allowed: a whole number of at least {least}"),
            (least, most) => format!("allowed: a whole number from {least} to {most}"),
        })
    }
}

/// Reads a number with or without a fraction.
pub(crate) fn decimal(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "allowed: a number such as 0.7".to_owned())
}

/// `ID=VALUE`.
pub(crate) fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text.split_once('=').ok_or("write ID=VALUE, such as 17=-100")?;
    let id = id.parse().map_err(|_| format!("{id:?} is not a token id: write ID=VALUE, such as 17=-100"))?;
    Ok((id, decimal(value)?))
}

/// A time above zero with its unit: `500ms`, `1.5s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number and a unit: 500ms, 30s, 2m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    // A gRPC deadline has at most eight digits; a year is far below what it can say.
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0;
    let seconds = number * seconds;
    if !(0.001..=LONGEST).contains(&seconds) {
        return Err("the time must be from 1ms to 8760h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// As [`duration`], or `0s`.
pub(crate) fn duration_or_none(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

/// Token ids, separated by commas or spaces: `2,17,30`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens(pub(crate) Vec<u32>);

impl std::str::FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ids: Vec<u32> = text
            .split([',', ' ', '\t', '\r', '\n'])
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|_| format!("{part:?} is not a token id: write ids such as 2,17,30")))
            .collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Err("no token ids: write ids such as 2,17,30".to_owned());
        }
        Ok(Self(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds_that_are_told() {
        let small = whole::<u16>(1..=64);
        assert_eq!((small("1"), small("64")), (Ok(1), Ok(64)));
        for wrong in ["0", "65", "-5", "1e3", "", "x", "1.5", " 1"] {
            assert_eq!(small(wrong), Err("allowed: a whole number from 1 to 64".to_owned()), "{wrong:?}");
        }
        assert_eq!(whole::<u64>(0..=u64::MAX)("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(whole::<u64>(0..=u64::MAX)("-1"), Err("allowed: a whole number of at least 0".to_owned()));
        assert_eq!((decimal("-0.5"), decimal("1e-3")), (Ok(-0.5), Ok(0.001)));
        for wrong in ["hot", "nan", "inf", "", "0,7"] {
            assert!(decimal(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_need_a_unit_and_a_sensible_size() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "30", "s", "-1s", "0s", "1d", "1..2s", "99999999h", "0.1ms", "ms", "1 s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn token_ids_are_separated_by_commas_or_spaces() {
        assert_eq!("2,17, 30\n".parse(), Ok(Tokens(vec![2, 17, 30])));
        assert_eq!("2 17".parse(), Ok(Tokens(vec![2, 17])));
        for wrong in ["", " ", ",", "2,x", "-1", "4294967296", "[2]"] {
            assert!(wrong.parse::<Tokens>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_logit_bias_is_an_id_and_a_number() {
        assert_eq!(logit_bias("17=-100"), Ok((17, -100.0)));
        for wrong in ["17", "=1", "a=1", "17=", "17=x"] {
            assert!(logit_bias(wrong).is_err(), "{wrong:?}");
        }
    }
}
