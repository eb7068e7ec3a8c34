//! The smoothed round trip of a link (RFC 6298), and the times that follow from it.
//!
//! `smoothed = 7/8 smoothed + 1/8 sample`, `deviation = 3/4 deviation + 1/4 |smoothed - sample|`, and a message is
//! repeated after `smoothed + 4 deviation`. For samples of 20 ms throughout that is 20 ms, raised to the least time
//! of 100 ms. Repeated messages give no sample: nobody knows the message that an ack answers (Karn, Partridge 1987).

use std::time::Duration;

use crate::limits::{LINK_BATCH_AGE_MAX, LINK_REPEAT_AGE_MAX, LINK_REPEAT_AGE_MIN};

/// The round trip of a link.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundTrip {
    /// `None`: not yet measured.
    smoothed: Option<Duration>,
    deviation: Duration,
    /// Repeats since the last progress. Each doubles the time before the next one.
    pub(super) attempts: u32,
}

impl RoundTrip {
    /// The same round trip at the begin of a link.
    pub(super) fn without_attempts(self) -> Self {
        Self { attempts: 0, ..self }
    }

    /// Takes a sample.
    pub(super) fn measured(&mut self, sample: Duration) {
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.deviation = sample / 2;
            return;
        };
        self.deviation = self.deviation * 3 / 4 + smoothed.abs_diff(sample) / 4;
        self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
    }

    /// The time before a message without an ack is sent again.
    pub(super) fn repeat_after(&self) -> Duration {
        let once = self.smoothed.map_or(LINK_REPEAT_AGE_MIN * 2, |smoothed| smoothed + self.deviation * 4);
        let once = once.clamp(LINK_REPEAT_AGE_MIN, LINK_REPEAT_AGE_MAX);
        // The largest time is less than eight times the least.
        (once * (1 << self.attempts.min(3))).min(LINK_REPEAT_AGE_MAX)
    }

    /// The time before a batch without an ack lapses.
    pub(super) fn batch_age_max(&self) -> Duration {
        LINK_BATCH_AGE_MAX.max(self.smoothed.unwrap_or_default() * 3)
    }
}
