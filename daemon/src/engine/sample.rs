//! How the next token is chosen.

/// How the next token is chosen.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// Only the k most probable tokens; 0: all.
    pub top_k: u32,
    /// Only the most probable tokens whose probabilities sum up to this; 1: all.
    pub top_p: f32,
    /// Only tokens at least this fraction as probable as the most probable one; 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen; 1: none.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token seen.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it was seen.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// How many of the last tokens the penalties look at.
pub const PENALTY_WINDOW: usize = 1024;
