//! Whether a model fits into memory, and whether beside the one that is served.

use recurve_bundle::{Bundle, Digest, Manifest, ModelInfo, StateKind, file};

use crate::config::{EngineSettings, KernelSetting, Settings, Switch};
use crate::store::{Store, StoreError};
use crate::system::memory::available;

/// What the daemon takes besides rows and weights: the engine, the graph, buffers between two operators.
const FIXED: u64 = 64 << 20;
/// Memory that a tokenizer takes for each byte of its file, while it is read.
const TOKENIZER: u64 = 6;
/// ONNX Runtime's own kernels copy the weights into another order: bytes for each 100 of the shards, as measured with int4 at
/// block 32, where it is most.
const REPACKED_PERCENT: u64 = 130;
/// Left free for the rest of the system.
const SPARE: u64 = 64 << 20;

/// How a model takes the place of the one that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is loaded while the other one serves.
    Beside,
    /// The other one ends first.
    InTurn,
}

/// Why a model has no room in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model needs {} MiB of memory beside its weights and {} MiB can be had, also without the model that is served: \
     set engine.slots lower, or take a smaller model",
    needed >> 20, can_be_had >> 20
)]
pub struct NoMemory {
    /// Bytes that it takes.
    pub needed: u64,
    /// Bytes that are available when the other model is gone.
    pub can_be_had: u64,
}

/// Bytes of memory of its own that a model takes here, beside its weights, which are mapped.
pub(crate) fn needed(info: &ModelInfo, manifest: &Manifest, settings: &EngineSettings) -> u64 {
    let bytes = |kinds: fn(StateKind) -> bool| -> u64 {
        let states = info.states.iter().filter(|state| kinds(state.kind));
        states.map(|state| state.shape.iter().map(|&dim| u64::from(dim)).product::<u64>() * 4).sum()
    };
    let rings = bytes(|kind| matches!(kind, StateKind::K | StateKind::V));
    // The small states have two sides: a step reads one and writes the other.
    let row = rings.saturating_add(2 * bytes(|kind| matches!(kind, StateKind::Conv | StateKind::Lru)));
    let slots = settings.slots as u64;
    let logits = slots.saturating_mul(u64::from(info.vocab_size) * 4).max(16 << 20);
    let of = |wanted: fn(&str) -> bool| -> u64 {
        manifest.layers.iter().filter(|layer| layer.filepath().is_some_and(wanted)).map(|layer| layer.size).sum()
    };
    let tokenizer = of(|path| path == file::TOKENIZER).saturating_mul(TOKENIZER);
    let weights = of(|path| path.starts_with(file::WEIGHTS));
    let repacked = match settings.kernels {
        KernelSetting::OnnxRuntime => weights / 100 * REPACKED_PERCENT,
        KernelSetting::Auto | KernelSetting::Recurve => 0,
    };
    // Locked weights cannot give way.
    let locked = if settings.lock_weights { weights } else { 0 };
    [slots.saturating_mul(row), logits, tokenizer, repacked, locked]
        .iter()
        .fold(FIXED, |sum, &part| sum.saturating_add(part))
}

/// What to do where a model does not fit.
pub(crate) const ADVICE: &str = "set engine.slots lower, take smaller weights (agent-cli export --weights int4), end what else \
                                 runs on this machine, or raise the service's limit (MemoryMax)";

/// Whether a model takes more than the system still gives. `available`: bytes, where it says so.
pub(super) fn shortage(bundle: &Bundle, settings: &EngineSettings, available: Option<u64>) -> Option<NoMemory> {
    let needed = needed(bundle.info(), bundle.manifest(), settings);
    short(needed, available)
}

fn short(needed: u64, available: Option<u64>) -> Option<NoMemory> {
    let can_be_had = available.filter(|available| needed > *available)?;
    Some(NoMemory { needed, can_be_had })
}

