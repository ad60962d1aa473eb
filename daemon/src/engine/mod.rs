//! The thread that steps the model.

pub mod detokenize;
pub mod job;
pub mod sample;
pub mod stop;

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use recurve_bundle::Bundle;

use crate::admission::Admission;
use crate::config::EngineSettings;
use crate::tokenizer::Tokenizer;

/// The engine.
#[derive(Debug)]
pub struct Engine;

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[error("the engine did not start")]
pub struct EngineError;

impl Engine {
    /// Starts the engine.
    ///
    /// # Errors
    /// It cannot start.
    pub fn start(
        _bundle: &Bundle,
        _tokenizer: Option<Arc<Tokenizer>>,
        _settings: &EngineSettings,
        _admission: Arc<Admission>,
    ) -> Result<Self, EngineError> {
        Ok(Self)
    }

    /// Ends, with the reason, when the engine's thread did.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        pending()
    }

    /// Stops the engine.
    pub fn shutdown(self, _grace: Duration) {}
}
