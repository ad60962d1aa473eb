//! The way back: a device serves the model before again.

use std::time::Duration;

use tokio::time::timeout;

use super::device::cause_of;
use super::event::Reason;
use super::look;
use super::plan::Served;
use crate::client::models::Operator;
use crate::status::Trouble;
use crate::target::Address;

/// How long a device may verify, load and test the model before.
const LOADED: Duration = Duration::from_secs(15 * 60);

/// Has a device serve the model that was active before. With `from`, only where that model is served (its name or the
/// beginning of its digest): a device that went back already is left alone. Gives what is served now.
pub(crate) async fn back(address: &Address, patience: Duration, from: Option<&str>) -> Result<Option<Served>, Reason> {
    let told = |trouble: Trouble| cause_of(&trouble, if trouble.lost { "unreachable" } else { "refused" });
    let mut operator = Operator::at(address, patience).await.map_err(told)?;
    if let Some(from) = from {
        let now = look::once(&mut operator).await.map_err(told)?;
        let serves = Served::of(&now);
        if !serves.as_ref().is_some_and(|serves| is(serves, from)) {
            return Ok(serves);
        }
    }
    let silent =
        || told(Trouble::lost(&address.target, format!("it did not say within {LOADED:?} what became of the model")));
    let active = timeout(LOADED, operator.rollback(|_| Ok(()))).await.map_err(|_| silent())?.map_err(told)?;
    Ok(Some(Served { model: active.name, bundle: active.bundle }))
}

fn is(served: &Served, named: &str) -> bool {
    let digest = |part: &str| !part.is_empty() && served.bundle.starts_with(part);
    served.model == named || digest(named) || (!named.is_empty() && digest(&format!("sha256:{named}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_its_name_or_the_beginning_of_its_digest() {
        let served = Served { model: "assistant-2".to_owned(), bundle: "sha256:8e0bf7".to_owned() };
        for named in ["assistant-2", "sha256:8e0b", "8e0b", "sha256:8e0bf7"] {
            assert!(is(&served, named), "{named}");
        }
        for other in ["", "assistant", "0bf7", "sha256:8f"] {
            assert!(!is(&served, other), "{other}");
        }
    }
}
