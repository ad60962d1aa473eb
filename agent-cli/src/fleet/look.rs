//! Looking at a device: once, or at every change until a time is over.

use std::time::Duration;

use recurve_proto::v1::{Model, ModelStage, NodeState};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gate::{Fault, Snapshot, judge, serves_on};
use crate::client::models::{Changes, Operator};
use crate::status::Trouble;
use crate::target::Address;

/// How often a device is looked at that cannot tell of changes by itself, and how often one that was lost is called again.
const PAUSE: Duration = Duration::from_secs(1);

impl Snapshot {
    /// What a device's answer says.
    pub(crate) fn of(models: &[Model], state: Option<&NodeState>) -> Self {
        let active = models.iter().find(|model| model.active);
        let said = state.filter(|state| !state.instance.is_empty());
        let bundle = match said {
            Some(state) => Some(state.bundle.clone()).filter(|bundle| !bundle.is_empty()),
            None => active.map(|model| model.bundle.clone()),
        };
        let served = bundle.as_ref().and_then(|bundle| models.iter().find(|model| model.bundle == *bundle));
        let failures = models.iter().filter(|model| !model.failure.is_empty());
        Self {
            instance: said.map(|state| state.instance.clone()),
            serving: said.map(|state| state.serving),
            model: served.map(|model| model.name.clone()),
            confirmed: served.is_some_and(|model| model.stage() == ModelStage::Confirmed),
            probation: said.and_then(|state| state.probation).and_then(|left| left.try_into().ok()),
            failed: said.map_or(0, |state| state.failed),
            failures: failures.map(|model| (model.bundle.clone(), model.failure.clone())).collect(),
            bundle,
        }
    }
}

/// How a device is now.
pub(crate) async fn once(operator: &mut Operator) -> Result<Snapshot, Trouble> {
    let (models, state) = operator.look().await?;
    Ok(Snapshot::of(&models, state.as_ref()))
}

/// Why a device did not prove the model.
#[derive(Debug)]
pub(super) enum Unproved {
    /// It failed.
    Fault(Fault, String),
    /// Nothing was heard of it for too long.
    Lost(String),
}

/// Looks at a device for so long: it must serve the model well all the time, as judged from `first` on. It may be out of
/// reach for as long as it may be silent.
pub(super) async fn watch(
    address: &Address,
    first: &Snapshot,
    bundle: &str,
    soak: Duration,
    patience: Duration,
) -> Result<(), Unproved> {
    let until = Instant::now() + soak;
    let mut silent = None;
    loop {
        let mut seen = |snapshot: &Snapshot| {
            silent = None;
            judge(first, snapshot, bundle).map_err(|(fault, words)| Unproved::Fault(fault, words))
        };
        let lost = match follow(address, until, patience, &mut seen).await {
            Ok(last) => return seen(&last),
            Err(Broken::Unproved(unproved)) => return Err(unproved),
            Err(Broken::Link(lost)) => lost,
        };
        if silent.get_or_insert_with(Instant::now).elapsed() >= patience {
            return Err(Unproved::Lost(lost.words));
        }
        sleep(PAUSE).await;
    }
}

enum Broken {
    Unproved(Unproved),
    Link(Trouble),
}

impl From<Trouble> for Broken {
    fn from(trouble: Trouble) -> Self {
        Self::Link(trouble)
    }
}

/// Over one connection, until the time is over: gives what is seen then.
async fn follow(
    address: &Address,
    until: Instant,
    patience: Duration,
    seen: &mut impl FnMut(&Snapshot) -> Result<(), Unproved>,
) -> Result<Snapshot, Broken> {
    let mut operator = Operator::at(address, patience).await?;
    let mut changes = if Instant::now() < until { operator.watch().await? } else { None };
    while Instant::now() < until {
        let snapshot = tokio::select! {
            snapshot = next(&mut operator, &mut changes) => snapshot?,
            () = sleep_until(until) => break,
        };
        seen(&snapshot).map_err(Broken::Unproved)?;
    }
    Ok(once(&mut operator).await?)
}

/// What is seen next: at a change where the device tells of them, else after a pause.
async fn next(operator: &mut Operator, changes: &mut Option<Changes>) -> Result<Snapshot, Trouble> {
    if let Some(told) = changes {
        match operator.next(told).await? {
            Some((models, Some(state))) => return Ok(Snapshot::of(&models, Some(&state))),
            Some((_, None)) | None => *changes = None,
        }
    }
    sleep(PAUSE).await;
    once(operator).await
}

/// How a device is now, asked over a connection of its own and within a bound.
pub(crate) async fn glance(address: &Address, patience: Duration) -> Result<Snapshot, Trouble> {
    let look = async {
        let mut operator = Operator::at(address, patience).await?;
        once(&mut operator).await
    };
    let silent = || Trouble::lost(&address.target, format!("it gave no answer for {patience:?}"));
    timeout(patience, look).await.unwrap_or_else(|_| Err(silent()))
}

/// How a device is that proved the model. One that serves nothing, or is out of reach, may be starting again: it is asked again
/// until the time is over.
pub(super) async fn settled(address: &Address, bundle: &str, patience: Duration) -> Result<Snapshot, Trouble> {
    let until = Instant::now() + patience;
    loop {
        let seen = glance(address, until.saturating_duration_since(Instant::now())).await;
        let may_pass = match &seen {
            Ok(now) => matches!(serves_on(now, bundle), Err((Fault::NotServing, _))),
            Err(trouble) => trouble.lost,
        };
        if !may_pass || Instant::now() + PAUSE >= until {
            return seen;
        }
        sleep(PAUSE).await;
    }
}
