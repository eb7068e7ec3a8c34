//! A rate: something per second, smoothed over ten seconds.
//!
//! Each count decays with the time constant τ = 10 s: rate(t) = Σ count / τ × e^(−(t − t_count) / τ).
//! Example: 1 000 counts at once read as 100 a second, and as 37 a second ten seconds later.

use std::time::Instant;

/// The time constant of the decay, in seconds.
const SMOOTHING_S: f64 = 10.0;

/// A smoothed number per second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    /// The rate at `at`.
    per_second: f64,
    /// The time of the last count; `None` before the first.
    at: Option<Instant>,
}

impl Rate {
    pub(super) fn add(&mut self, count: f64, now: Instant) {
        self.per_second = self.per_second(now) + count / SMOOTHING_S;
        self.at = Some(now);
    }

    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        self.per_second * (-now.saturating_duration_since(at).as_secs_f64() / SMOOTHING_S).exp()
    }
}
