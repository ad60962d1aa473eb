//! JSON from outside, with the field named in the error.

use serde::de::DeserializeOwned;

use crate::error::BundleError;

/// Parses a whole document; `file` is how errors call it.
pub(crate) fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, BundleError> {
    let refuse = |field: String, problem: String| BundleError::Json { file: file.to_owned(), field, problem };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| refuse(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| refuse(".".to_owned(), error.to_string()))?;
    Ok(value)
}

/// The major format that a document declares, read before anything else, since the rest may have changed its meaning.
pub(crate) fn check_format(file: &'static str, bytes: &[u8], supported: u32) -> Result<(), BundleError> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = parse(file, bytes)?;
    if format == u64::from(supported) {
        Ok(())
    } else {
        Err(BundleError::UnsupportedFormat { file, found: format, supported })
    }
}

/// Shortens a value from outside before it goes into a message.
pub(crate) fn shown(value: &str) -> String {
    const MOST: usize = 120;
    let mut text: String = value.chars().take(MOST).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}
