//! Looks after the model that is served: whether its engine lives, whether a step ever ends, and, while it is on probation,
//! whether it answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recurve_runtime::Terminator;
use recurve_text::{ControlTokens, Message, Role};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use uuid::Uuid;

use super::load::Loaded;
use crate::admission::{Admission, Refusal};
use crate::config::Settings;
use crate::engine::job::{ClientId, Event, Failure, Generation, Job, Priority, Work};
use crate::engine::sample::Sampling;
use crate::model::Model;
use crate::node::Node;
use crate::request::{Prompt, RequestError};

/// How often it is looked whether a step goes on for too long.
const LOOK: Duration = Duration::from_secs(1);
/// A step that was ended for taking too long and still goes on after this time will never end.
pub(crate) const STEP_ENDING: Duration = Duration::from_secs(15);
/// Most tokens of a probe's prompt,
const PROBE_PROMPT: usize = 64;
/// and of its answer: beyond what the golden test looked at.
const PROBE_ANSWER: u32 = 4;

/// What the daemon's own probe gives to tokenizer and chat template.
const PROBE_TEXT: &str = "Is the door of the boiler room open?";
/// Said of a model that fails a probe.
const FAILED: &str = "it failed the daemon's own probe";

/// What became of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its time of probation is over, and it served well.
    Proved,
    /// It fails, for this reason.
    Failed(String),
    /// A step of it goes on and cannot be ended: neither can its thread.
    Stuck(String),
}

/// Looks as long as it lives.
#[derive(Debug)]
pub(super) struct Watch {
    verdicts: mpsc::Receiver<Verdict>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    /// Begins to look after a model. `until`: the end of its probation.
    pub(super) fn start(loaded: &Loaded, settings: &Settings, node: Arc<Node>, until: Option<Instant>) -> Self {
        let (tell, verdicts) = mpsc::channel(4);
        let eyes = Eyes {
            failed: Box::pin(loaded.engine.failed()),
            terminator: loaded.engine.terminator(),
            longest: settings.engine.step_limit + STEP_ENDING,
            admission: Arc::clone(&loaded.serving.admission),
            prompt: prompt(loaded),
            model: Arc::clone(&loaded.serving.model),
            node,
            tell,
        };
        let every = settings.probation.probe;
        let task = tokio::spawn(async move { eyes.look(until, every).await });
        Self { verdicts, _task: AbortOnDropHandle::new(task) }
    }

    /// Why the model failed, if it did already.
    pub(super) fn failure(&mut self) -> Option<String> {
        loop {
            match self.verdicts.try_recv().ok()? {
                Verdict::Failed(reason) | Verdict::Stuck(reason) => return Some(reason),
                Verdict::Proved => {}
            }
        }
    }

    /// Ends when a step of the model goes on and cannot be ended.
    pub(super) async fn stuck(&mut self) -> String {
        loop {
            if let Verdict::Stuck(reason) = self.verdict().await {
                return reason;
            }
        }
    }

    /// The next verdict; none ever, after the last one.
    pub(super) async fn verdict(&mut self) -> Verdict {
        match self.verdicts.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }
}

/// The beginning of the golden test, for which the model is known to give numbers.
fn prompt(loaded: &Loaded) -> Vec<u32> {
    let mut tokens = loaded.bundle.golden().map(|golden| golden.tokens).unwrap_or_default();
    tokens.truncate(PROBE_PROMPT);
    // Token 0 is in every vocabulary.
    if tokens.is_empty() { vec![0] } else { tokens }
}

struct Eyes {
    failed: std::pin::Pin<Box<dyn Future<Output = String> + Send>>,
    terminator: Terminator,
    longest: Duration,
    admission: Arc<Admission>,
    prompt: Vec<u32>,
    model: Arc<Model>,
    node: Arc<Node>,
    tell: mpsc::Sender<Verdict>,
}

