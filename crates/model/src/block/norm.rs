//! RMSNorm that multiplies by `1 + weight`.

use super::Emit;
use crate::builder::{Val, float, int};
use crate::shard::Recipe;

/// `x / rms(x) * (1 + weight)` over the last axis.
pub(crate) fn rms(e: &mut Emit<'_>, x: &Val, weight: &str) -> Val {
    let hidden = e.config.hidden_size;
    let name = e.g.fresh("norm");
    let factor = e.shards.tensor(name, &[hidden], Recipe::OnePlus(weight.to_owned(), hidden));
    let attributes = vec![int("axis", -1), float("epsilon", e.config.rms_norm_eps)];
    e.g.op("SimplifiedLayerNormalization", &[x, &factor], attributes)
}
