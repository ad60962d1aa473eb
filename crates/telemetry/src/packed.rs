//! Records as they lie on a disk: a byte for the version, then the message of `proto/recurve/v1/node.proto`, compressed.
//!
//! Version 1 is compressed by Zstandard with the dictionary `dictionary-1.bin`, a typical record: names and attributes of
//! metrics cost next to nothing. The dictionary of a version never changes.

use std::cell::RefCell;

use prost::Message as _;
use recurve_proto::Bytes;
use recurve_proto::v1::telemetry_record::Content;
use recurve_proto::v1::{Life, Sample, Series, TelemetryRecord};
use zstd::bulk::{Compressor, Decompressor};

const VERSION: u8 = 1;
const DICTIONARY: &[u8] = include_bytes!("dictionary-1.bin");
const LEVEL: i32 = 6;
/// Most bytes of a record: what claims to be more is damaged.
const MOST: usize = 4 << 20;

/// Why a record cannot be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A newer version wrote it.
    #[error("the record is of version {0}; this program knows version {VERSION}")]
    Version(u8),
    /// It is not what was written.
    #[error("the record is damaged: {0}")]
    Damaged(String),
    /// The compressor refused.
    #[error("the record cannot be compressed: {0}")]
    Refused(std::io::Error),
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Packs what a record holds; its numbers are kept beside it.
///
/// # Errors
/// There is no memory.
pub fn pack(content: &Content) -> Result<Vec<u8>, PackError> {
    let message = TelemetryRecord { content: Some(content.clone()), ..TelemetryRecord::default() }.encode_to_vec();
    let compressed = COMPRESSOR.with_borrow_mut(|place| {
        let compressor = match place {
            Some(compressor) => compressor,
            none => none.insert(Compressor::with_dictionary(LEVEL, DICTIONARY)?),
        };
        compressor.compress(&message)
    });
    let compressed = compressed.map_err(PackError::Refused)?;
    let mut packed = Vec::with_capacity(compressed.len() + 1);
    packed.push(VERSION);
    packed.extend(compressed);
    Ok(packed)
}

/// Unpacks it again.
///
/// # Errors
/// It is damaged, or a newer version wrote it.
pub fn unpack(packed: &[u8]) -> Result<Content, PackError> {
    let message = decompress(packed)?;
    let record = TelemetryRecord::decode(message).map_err(|error| PackError::Damaged(error.to_string()))?;
    record.content.ok_or_else(|| PackError::Damaged("it holds nothing".to_owned()))
}

/// The message, encoded.
fn decompress(packed: &[u8]) -> Result<Bytes, PackError> {
    let compressed = match packed.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((&version, _)) => return Err(PackError::Version(version)),
        None => return Err(PackError::Damaged("it is empty".to_owned())),
    };
    let message = DECOMPRESSOR.with_borrow_mut(|place| {
        let decompressor = match place {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::with_dictionary(DICTIONARY)?),
        };
        decompressor.decompress(compressed, MOST)
    });
    message.map(Bytes::from).map_err(|error| PackError::Damaged(error.to_string()))
}

/// Unpacks of a sample only the series of these metrics, many times faster than all; none of an event.
///
/// # Errors
/// It is damaged, or a newer version wrote it.
pub fn unpack_only(packed: &[u8], metrics: &[String]) -> Result<Option<Sample>, PackError> {
    let message = decompress(packed)?;
    let damaged = |error: prost::DecodeError| PackError::Damaged(error.to_string());
    let Some(lean) = LeanRecord::decode(message).map_err(damaged)?.sample else { return Ok(None) };
    // A series begins with its metric's name, as everything that is encoded in the order of its fields.
    let wanted = |series: &Bytes| match series.split_at_checked(2) {
        Some(([NAME, length], rest)) => {
            rest.get(..usize::from(*length)).is_some_and(|name| metrics.iter().any(|metric| metric.as_bytes() == name))
        }
        _ => false,
    };
    let series =
        lean.series.into_iter().filter(wanted).map(Series::decode).collect::<Result<_, _>>().map_err(damaged)?;
    Ok(Some(Sample { begin: lean.begin, length: lean.length, life: lean.life, series }))
}

/// The tag of a series' first field, its name; names are shorter than 128 bytes, so that their length is one byte.
const NAME: u8 = 0x0A;

/// A record whose series are not looked into. Tags are those of `proto/recurve/v1/node.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct LeanRecord {
    #[prost(message, optional, tag = "3")]
    sample: Option<LeanSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeanSample {
    #[prost(message, optional, tag = "1")]
    begin: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "2")]
    length: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "3")]
    life: Option<Life>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    series: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use recurve_proto::v1::{NodeEvent, series::Value};

    use super::*;

    #[test]
    fn what_was_packed_comes_back() {
        let series = Series { metric: "a".to_owned(), value: Some(Value::Counter(1.5)), ..Series::default() };
        let sample = Content::Sample(Sample { series: vec![series], ..Sample::default() });
        assert_eq!(unpack(&pack(&sample).unwrap()).unwrap(), sample);
        let event = Content::Event(NodeEvent { kind: "daemon.started".to_owned(), ..NodeEvent::default() });
        assert_eq!(unpack(&pack(&event).unwrap()).unwrap(), event);
    }

    #[test]
    fn other_versions_are_named() {
        assert!(matches!(unpack(&[9, 1, 2]), Err(PackError::Version(9))));
        assert!(matches!(unpack(&[]), Err(PackError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), of_ours in any::<bool>()) {
            let mut bytes = bytes;
            if of_ours { bytes.insert(0, VERSION); }
            let _ = unpack(&bytes);
            let _ = unpack_only(&bytes, &["a".to_owned()]);
        }
    }
}
