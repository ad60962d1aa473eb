//! From a checkpoint to a bundle.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use recurve_bundle::{
    ARCHITECTURE, Digest, GenerationDefaults, Golden, INFO_FORMAT, MEDIA_DOC, MEDIA_WEIGHT, MEDIA_WEIGHT_CONFIG,
    ModelInfo, StateInfo, StateKind, Tolerance, file, parameter_size,
};
use recurve_model::{
    Checkpoint, ExportOptions, GraphPlan, Importance, ModelConfig, RandomWeights, Rounded, StateSpec, TensorReport,
    WeightFormat, Weights, quantize, reference,
};

use crate::card::{self, QuantizationReport};
use crate::compare::{Comparison, compare};
use crate::error::ExportError;
use crate::generation::{self, Generation};
use crate::json;
use crate::name;
use crate::pack::{self, BundleWriter};
use crate::sample::{Text, Tokens};
use crate::tokenizer::{self, ChatTemplate, CheckpointTokenizer};
use crate::watch::{Counted, Observer, Phase, Watched};

/// Values that share a scale unless told otherwise. 64 stays close to the accuracy of 32 with half its scales, and
/// divides the widths of small models, where 128 often does not.
pub const DEFAULT_BLOCK_SIZE: usize = 64;
/// Most tokens in one step of a row unless told otherwise.
pub const DEFAULT_MAX_CHUNK: usize = 128;

/// Tokens of a file of samples that are read unless told otherwise: enough for the mean square of every column.
pub const DEFAULT_SAMPLE_TOKENS: usize = 4096;

/// Tokens of the golden test.
const GOLDEN_TOKENS: usize = 16;
/// Most positions with logits.
const GOLDEN_POSITIONS: usize = 4;
/// Bytes that the logits keep to, as long as they are of more than one position.
const GOLDEN_BYTES: usize = 4 << 20;
/// Largest prefill chunk that a bundle may fix.
const MOST_CHUNK: usize = 4096;
/// Room for everything in a bundle that is not weights.
const ROOM_FOR_THE_REST: u64 = 64 << 20;

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Where the weights come from.
    pub source: Source,
    /// The directory to make.
    pub out: PathBuf,
    /// Whether a bundle that is there already is replaced.
    pub overwrite: bool,
    /// The model's name; by default the checkpoint directory's.
    pub name: Option<String>,
    /// How the weights are stored, and the size of the rings.
    pub options: ExportOptions,
    /// By which texts the quantization is made and judged.
    pub samples: Samples,
}

/// Texts of the kind that the model is for: a file that ends in `.jsonl` has objects with `prompt` and `completion`, or with
/// `text`, one a line; any other file is a text.
#[derive(Debug, Clone)]
pub struct Samples {
    /// 4-bit values are rounded by what matters while the model reads these.
    pub calibrate: Option<PathBuf>,
    /// The bundle's report says how the model reads these after rounding, and before.
    pub compare: Option<PathBuf>,
    /// Most tokens of each.
    pub tokens: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self { calibrate: None, compare: None, tokens: DEFAULT_SAMPLE_TOKENS }
    }
}

/// Where weights come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A Hugging Face checkpoint.
    Checkpoint {
        /// Its directory.
        dir: PathBuf,
        /// Whether its tokenizer and chat template come along; without them the bundle takes and gives token ids only.
        tokenizer: bool,
    },
    /// Random weights of any shape, to size a device. Such a bundle has no tokenizer.
    Random {
        /// A `config.json`.
        config: PathBuf,
        /// The same seed gives the same bytes.
        seed: u64,
    },
}

/// What was exported.
#[derive(Debug, Clone)]
pub struct Exported {
    /// What the daemon is told of the model.
    pub info: ModelInfo,
    /// The manifest's digest.
    pub digest: Digest,
    /// Bytes of all blobs.
    pub bytes: u64,
    /// How far every matrix moved, in the order of the shards.
    pub reports: Vec<TensorReport>,
    /// How the stored weights read the texts that they were to be judged by.
    pub comparison: Option<Comparison>,
    /// Whether text can go in and come out.
    pub tokenizer: bool,
}

/// The texts of a request, as tokens.
#[derive(Default)]
struct Texts {
    calibrate: Option<Vec<Text>>,
    compare: Option<Vec<Text>>,
}

