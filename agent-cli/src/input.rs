//! Text that a person gives: words on the command line, or standard input for `-`.

use std::io::Read as _;

use crate::exit::Failure;

/// Largest text read from standard input: what a request of gRPC's usual 4 MiB holds.
pub(crate) const LARGEST: u64 = 4 << 20;

/// The words joined with single spaces; a lone `-` stands for standard input, less one line end at its very end.
pub(crate) fn text(words: &[String]) -> Result<String, Failure> {
    if words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("cannot read standard input: {error}")))?;
    decode(bytes)
}

/// Bytes as text, less one line end at the very end.
fn decode(bytes: Vec<u8>) -> Result<String, Failure> {
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::Usage(format!(
            "standard input is longer than {LARGEST} bytes, the most that one request can hold"
        )));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::Usage(format!("standard input is not UTF-8 text: byte {at} is the first wrong one"))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_joined_with_a_space() {
        let words = ["set", "the", "fan  to", "40"].map(str::to_owned);
        assert_eq!(text(&words), Ok("set the fan  to 40".to_owned()));
        assert_eq!(text(&["a".to_owned(), "-".to_owned()]), Ok("a -".to_owned()));
    }

    #[test]
    fn one_line_end_is_dropped() {
        for (bytes, expected) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), ("", "")]
        {
            assert_eq!(decode(bytes.into()), Ok(expected.to_owned()), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_and_too_many_of_them_are_named() {
        let Err(Failure::Usage(message)) = decode(b"ab\xffcd".to_vec()) else { panic!() };
        assert!(message.contains("byte 2"), "{message}");
        assert!(matches!(decode(vec![b'a'; LARGEST as usize + 1]), Err(Failure::Usage(_))));
        assert!(decode(vec![b'a'; LARGEST as usize]).is_ok());
    }
}
