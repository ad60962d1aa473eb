//! The caller's deadline, from the header `grpc-timeout`.

use std::time::Duration;

use tokio::time::Instant;

/// Name of the header.
pub(super) const HEADER: &str = "grpc-timeout";

/// When the caller stops waiting; `None` where it never does.
///
/// # Errors
/// What is wrong with the header.
pub(super) fn parse(header: &[u8], accepted: Instant) -> Result<Option<Instant>, String> {
    let malformed = || {
        format!(
            "{:?} is not a timeout: 1 to 8 digits and one of the units H, M, S, m, u, n are allowed",
            String::from_utf8_lossy(header)
        )
    };
    let (unit, digits) = header.split_last().ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let value = digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return Err(malformed()),
    };
    Ok(accepted.checked_add(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        let now = Instant::now();
        for (header, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("2M", Duration::from_secs(120)),
            ("2S", Duration::from_secs(2)),
            ("2m", Duration::from_millis(2)),
            ("2u", Duration::from_micros(2)),
            ("00000002n", Duration::from_nanos(2)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse(header.as_bytes(), now), Ok(Some(now + expected)), "{header}");
        }
        assert!(parse(b"99999999H", now).is_ok());
    }

    #[test]
    fn all_else_is_refused() {
        for header in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1 S", "0x1S"] {
            let error = parse(header.as_bytes(), Instant::now()).unwrap_err();
            assert!(error.contains(&format!("{header:?}")), "{error}");
        }
        assert!(parse(b"\xFFS", Instant::now()).is_err());
    }
}
