//! How far a tensor moved when it was rounded.

/// Sums over the values seen so far.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Distortion {
    error: f64,
    power: f64,
    max_abs: f64,
}

impl Distortion {
    /// Takes a run of values and what they were rounded to.
    pub fn add(&mut self, values: &[f32], rounded: &[f32]) {
        for (value, rounded) in values.iter().zip(rounded) {
            let value = f64::from(*value);
            let error = value - f64::from(*rounded);
            self.error += error * error;
            self.power += value * value;
            self.max_abs = self.max_abs.max(error.abs());
        }
    }

    /// Takes the sums of another run, which comes after this one's.
    pub fn merge(&mut self, other: &Distortion) {
        self.error += other.error;
        self.power += other.power;
        self.max_abs = self.max_abs.max(other.max_abs);
    }

    /// Root of the mean square error over the root of the mean square; 0 for a tensor of zeros.
    pub fn relative_rms(&self) -> f64 {
        if self.power == 0.0 { 0.0 } else { (self.error / self.power).sqrt() }
    }

    /// Largest error of one value.
    pub fn max_abs(&self) -> f64 {
        self.max_abs
    }
}