/// What lies beside the weights in a checkpoint.
struct Companions {
    generation: Generation,
    tokenizer: Option<CheckpointTokenizer>,
    chat_template: Option<ChatTemplate>,
    card: Option<String>,
}

/// Exports a checkpoint. All of it is checked before anything is written, as far as that can be done without reading the
/// weights; setting `cancel` ends it soon.
///
/// # Errors
/// Names the file, tensor or option that cannot be used. Nothing is left behind, and an output that was to be replaced
/// is as it was.
pub fn export(request: &ExportRequest, observer: &dyn Observer, cancel: &AtomicBool) -> Result<Exported, ExportError> {
    let result = prepare_and_write(request, observer, cancel);
    match result {
        Err(_) if cancel.load(Ordering::Relaxed) => Err(ExportError::Cancelled),
        result => result,
    }
}

fn prepare_and_write(
    request: &ExportRequest,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<Exported, ExportError> {
    check_options(&request.options)?;
    check_samples(request)?;
    let given = request.name.as_deref().map(name::check).transpose()?;
    match &request.source {
        Source::Checkpoint { dir, tokenizer } => {
            let config = ModelConfig::read(&dir.join("config.json"))?;
            let companions = companions(dir, &config, *tokenizer)?;
            let texts = texts(&request.samples, &config, &companions)?;
            let weights = Checkpoint::open(dir, &config)?;
            let name = given.unwrap_or_else(|| name::of_checkpoint(dir));
            let weights = Watched { weights: &weights, cancel };
            write(request, name, &config, &weights, &companions, &texts, observer)
        }
        Source::Random { config, seed } => {
            let config = ModelConfig::read(config)?;
            let name = given.unwrap_or_else(|| format!("random-{}", parameter_size(config.parameters())));
            let weights = RandomWeights::new(&config, *seed);
            let companions = Companions {
                generation: Generation {
                    defaults: GenerationDefaults::new(),
                    bos_token: config.bos_token,
                    end_tokens: config.end_tokens.clone(),
                },
                tokenizer: None,
                chat_template: None,
                card: None,
            };
            let weights = Watched { weights: &weights, cancel };
            write(request, name, &config, &weights, &companions, &Texts::default(), observer)
        }
    }
}

fn check_options(options: &ExportOptions) -> Result<(), ExportError> {
    let refuse =
        |option, value: usize, problem: String| Err(ExportError::Option { option, value: value.to_string(), problem });
    if !quantize::BLOCK_SIZES.contains(&options.block_size) {
        return refuse("--block-size", options.block_size, format!("allowed are {:?}", quantize::BLOCK_SIZES));
    }
    if !(1..=MOST_CHUNK).contains(&options.max_chunk) {
        return refuse("--max-chunk", options.max_chunk, format!("allowed are 1 to {MOST_CHUNK}"));
    }
    Ok(())
}

fn check_samples(request: &ExportRequest) -> Result<(), ExportError> {
    let Samples { calibrate, compare, tokens } = &request.samples;
    for (option, path) in [("--calibrate", calibrate), ("--compare", compare)] {
        let Some(path) = path else { continue };
        let refuse = |problem: &str| {
            let (value, problem) = (path.display().to_string(), problem.to_owned());
            Err(ExportError::Option { option, value, problem })
        };
        if !matches!(request.source, Source::Checkpoint { tokenizer: true, .. }) {
            return refuse(
                "a text is read with the checkpoint's tokenizer: neither random weights nor --no-tokenizer go with it",
            );
        }
        if option == "--calibrate" && request.options.weights != WeightFormat::Int4 {
            return refuse("only int4 is rounded by what matters: leave it out, or pass --weights int4");
        }
    }
    if *tokens == 0 {
        let problem = "at least 1 token must be read".to_owned();
        return Err(ExportError::Option { option: "--sample-tokens", value: tokens.to_string(), problem });
    }
    Ok(())
}

/// Reads the files of samples.
fn texts(samples: &Samples, config: &ModelConfig, companions: &Companions) -> Result<Texts, ExportError> {
    let read = |path: &Option<PathBuf>| match (path, &companions.tokenizer) {
        (Some(path), Some(CheckpointTokenizer { parsed, .. })) => {
            let tokens = Tokens { tokenizer: parsed, config, bos_token: companions.generation.bos_token };
            tokens.read(path, samples.tokens).map(Some)
        }
        _ => Ok(None),
    };
    Ok(Texts { calibrate: read(&samples.calibrate)?, compare: read(&samples.compare)? })
}

fn companions(dir: &Path, config: &ModelConfig, with_tokenizer: bool) -> Result<Companions, ExportError> {
    let generation = generation::read(dir, config)?;
    let chat_template = if with_tokenizer { tokenizer::chat_template(dir)? } else { None };
    let source = chat_template.as_ref().map_or("", |template| template.source.as_str());
    let tokenizer = if with_tokenizer { Some(tokenizer::read(dir, config, source)?) } else { None };
    if let (Some(template), Some(tokenizer)) = (&chat_template, &tokenizer) {
        tokenizer::check_template(template, &tokenizer.parsed, &generation)?;
    }
    Ok(Companions { generation, tokenizer, chat_template, card: json::read_text(&dir.join("README.md"))? })
}

/// Writes the bundle, layer by layer of the manifest.
fn write(
    request: &ExportRequest,
    name: String,
    config: &ModelConfig,
    weights: &dyn Weights,
    companions: &Companions,
    texts: &Texts,
    observer: &dyn Observer,
) -> Result<Exported, ExportError> {
    let plan = GraphPlan::new(config, &request.options);
    let info = info(name, config, &request.options, &companions.generation, plan.states())?;
    info.check()?;
    let mut bundle = BundleWriter::create(&request.out, request.overwrite)?;
    let weight_bytes = plan.shards().iter().map(|shard| shard.bytes()).sum();
    bundle.reserve(weight_bytes + ROOM_FOR_THE_REST)?;

    let importance = match &texts.calibrate {
        Some(texts) => Some(importance(config, weights, texts, observer)?),
        None => None,
    };
    let rounded =
        Rounded::new(weights, config, request.options.weights, request.options.block_size, importance.as_ref());
    observer.phase(Phase::Weights(weight_bytes));
    let (blobs, reports) = write_shards(&mut bundle, &plan, weights, importance.as_ref(), observer)?;
    bundle.add(file::GRAPH, MEDIA_WEIGHT_CONFIG, &plan.graph(&blobs))?;
    if let Some(tokenizer) = &companions.tokenizer {
        bundle.add(file::TOKENIZER, MEDIA_WEIGHT_CONFIG, &tokenizer.file)?;
    }
    if let Some(template) = &companions.chat_template {
        bundle.add(file::CHAT_TEMPLATE, MEDIA_WEIGHT_CONFIG, template.source.as_bytes())?;
    }
    let defaults = pack::pretty(&companions.generation.defaults, file::GENERATION)?;
    bundle.add(file::GENERATION, MEDIA_WEIGHT_CONFIG, &defaults)?;

    observer.phase(Phase::Golden(config.parameters()));
    let golden = golden(config, &request.options, &rounded, observer)?;
    bundle.add(file::GOLDEN, MEDIA_WEIGHT_CONFIG, &golden.to_bytes()?)?;
    let comparison = match &texts.compare {
        Some(texts) => Some(judge(config, weights, &rounded, texts, observer)?),
        None => None,
    };

    observer.phase(Phase::Finish);
    let report = QuantizationReport {
        format: 1,
        weights: &info.weights,
        block_size: info.block_size,
        calibration_tokens: texts.calibrate.as_deref().map(count_tokens),
        comparison: comparison.as_ref(),
        tensors: &reports,
    };
    bundle.add(file::QUANTIZATION, MEDIA_DOC, &pack::pretty(&report, file::QUANTIZATION)?)?;
    let card = card::card(companions.card.as_deref(), &info, weight_bytes, &report, &golden);
    bundle.add(file::CARD, MEDIA_DOC, card.as_bytes())?;
    let packed = bundle.finish(&info)?;
    let tokenizer = companions.tokenizer.is_some();
    Ok(Exported { info, digest: packed.digest, bytes: packed.bytes, reports, comparison, tokenizer })
}

/// Writes every weight shard. Gives the names of their blobs, and the error of every matrix.
fn write_shards(
    bundle: &mut BundleWriter,
    plan: &GraphPlan,
    weights: &dyn Weights,
    importance: Option<&Importance>,
    observer: &dyn Observer,
) -> Result<(Vec<String>, Vec<TensorReport>), ExportError> {
    let mut blobs = Vec::new();
    let mut reports = Vec::new();
    for shard in plan.shards() {
        let filepath = format!("{}/{}.bin", file::WEIGHTS, shard.name());
        let (digest, report) = bundle.stream(&filepath, MEDIA_WEIGHT, |out| {
            shard.write(weights, importance, out, &mut |bytes| observer.advance(bytes)).map_err(ExportError::from)
        })?;
        blobs.push(digest.hex());
        reports.extend(report);
    }
    Ok((blobs, reports))
}

/// How many tokens the model reads of these.
fn count_tokens(texts: &[Text]) -> u64 {
    texts.iter().map(|text| text.tokens.len() as u64).sum()
}

/// What matters while the checkpoint reads these texts.
fn importance(
    config: &ModelConfig,
    weights: &dyn Weights,
    texts: &[Text],
    observer: &dyn Observer,
) -> Result<Importance, ExportError> {
    observer.phase(Phase::Calibrate(config.parameters() * texts.len() as u64));
    let tokens = texts.iter().map(|text| text.tokens.as_slice());
    reference::importance(config, &Counted { weights, observer }, tokens).map_err(ExportError::Sample)
}

/// How the stored weights read these texts, against those of the checkpoint.
fn judge(
    config: &ModelConfig,
    weights: &dyn Weights,
    stored: &dyn Weights,
    texts: &[Text],
    observer: &dyn Observer,
) -> Result<Comparison, ExportError> {
    observer.phase(Phase::Compare(2 * config.parameters() * texts.len() as u64));
    let (original, stored) = (Counted { weights, observer }, Counted { weights: stored, observer });
    compare(config, &original, &stored, texts).map_err(ExportError::Sample)
}

/// The golden test of the weights as the bundle holds them.
fn golden(
    config: &ModelConfig,
    options: &ExportOptions,
    stored: &dyn Weights,
    observer: &dyn Observer,
) -> Result<Golden, ExportError> {
    let tokens = reference::golden_tokens(config, GOLDEN_TOKENS);
    let positions = (GOLDEN_BYTES / (4 * config.vocab_size)).clamp(1, GOLDEN_POSITIONS);
    let counted = Counted { weights: stored, observer };
    let logits = reference::logits(config, &counted, &tokens, positions).map_err(ExportError::Golden)?;
    let tolerance = match options.weights {
        WeightFormat::F32 => Tolerance::MaxAbs,
        WeightFormat::Int8 | WeightFormat::Int4 => Tolerance::RelativeRms,
    };
    Ok(Golden { tokens, logits, positions, vocab_size: config.vocab_size, tolerance })
}

fn info(
    name: String,
    config: &ModelConfig,
    options: &ExportOptions,
    generation: &Generation,
    states: &[StateSpec],
) -> Result<ModelInfo, ExportError> {
    let state = |state: &StateSpec| {
        Ok(StateInfo {
            name: state.name.clone(),
            kind: match state.kind {
                recurve_model::StateKind::Conv => StateKind::Conv,
                recurve_model::StateKind::Lru => StateKind::Lru,
                recurve_model::StateKind::Keys => StateKind::K,
                recurve_model::StateKind::Values => StateKind::V,
            },
            layer: narrow(state.layer)?,
            shape: state.shape.iter().map(|&size| narrow(size)).collect::<Result<_, _>>()?,
        })
    };
    let block_size = match options.weights {
        WeightFormat::F32 => None,
        WeightFormat::Int8 | WeightFormat::Int4 => Some(narrow(options.block_size)?),
    };
    Ok(ModelInfo {
        format: INFO_FORMAT,
        name,
        architecture: ARCHITECTURE.to_owned(),
        parameters: config.parameters(),
        hidden_size: narrow(config.hidden_size)?,
        layers: narrow(config.layers())?,
        vocab_size: narrow(config.vocab_size)?,
        window: narrow(config.window)?,
        max_chunk: narrow(options.max_chunk)?,
        weights: options.weights.word().to_owned(),
        block_size,
        states: states.iter().map(state).collect::<Result<_, ExportError>>()?,
        bos_token: generation.bos_token,
        end_tokens: generation.end_tokens.clone(),
    })
}

/// Sizes of a checked configuration fit 32 bits, except a ring at the very end of what is allowed.
fn narrow(size: usize) -> Result<u32, ExportError> {
    u32::try_from(size).map_err(|_| ExportError::Option {
        option: "config.json:",
        value: size.to_string(),
        problem: "a size that does not fit 32 bits cannot be exported".to_owned(),
    })
}
