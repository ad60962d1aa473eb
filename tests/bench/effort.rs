//! How much is measured.

use std::time::Duration;

/// Sizes and numbers of samples, for the whole form and for the short one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Bytes that a pass over memory reads.
    pub(crate) buffer: usize,
    /// Passes over memory.
    pub(crate) passes: usize,
    /// Shapes of the block products: outputs and inputs.
    pub(crate) shapes: &'static [(usize, usize)],
    /// Weights that a sample of a block product goes through at least, in bytes: more than caches hold.
    pub(crate) product_bytes: usize,
    /// Samples of each block product.
    pub(crate) products: usize,
    /// Time for which one thing is measured before it is the other's turn.
    pub(crate) visit: Duration,
    /// Rounds over all rows, and over all positions.
    pub(crate) rounds: usize,
    /// Rounds over short and over long prompts.
    pub(crate) prompts: [usize; 2],
    /// Loads of each kind.
    pub(crate) loads: usize,
    /// Tokens of a generation through the daemon.
    pub(crate) tokens: u32,
    /// Pairs of such generations.
    pub(crate) pairs: usize,
    /// Rounds over the numbers of streams.
    pub(crate) streams: usize,
    /// Starts of the daemon.
    pub(crate) starts: usize,
    /// Cancelled requests of each kind.
    pub(crate) cancels: usize,
    /// Deployments to an empty device.
    pub(crate) deploys: usize,
    /// Devices that are gathered and watched.
    pub(crate) devices: usize,
    /// Days of history of one device.
    pub(crate) days: u64,
    /// How long a fleet is watched.
    pub(crate) watch: Duration,
    /// Tokens of the walk.
    pub(crate) walk: u64,
}

const WHOLE: Effort = Effort {
    buffer: 1 << 30,
    passes: 30,
    shapes: &[(15_360, 2_560), (2_560, 7_680), (256_000, 2_560)],
    product_bytes: 256 << 20,
    products: 7,
    visit: Duration::from_millis(400),
    rounds: 12,
    prompts: [5, 3],
    loads: 3,
    tokens: 32,
    pairs: 15,
    streams: 5,
    starts: 7,
    cancels: 10,
    deploys: 6,
    devices: 50,
    days: 30,
    watch: Duration::from_secs(60),
    walk: 100_000,
};

const SHORT: Effort = Effort {
    buffer: 128 << 20,
    passes: 20,
    shapes: &[(1_536, 256), (256, 768)],
    product_bytes: 4 << 20,
    products: 5,
    visit: Duration::from_millis(10),
    rounds: 20,
    prompts: [10, 3],
    loads: 3,
    tokens: 64,
    pairs: 20,
    streams: 5,
    starts: 5,
    cancels: 10,
    deploys: 6,
    devices: 4,
    days: 2,
    watch: Duration::from_secs(5),
    walk: 20_000,
};

impl Effort {
    pub(crate) fn new(short: bool) -> Self {
        if short { SHORT } else { WHOLE }
    }

    /// How many steps of this length fit into a visit; at least one.
    pub(crate) fn steps(&self, step: Duration) -> u32 {
        let steps = self.visit.as_secs_f64() / step.as_secs_f64().max(1e-9);
        (steps as u32).clamp(1, 1_000)
    }
}
