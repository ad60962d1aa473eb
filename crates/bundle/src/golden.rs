//! The golden test: what the model must answer on a device before it serves.
//!
//! A safetensors file with the tensors `tokens`, i64 `[T]`, and `logits`, f32 `[N, V]`: the logits after each of the last
//! `N` tokens. Its metadata has one entry, `golden`, a JSON text with `format` and `tolerance` (one entry, because the
//! order of several is not fixed, and the file's bytes are hashed).

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::BundleError;
use crate::json;
use crate::layout::file;

/// The format of `golden.safetensors` that this version writes and reads.
pub const GOLDEN_FORMAT: u32 = 1;

const METADATA: &str = "golden";
const TOKENS: &str = "tokens";
const LOGITS: &str = "logits";

/// Tokens, and the logits that the oracle computed from them with the bundle's own weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// The input, from position 0; at least one.
    pub tokens: Vec<u32>,
    /// `[positions, vocab_size]`, row-major: after each of the last `positions` tokens.
    pub logits: Vec<f32>,
    /// How many of the last positions have logits; 1 to the number of tokens.
    pub positions: usize,
    /// Values in a row of logits.
    pub vocab_size: usize,
    /// How a device's logits are compared with these.
    pub tolerance: Tolerance,
}

/// The measure by which a device's logits are compared with the golden ones. How much is allowed is the device's to
/// know: it depends on its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// The largest difference of two logits; for f32 weights, where only the order of summation differs.
    MaxAbs,
    /// The root mean square of the differences over that of the logits; for quantized weights, whose kernels round
    /// activations to 8 bits as the oracle does not.
    RelativeRms,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: u32,
    tolerance: Tolerance,
}

impl Golden {
    /// Parses and checks the file's bytes.
    ///
    /// # Errors
    /// Names the tensor and what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
        let metadata = header
            .metadata()
            .as_ref()
            .and_then(|map| map.get(METADATA))
            .ok_or_else(|| wrong(format!("its metadata has no entry `{METADATA}`")))?;
        json::check_format(file::GOLDEN, metadata.as_bytes(), GOLDEN_FORMAT)?;
        let Metadata { tolerance, .. } = json::parse(file::GOLDEN, metadata.as_bytes())?;

        let tensors = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
        let tensor = |name: &str| {
            let missing = |_| wrong(format!("tensor `{name}` is missing"));
            tensors.tensor(name).map_err(missing)
        };
        let (tokens, logits) = (tensor(TOKENS)?, tensor(LOGITS)?);
        let (&[count], Dtype::I64) = (tokens.shape(), tokens.dtype()) else {
            return Err(wrong_type(TOKENS, &tokens, "I64 [T]"));
        };
        let (&[positions, vocab_size], Dtype::F32) = (logits.shape(), logits.dtype()) else {
            return Err(wrong_type(LOGITS, &logits, "F32 [N, V]"));
        };
        if positions == 0 || positions > count || vocab_size == 0 {
            return Err(wrong(format!(
                "{positions} positions of {vocab_size} logits for {count} tokens; allowed are 1 to as many as there are tokens"
            )));
        }
        let tokens = tokens
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes))
            .map(|token| match u32::try_from(token) {
                Ok(id) if (id as usize) < vocab_size => Ok(id),
                _ => Err(wrong(format!("token {token} is not one of the {vocab_size} that have logits"))),
            })
            .collect::<Result<_, _>>()?;
        let logits: Vec<f32> =
            logits.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(wrong(format!("logit {at} is {}, not a finite number", logits[at])));
        }
        Ok(Self { tokens, logits, positions, vocab_size, tolerance })
    }

    /// The file's bytes: the same for the same test.
    ///
    /// # Errors
    /// When the shapes do not fit the number of values.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let tokens: Vec<u8> = self.tokens.iter().flat_map(|&token| i64::from(token).to_le_bytes()).collect();
        let logits: Vec<u8> = self.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let tensors = [
            (TOKENS, TensorView::new(Dtype::I64, vec![self.tokens.len()], &tokens)),
            (LOGITS, TensorView::new(Dtype::F32, vec![self.positions, self.vocab_size], &logits)),
        ];
        let tensors = tensors
            .into_iter()
            .map(|(name, view)| Ok((name, view?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(not_safetensors)?;
        let metadata = Metadata { format: GOLDEN_FORMAT, tolerance: self.tolerance };
        let metadata = serde_json::to_string(&metadata).map_err(|error| wrong(error.to_string()))?;
        let metadata = HashMap::from([(METADATA.to_owned(), metadata)]);
        safetensors::serialize(tensors, Some(metadata)).map_err(not_safetensors)
    }
}

fn wrong(problem: String) -> BundleError {
    BundleError::Golden { problem }
}

fn not_safetensors(error: SafeTensorError) -> BundleError {
    wrong(format!("not a safetensors file: {error}"))
}

fn wrong_type(name: &str, tensor: &TensorView<'_>, allowed: &str) -> BundleError {
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    wrong(format!("tensor `{name}` is {dtype:?} {shape:?}; allowed is {allowed}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden() -> Golden {
        Golden {
            tokens: vec![2, 0, 4],
            logits: (0..10).map(|i| i as f32 - 4.5).collect(),
            positions: 2,
            vocab_size: 5,
            tolerance: Tolerance::RelativeRms,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = golden().to_bytes().unwrap();
        assert_eq!(Golden::parse(&bytes).unwrap(), golden());
        assert_eq!(bytes, golden().to_bytes().unwrap());
    }

    #[test]
    fn wrong_contents_are_named() {
        type Change = fn(&mut Golden);
        let cases: [(&str, Change); 3] = [
            ("token 5 is not one of the 5", |g| g.tokens[0] = 5),
            ("logit 3 is NaN", |g| g.logits[3] = f32::NAN),
            ("2 positions of 5 logits for 1 tokens", |g| g.tokens.truncate(1)),
        ];
        for (expected, change) in cases {
            let mut golden = golden();
            change(&mut golden);
            let error = Golden::parse(&golden.to_bytes().unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut short = golden();
        short.logits.pop();
        assert!(short.to_bytes().is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
            let mut bytes = golden().to_bytes().unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = Golden::parse(&bytes);
            let _ = Golden::parse(&bytes[..cut % length]);
        }
    }
}
