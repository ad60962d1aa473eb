//! What follows from the positions of a batch's tokens, computed once and used by every layer.

use super::Emit;
use crate::builder::Val;
use recurve_onnx::DataType;

/// Added to the score of a slot that may not be seen: its softmax weight is then exactly 0.
const HIDDEN: f32 = -1e30;

/// Values that depend on positions alone.
pub(crate) struct Position {
    /// i64 `[rows]`: tokens that each row has consumed.
    pub(crate) start: Val,
    /// `[1]`: rows of the batch.
    pub(crate) rows: Val,
    /// `[1]`: tokens of each row.
    pub(crate) tokens: Val,
    /// f32 `[rows, tokens, 1]`: 0 at position 0, 1 after it.
    pub(crate) continues: Val,
    /// Cosine and sine of the rotary angles, f32 `[rows, 1, tokens, rotary_dim / 2]`; none where nothing is rotated.
    pub(crate) rotary: Option<[Val; 2]>,
    /// f32 `[rows, 1, 1, tokens, ring]`: 0 where a slot is seen, very low where it is not.
    pub(crate) mask: Val,
    /// i64 `[rows]`: the ring's slot of the first token.
    pub(crate) slot: Val,
}

/// From the graph's inputs `input_ids [rows, tokens]` and `start [rows]`. What a model without attention does not use, ONNX
/// Runtime leaves out.
pub(crate) fn position(e: &mut Emit<'_>, ids: &Val, start: &Val) -> Position {
    let shape = e.g.op("Shape", &[ids], vec![]);
    let [zero, one, two] = [0, 1, 2].map(|i| e.g.i64s(&[i]));
    let [rows, tokens] = [(&zero, &one), (&one, &two)].map(|(from, to)| e.g.slice(&shape, from, to, 0));

    let (first, step) = (e.g.i64(0), e.g.i64(1));
    let count = e.g.op("Squeeze", &[&tokens], vec![]);
    let steps = e.g.op("Range", &[&first, &count, &step], vec![]);
    let start_column = e.g.unsqueeze(start, &[1]);
    let positions = e.g.op("Add", &[&start_column, &steps], vec![]);

    let continues = e.g.op("Greater", &[&positions, &first], vec![]);
    let continues = e.g.cast(&continues, DataType::Float);
    let continues = e.g.unsqueeze(&continues, &[2]);
    let rotary = rotary(e, &positions);
    let mask = mask(e, &positions, start, &tokens);
    let ring = e.g.i64(e.options.ring(e.config) as i64);
    let slot = e.g.op("Mod", &[start, &ring], vec![]);
    Position { start: start.clone(), rows, tokens, continues, rotary, mask, slot }
}

/// The angles are reduced in f64, so that they are exact at position 10⁷ and beyond.
fn rotary(e: &mut Emit<'_>, positions: &Val) -> Option<[Val; 2]> {
    let frequencies: Vec<f64> = e.config.rotary_frequencies().into_iter().map(f64::from).collect();
    if frequencies.is_empty() {
        return None;
    }
    let positions = e.g.cast(positions, DataType::Double);
    let positions = e.g.unsqueeze(&positions, &[2]);
    let frequencies = e.g.f64s(&frequencies);
    let angles = e.g.op("Mul", &[&positions, &frequencies], vec![]);
    let turn = e.g.f64(2.0 * std::f64::consts::PI);
    let turns = e.g.op("Div", &[&angles, &turn], vec![]);
    let turns = e.g.op("Floor", &[&turns], vec![]);
    let whole = e.g.op("Mul", &[&turns, &turn], vec![]);
    let angles = e.g.op("Sub", &[&angles, &whole], vec![]);
    let angles = e.g.cast(&angles, DataType::Float);
    let angles = e.g.unsqueeze(&angles, &[1]);
    Some(["Cos", "Sin"].map(|function| e.g.op(function, &[&angles], vec![])))
}

/// Slot `s` of a ring of R holds the newest position `p <= last` with `p mod R = s`. A token sees the positions that were
/// written, are not after it, and are nearer than the window.
fn mask(e: &mut Emit<'_>, positions: &Val, start: &Val, tokens: &Val) -> Val {
    let ring = e.options.ring(e.config) as i64;
    let slots: Vec<i64> = (0..ring).collect();
    let (slots, ring) = (e.g.i64s(&slots), e.g.i64(ring));
    let (zero, one, window) = (e.g.i64(0), e.g.i64s(&[1]), e.g.i64(e.config.window as i64));

    let end = e.g.op("Add", &[start, tokens], vec![]);
    let last = e.g.op("Sub", &[&end, &one], vec![]);
    let last = e.g.unsqueeze(&last, &[1]);
    let ahead = e.g.op("Sub", &[&last, &slots], vec![]);
    let age = e.g.op("Mod", &[&ahead, &ring], vec![]);
    let held = e.g.op("Sub", &[&last, &age], vec![]);
    let held = e.g.unsqueeze(&held, &[1]);

    let seer = e.g.unsqueeze(positions, &[2]);
    let past = e.g.op("LessOrEqual", &[&held, &seer], vec![]);
    let written = e.g.op("GreaterOrEqual", &[&held, &zero], vec![]);
    let distance = e.g.op("Sub", &[&seer, &held], vec![]);
    let near = e.g.op("Less", &[&distance, &window], vec![]);
    let seen = e.g.op("And", &[&written, &near], vec![]);
    let seen = e.g.op("And", &[&past, &seen], vec![]);
    let (shown, hidden) = (e.g.f32(0.0), e.g.f32(HIDDEN));
    let mask = e.g.op("Where", &[&seen, &shown, &hidden], vec![]);
    e.g.unsqueeze(&mask, &[1, 2])
}
