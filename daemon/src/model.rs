//! What requests are checked against and answered with: the part of a bundle that the front of the daemon needs.

use std::sync::Arc;

use recurve_bundle::{Bundle, BundleError, GenerationDefaults, file};
use recurve_text::{Template, TemplateError, Tokenizer, TokenizerError};

use crate::config::Limits;

/// The model that is served, without its weights.
#[derive(Debug)]
pub struct Model {
    /// The model's name.
    pub name: String,
    /// Digest of its bundle, "sha256:…".
    pub bundle: String,
    /// Token ids are below this.
    pub vocab_size: u32,
    /// Tokens that end a text.
    pub ends: Arc<[u32]>,
    /// Text to tokens and back, where the bundle has a tokenizer.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Conversations to text, where the bundle has a chat template.
    pub template: Option<Template>,
    /// What a request does not set.
    pub defaults: Defaults,
    /// What a request may ask for.
    pub limits: Limits,
}

/// What a request does not set: the bundle's `generation.json`, and ours where that is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// See `Sampling.temperature`.
    pub temperature: f32,
    /// See `Sampling.top_k`.
    pub top_k: u32,
    /// See `Sampling.top_p`.
    pub top_p: f32,
    /// See `Sampling.min_p`.
    pub min_p: f32,
    /// See `Sampling.repetition_penalty`.
    pub repetition_penalty: f32,
    /// See `GenerateRequest.max_tokens`.
    pub max_tokens: u32,
}

impl Defaults {
    /// Fills in what a bundle does not say.
    pub fn new(bundle: &GenerationDefaults, vocab_size: u32) -> Self {
        Self {
            temperature: bundle.temperature.unwrap_or(1.0),
            top_k: bundle.top_k.unwrap_or(0).min(vocab_size),
            top_p: bundle.top_p.unwrap_or(1.0),
            min_p: bundle.min_p.unwrap_or(0.0),
            repetition_penalty: bundle.repetition_penalty.unwrap_or(1.0),
            max_tokens: bundle.max_tokens.unwrap_or(256),
        }
    }
}

/// Why a bundle cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The tokenizer cannot be used.
    #[error("bundle {bundle}: tokenizer.json: {source}")]
    Tokenizer {
        /// Digest of the bundle.
        bundle: String,
        /// Why.
        source: TokenizerError,
    },
    /// The chat template cannot be used.
    #[error("bundle {bundle}: {source}")]
    Template {
        /// Digest of the bundle.
        bundle: String,
        /// Why.
        source: TemplateError,
    },
    /// Another file is wrong.
    #[error("bundle {bundle}: {file} is wrong: {reason}")]
    File {
        /// Digest of the bundle.
        bundle: String,
        /// Which file.
        file: &'static str,
        /// Why.
        reason: String,
    },
}

impl Model {
    /// Reads tokenizer, chat template and generation defaults of a bundle.
    ///
    /// # Errors
    /// One of them is damaged or not of a kind that this version serves.
    pub fn from_bundle(bundle: &Bundle, limits: Limits) -> Result<Self, ModelError> {
        let info = bundle.info();
        let digest = bundle.digest().to_string();
        let source = match bundle.read(file::CHAT_TEMPLATE)? {
            None => None,
            Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| ModelError::File {
                bundle: digest.clone(),
                file: file::CHAT_TEMPLATE,
                reason: "it is not UTF-8".into(),
            })?),
        };
        let tokenizer = bundle
            .read(file::TOKENIZER)?
            .map(|bytes| Tokenizer::from_json(&bytes, source.as_deref().unwrap_or_default()).map(Arc::new))
            .transpose()
            .map_err(|source| ModelError::Tokenizer { bundle: digest.clone(), source })?;
        let word = |id: Option<u32>| match (&tokenizer, id) {
            (Some(tokenizer), Some(id)) => tokenizer.token(id),
            _ => String::new(),
        };
        let template = source
            .map(|source| {
                let template = Template::new(source, word(info.bos_token), word(info.end_tokens.first().copied()))?;
                template.check().map(|()| template)
            })
            .transpose()
            .map_err(|source| ModelError::Template { bundle: digest.clone(), source })?;
        let defaults = Defaults::new(&bundle.generation()?, info.vocab_size);
        Ok(Self {
            name: info.name.clone(),
            bundle: digest,
            vocab_size: info.vocab_size,
            ends: info.end_tokens.as_slice().into(),
            tokenizer,
            template,
            defaults,
            limits,
        })
    }
}