/// Which way a model that takes `needed` bytes can go. `available`: bytes that can be taken now, where the system says so;
/// `held`: those of the model that is served.
///
/// # Errors
/// There is no room for it, not even alone.
pub(super) fn way(switch: Switch, needed: u64, available: Option<u64>, held: u64) -> Result<Way, NoMemory> {
    let available = available.map_or(u64::MAX, |bytes| bytes.saturating_sub(SPARE));
    let alone = available.saturating_add(held);
    match switch {
        _ if needed > alone => Err(NoMemory { needed, can_be_had: alone }),
        Switch::InTurn => Ok(Way::InTurn),
        Switch::Auto if needed > available => Ok(Way::InTurn),
        Switch::Auto | Switch::Beside => Ok(Way::Beside),
    }
}

/// What a plan says of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the model takes beside its weights; 0 where nobody said what it is like.
    pub needed: u64,
    /// Bytes that are available.
    pub available: u64,
    /// Why it has no room.
    pub refusal: Option<String>,
    /// The model that is served has to end first.
    pub in_turn: bool,
}

impl Room {
    /// Looks whether a model would have room. `served`: the digest of the one that is served; `info`: the bytes of the new
    /// one's `recurve.json`, if the caller has them.
    ///
    /// # Errors
    /// Those bytes are not what the manifest names, or cannot be read.
    pub fn of(
        store: &Store,
        settings: &Settings,
        served: Option<String>,
        manifest: &[u8],
        info: &[u8],
    ) -> Result<Self, StoreError> {
        let free = available();
        if info.is_empty() {
            return Ok(Self { available: free.unwrap_or(0), ..Self::default() });
        }
        let bundle = Digest::of(manifest);
        let manifest = Manifest::parse(manifest)?;
        let actual = Digest::of(info);
        let named = manifest.layers.iter().any(|layer| layer.filepath() == Some(file::INFO) && layer.digest == actual);
        if !named {
            return Err(StoreError::NotNamed { bundle, digest: actual, size: info.len() as u64 });
        }
        let needed = needed(&ModelInfo::parse(info)?, &manifest, &settings.engine);
        let served = served.and_then(|digest| digest.parse().ok()).and_then(|digest| store.bundle(digest).ok());
        let held = served.map_or(0, |bundle| self::needed(bundle.info(), bundle.manifest(), &settings.engine));
        let way = way(settings.switch, needed, free, held);
        Ok(Self {
            needed,
            available: free.unwrap_or(0),
            in_turn: way == Ok(Way::InTurn),
            refusal: way.err().map(|error| error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_too_little_memory_is_told_before_a_model_is_loaded() {
        assert_eq!(short(2, Some(1)), Some(NoMemory { needed: 2, can_be_had: 1 }));
        assert_eq!(short(1, Some(1)), None);
        assert_eq!(short(u64::MAX, None), None);
    }

    #[test]
    fn a_model_goes_beside_where_it_fits_in_turn_where_it_must_and_nowhere_else() {
        const MB: u64 = 1 << 20;
        for (needed, available, held, expected) in [
            (100, Some(1000), 0, Ok(Way::Beside)),
            (936, Some(1000), 0, Ok(Way::Beside)),
            (937, Some(1000), 1, Ok(Way::InTurn)),
            (1936, Some(1000), 1000, Ok(Way::InTurn)),
            (1937, Some(1000), 1000, Err(NoMemory { needed: 1937 * MB, can_be_had: 1936 * MB })),
            (1, Some(10), 0, Err(NoMemory { needed: MB, can_be_had: 0 })),
            (1 << 40, None, 0, Ok(Way::Beside)),
        ] {
            let available = available.map(|mib: u64| mib * MB);
            assert_eq!(way(Switch::Auto, needed * MB, available, held * MB), expected, "{needed} of {available:?}");
        }
        assert_eq!(way(Switch::InTurn, 1, Some(1000 * MB), 0), Ok(Way::InTurn));
        // What was asked for is tried, if it can be had at all.
        assert_eq!(way(Switch::Beside, 990 * MB, Some(1000 * MB), 100 * MB), Ok(Way::Beside));
    }
}
