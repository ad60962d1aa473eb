//! The thread that steps the model: it alone owns the session, and takes jobs from [`crate::admission`].
//!
//! A token's way inside: [`plan`] decides, [`slots`] hold the jobs, [`step`] runs the model, [`sample`] chooses with [`draw`],
//! [`recurve_text::Detokenizer`] and [`stop`] make text of it, [`emit`] hands it to the caller.

pub mod clock;
mod draw;
mod emit;
pub mod golden;
pub mod job;
pub mod load;
pub mod meter;
mod plan;
pub mod sample;
mod slots;
mod step;
pub mod stop;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use recurve_runtime::{LibraryError, LoadError, Terminator};
use recurve_text::Tokenizer;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::config::EngineSettings;
use load::Graph;
use meter::Meter;
use step::Stepper;

/// The engine's thread.
#[derive(Debug)]
pub struct Engine {
    admission: Arc<Admission>,
    terminator: Terminator,
    thread: JoinHandle<()>,
    /// Why the thread ended, if it did so by itself.
    failed: watch::Receiver<Option<String>>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no ONNX Runtime.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The graph cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system gives no thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl Engine {
    /// Starts the thread that steps this graph.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        graph: Graph,
        tokenizer: Option<Arc<Tokenizer>>,
        settings: &EngineSettings,
        admission: Arc<Admission>,
        meter: Arc<Meter>,
    ) -> Result<Self, EngineError> {
        let Graph { model, library } = graph;
        let terminator = model.terminator();
        admission.attach(terminator.clone());
        let stepper = Stepper::new(model, Arc::clone(&admission), tokenizer, settings.prefill_budget, meter);
        let (tell, failed) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                // The stepper owns the model: when it is gone, session and environment are.
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| stepper.run()));
                drop(library);
                let reason = match outcome {
                    Ok(Ok(())) => return,
                    Ok(Err(reason)) => reason,
                    Err(panic) => format!("its thread panicked: {}", panic_message(panic.as_ref())),
                };
                let _ = tell.send(Some(reason));
            })
            .map_err(EngineError::Thread)?;
        Ok(Self { admission, terminator, thread, failed })
    }

    /// Ends, with the reason, when the engine ended by itself; never otherwise.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failed = self.failed.clone();
        async move {
            loop {
                if let Some(reason) = failed.borrow_and_update().clone() {
                    return reason;
                }
                if failed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Refuses new jobs, finishes what runs within `grace` and what waits if that is soon done, ends the rest, and joins the thread.
    /// Blocks.
    pub fn shutdown(self, grace: Duration) {
        self.admission.close(Instant::now() + grace);
        self.join();
    }

    /// As [`Self::shutdown`], since another model takes the place of this one: what waits is left to that.
    pub fn retire(self, grace: Duration) {
        self.admission.retire(Instant::now() + grace);
        self.join();
    }

    /// What knows how long the step in progress takes.
    pub fn terminator(&self) -> Terminator {
        self.terminator.clone()
    }

    fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the engine's thread panicked while it stopped");
        }
        self.admission.end_waiting();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "for an unknown reason",
    }
}
