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

/// Has a device serve the model that was active before. With `from`, only where that model is served: a device that went
/// back by itself is left alone. Gives what is served now.
pub(crate) async fn back(address: &Address, patience: Duration, from: Option<&str>) -> Result<Option<Served>, Reason> {
    let told = |trouble: Trouble| cause_of(&trouble, if trouble.lost { "unreachable" } else { "refused" });
    let mut operator = Operator::at(address, patience).await.map_err(told)?;
    if let Some(from) = from {
        let now = look::once(&mut operator).await.map_err(told)?;
        if now.bundle.as_deref() != Some(from) {
            return Ok(Served::of(&now));
        }
    }
    let silent =
        || told(Trouble::lost(&address.target, format!("it did not say within {LOADED:?} what became of the model")));
    let active = timeout(LOADED, operator.rollback(|_| Ok(()))).await.map_err(|_| silent())?.map_err(told)?;
    Ok(Some(Served { model: active.name, bundle: active.bundle }))
}
