//! From a checkpoint to a bundle.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use recurve_bundle::{
    Digest, GenerationDefaults, Golden, MEDIA_DOC, MEDIA_WEIGHT, MEDIA_WEIGHT_CONFIG, ModelInfo, Tolerance, file,
    parameter_size,
};
use recurve_model::{
    Checkpoint, ExportOptions, GraphPlan, Importance, ModelConfig, RandomWeights, Stored, TensorReport, WeightFormat,
    Weights, quantize, reference,
};

use crate::card::{self, QuantizationReport};
use crate::chat::ChatRules;
use crate::compare::{Comparison, compare};
use crate::describe;
use crate::error::ExportError;
use crate::folder;
use crate::generation::{self, Generation};
use crate::json;
use crate::name;
use crate::pack::{self, BundleWriter, PackError};
use crate::sample::{Text, Tokens};
use crate::template::ChatTemplate;
use crate::tokenizer::{self, CheckpointTokenizer};
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
        /// Whether its tokenizer and chat template come along; without them the bundle reads and returns token ids only.
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
    /// The checkpoint's chat templates; none where it was exported without its tokenizer.
    pub chat_template: ChatTemplate,
    /// What the bundle's chat template does; none where there is no template, or it refuses even a single turn.
    pub chat_rules: Option<ChatRules>,
    /// The tokens that end an answer, as the vocabulary has them, with their ids.
    pub end_tokens: Vec<String>,
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
    chat_template: ChatTemplate,
    chat_rules: Option<ChatRules>,
    card: Option<String>,
}

impl Companions {
    /// What every checkpoint has.
    fn without_tokenizer(config: &ModelConfig) -> Self {
        Self {
            generation: Generation {
                defaults: GenerationDefaults::new(),
                bos_token: config.bos_token,
                end_tokens: config.end_tokens.clone(),
            },
            tokenizer: None,
            chat_template: ChatTemplate::default(),
            chat_rules: None,
            card: None,
        }
    }

    /// The tokens that end an answer, each with its id.
    fn end_tokens(&self) -> Vec<String> {
        let named = |id: &u32| match &self.tokenizer {
            Some(tokenizer) => format!("{} ({id})", tokenizer.parsed.token(*id)),
            None => id.to_string(),
        };
        self.generation.end_tokens.iter().map(named).collect()
    }
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
            let dir = &folder::of_checkpoint(dir)?;
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
            let companions = Companions::without_tokenizer(&config);
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
    let card = json::read_text(&dir.join("README.md"))?;
    if !with_tokenizer {
        return Ok(Companions { generation, card, ..Companions::without_tokenizer(config) });
    }
    let chat_template = ChatTemplate::read(dir)?;
    let tokenizer = tokenizer::read(dir, config, chat_template.text.as_deref().unwrap_or_default())?;
    let chat_rules = chat_template.rules(dir, &tokenizer.parsed, &generation)?;
    Ok(Companions { generation, tokenizer: Some(tokenizer), chat_template, chat_rules, card })
}

/// Writes the bundle, layer by layer of the manifest.
fn write(
    request: &ExportRequest,
    name: String,
    config: &ModelConfig,
    weights: &Watched<'_>,
    companions: &Companions,
    texts: &Texts,
    observer: &dyn Observer,
) -> Result<Exported, ExportError> {
    let plan = GraphPlan::new(config, &request.options);
    let info = describe::info(name, config, &request.options, &companions.generation, plan.states())?;
    info.check()?;
    let mut bundle = BundleWriter::create(&request.out, request.overwrite)?;
    let weight_bytes = plan.shards().iter().map(|shard| shard.bytes()).sum();
    bundle.reserve(weight_bytes + ROOM_FOR_THE_REST)?;

    let importance = match &texts.calibrate {
        Some(texts) => Some(importance(config, weights, texts, observer)?),
        None => None,
    };
    observer.phase(Phase::Weights(weight_bytes));
    let (blobs, reports) = write_shards(&mut bundle, &plan, weights, importance.as_ref(), observer)?;
    let names: Vec<String> = blobs.iter().map(Digest::hex).collect();
    bundle.add(file::GRAPH, MEDIA_WEIGHT_CONFIG, &plan.graph(&names))?;
    let stored = stored(&bundle, &plan, &blobs, weights.weights)?;
    let stored = Watched { weights: &stored, cancel: weights.cancel };
    if let Some(tokenizer) = &companions.tokenizer {
        bundle.add(file::TOKENIZER, MEDIA_WEIGHT_CONFIG, &tokenizer.file)?;
    }
    if let Some(template) = &companions.chat_template.text {
        bundle.add(file::CHAT_TEMPLATE, MEDIA_WEIGHT_CONFIG, template.as_bytes())?;
    }
    let defaults = pack::pretty(&companions.generation.defaults, file::GENERATION)?;
    bundle.add(file::GENERATION, MEDIA_WEIGHT_CONFIG, &defaults)?;

    observer.phase(Phase::Golden(config.parameters()));
    let golden = golden(config, &request.options, &stored, observer)?;
    bundle.add(file::GOLDEN, MEDIA_WEIGHT_CONFIG, &golden.to_bytes()?)?;
    let comparison = match &texts.compare {
        Some(texts) => Some(judge(config, weights, &stored, texts, observer)?),
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
    Ok(Exported {
        info,
        digest: packed.digest,
        bytes: packed.bytes,
        reports,
        comparison,
        tokenizer: companions.tokenizer.is_some(),
        chat_template: companions.chat_template.clone(),
        chat_rules: companions.chat_rules.clone(),
        end_tokens: companions.end_tokens(),
    })
}

/// The weights as the shards hold them, read back from their blobs.
fn stored<'a>(
    bundle: &BundleWriter,
    plan: &GraphPlan,
    blobs: &[Digest],
    weights: &'a dyn Weights,
) -> Result<Stored<'a>, ExportError> {
    let mut stored = Stored::new(weights);
    for (shard, digest) in plan.shards().iter().zip(blobs) {
        let path = bundle.path(digest);
        stored.add(shard, path.clone()).map_err(|error| ExportError::Pack(PackError::io("read", &path)(error)))?;
    }
    Ok(stored)
}

/// Writes every weight shard. Returns the digests of their blobs, and the error of every matrix.
fn write_shards(
    bundle: &mut BundleWriter,
    plan: &GraphPlan,
    weights: &dyn Weights,
    importance: Option<&Importance>,
    observer: &dyn Observer,
) -> Result<(Vec<Digest>, Vec<TensorReport>), ExportError> {
    let mut blobs = Vec::new();
    let mut reports = Vec::new();
    for shard in plan.shards() {
        let filepath = format!("{}/{}.bin", file::WEIGHTS, shard.name());
        let (digest, report) = bundle.stream(&filepath, MEDIA_WEIGHT, |out| {
            shard.write(weights, importance, out, &mut |bytes| observer.advance(bytes)).map_err(ExportError::from)
        })?;
        blobs.push(digest);
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