impl Eyes {
    async fn look(self, until: Option<Instant>, every: Duration) {
        let Self { failed, terminator, longest, admission, prompt, model, node, tell } = self;
        let stuck = async {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Some(took) = terminator.running_for().filter(|took| *took > longest) {
                    return format!("a step takes {} s already and cannot be ended", took.as_secs());
                }
            }
        };
        let probation = async {
            let Some(until) = until else { return std::future::pending().await };
            if let Err(reason) = reads(&model).await {
                return Some(reason);
            }
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut answered = false;
            loop {
                tokio::select! {
                    () = sleep_until(until.into()), if answered => return None,
                    _ = ticks.tick() => {}
                }
                // A model that never answered has proved nothing: one last request decides, when nobody else asks anything.
                let last = Instant::now() >= until;
                let limit = if last { longest } else { every };
                let idle = node.idle_since();
                match probe(&admission, &prompt, limit).await {
                    Probed::Answered => answered = true,
                    Probed::Failed(reason) => return Some(reason),
                    // Nobody else asked anything meanwhile.
                    Probed::Unanswered if last && idle.is_some() && idle == node.idle_since() => {
                        return Some(format!(
                            "it did not answer the daemon's own request within {} s",
                            limit.as_secs()
                        ));
                    }
                    Probed::Unanswered => debug!("the model was too busy for a probe"),
                }
            }
        };
        tokio::pin!(failed, stuck);
        let first = tokio::select! {
            reason = &mut failed => Verdict::Failed(reason),
            reason = &mut stuck => Verdict::Stuck(reason),
            outcome = probation => outcome.map_or(Verdict::Proved, Verdict::Failed),
        };
        let proved = first == Verdict::Proved;
        if tell.send(first).await.is_err() || !proved {
            return;
        }
        let last = tokio::select! {
            reason = failed => Verdict::Failed(reason),
            reason = stuck => Verdict::Stuck(reason),
        };
        let _ = tell.send(last).await;
    }
}

/// What became of a request of the daemon's own.
enum Probed {
    Answered,
    /// It was not answered in time, which is no failure: whether a step ends is looked at elsewhere.
    Unanswered,
    Failed(String),
}

/// Has the model answer a request of the daemon's own.
async fn probe(admission: &Arc<Admission>, prompt: &[u32], limit: Duration) -> Probed {
    let accepted = Instant::now();
    let generation = Generation {
        prompt: prompt.to_vec(),
        sampling: Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        },
        max_tokens: PROBE_ANSWER,
        stop: Vec::new(),
        ends: Arc::from([]),
        top_logprobs: None,
    };
    let job = Job {
        id: Uuid::now_v7(),
        work: Work::Generate(generation),
        client: ClientId(super::SELF.into()),
        priority: Priority::Interactive,
        accepted,
        deadline: Some(accepted + limit),
    };
    let mut ticket = match admission.submit(job) {
        Ok(ticket) => ticket,
        Err(Refusal::QueueFull { .. } | Refusal::ShuttingDown | Refusal::Replaced) => return Probed::Unanswered,
    };
    let answer = timeout(limit, async {
        loop {
            match ticket.next().await {
                Some(Event::Delta(_) | Event::Scored(_)) => {}
                last => return last,
            }
        }
    });
    match answer.await {
        Ok(Some(Event::Failed(failure))) => match failure {
            Failure::Engine(_) | Failure::NotFinite { .. } => Probed::Failed(format!("{FAILED}: {failure}")),
            Failure::Adjusted { .. }
            | Failure::Deadline
            | Failure::Stalled { .. }
            | Failure::Replaced
            | Failure::Shutdown => Probed::Unanswered,
        },
        Ok(Some(Event::Finished(_))) => Probed::Answered,
        Ok(Some(Event::Delta(_) | Event::Scored(_)) | None) | Err(_) => Probed::Unanswered,
    }
}

/// Has tokenizer and chat template read a text of the daemon's own. What a caller's text makes of them says nothing of the model:
/// it may be chosen for that.
///
/// # Errors
/// They fail at it, or do not fit the model.
async fn reads(model: &Arc<Model>) -> Result<(), String> {
    let text = Prompt::Text { text: PROBE_TEXT.into(), special: true, control: ControlTokens::Read };
    let chat = Prompt::Chat(vec![Message { role: Role::User, content: PROBE_TEXT.into() }]);
    for prompt in [text, chat] {
        match prompt.tokens(model, usize::MAX).await {
            Err(RequestError::Bundle(why)) => return Err(format!("{FAILED}: {why}")),
            Ok(_) => {}
            // There is none, or it wants a conversation of another kind.
            Err(
                RequestError::NoTokenizer
                | RequestError::NoChatTemplate
                | RequestError::TemplateRefused { .. }
                | RequestError::Invalid(_)
                | RequestError::Busy { .. }
                | RequestError::Shortage(_),
            ) => {}
        }
    }
    Ok(())
}
