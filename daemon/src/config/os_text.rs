//! Text of the system that is not UTF-8. The sources of settings hold UTF-8 only, so such text goes through them encoded: a zero
//! byte, which no path and no argument has, and then every byte in hexadecimal.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

const MARK: char = '\0';

/// The text itself where it is UTF-8, else its encoded form.
pub(super) fn encode(text: &OsStr) -> String {
    match text.to_str() {
        Some(text) => text.to_owned(),
        None => text.as_bytes().iter().fold(MARK.to_string(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// The text that was encoded. Text that `encode` left alone comes back as it is.
pub(super) fn decode(text: &str) -> OsString {
    encoded(text).map_or_else(|| text.into(), OsString::from_vec)
}

/// Whether this stands for text that is not UTF-8.
pub(super) fn is_encoded(text: &str) -> bool {
    encoded(text).is_some()
}

/// The text as people read it: bytes that are not UTF-8 as `\xFF`.
pub(super) fn shown(text: &str) -> String {
    match encoded(text) {
        None => text.to_owned(),
        Some(bytes) => bytes.utf8_chunks().fold(String::new(), |shown, chunk| {
            let wrong: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")).collect();
            shown + chunk.valid() + &wrong
        }),
    }
}

fn encoded(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(MARK)?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if digits.len() % 2 == 0 { digits.chunks(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_the_system_comes_back_as_it_was() {
        for bytes in [&b""[..], b"/var/lib", "/größe".as_bytes(), b"/a\xffb", b"\xff\xfe", b"unix:/\xc3"] {
            let text = OsStr::from_bytes(bytes);
            assert_eq!(decode(&encode(text)), text);
            assert_eq!(is_encoded(&encode(text)), text.to_str().is_none(), "{text:?}");
        }
        assert_eq!(shown(&encode(OsStr::from_bytes(b"/a\xffb"))), "/a\\xFFb");
        assert_eq!((shown("/a"), shown("\0x")), ("/a".to_owned(), "\0x".to_owned()));
    }
}
