//! The degradation ladder as a room sees it: the things that a room leaves out while its shard is overloaded.
//! Reliable messages are on no step.

use std::time::Duration;

/// Distance between two batches with counters on [`Step::CountersSlow`].
pub(super) const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// Messages of normal and low priority shown a second on [`Step::NormalSampled`] in a room without a
/// configured number.
const NORMAL_PER_SECOND: u32 = 20;

named! {
    /// A step of the ladder. Each step includes all steps below.
    #[derive(Default)]
    pub enum Step {
        /// Nothing is left out.
        #[default]
        Calm = "calm",
        /// Lossy messages are shed.
        LossyOff = "lossy_off",
        /// Counters leave once a second.
        CountersSlow = "counters_slow",
        /// Normal messages are sampled harder.
        NormalSampled = "normal_sampled",
        /// Rooms gather for their widest window.
        WindowWidest = "window_widest",
        /// Joins are refused; connected devices stay.
        JoinsRefused = "joins_refused",
    }
}

impl Step {
    /// Messages of normal and low priority shown a second, for a `configured` number; 0: no limit. From
    /// [`Step::NormalSampled`] on half of `configured`, rounded up, or 20 for no limit.
    pub fn normal_per_second(self, configured: u32) -> u32 {
        match (self >= Self::NormalSampled, configured) {
            (false, _) => configured,
            (true, 0) => NORMAL_PER_SECOND,
            // Rounded up: half of 1 would be 0, and 0 means no limit.
            (true, _) => configured.div_ceil(2),
        }
    }

    /// Number of the step, 0 to 5.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The step with this number; `None` above 5.
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The next step up; [`Step::JoinsRefused`] stays.
    #[must_use]
    pub fn up(self) -> Self {
        Self::numbered(self.number() + 1).unwrap_or(self)
    }

    /// The next step down; [`Step::Calm`] stays.
    #[must_use]
    pub fn down(self) -> Self {
        self.number().checked_sub(1).and_then(Self::numbered).unwrap_or(self)
    }
}

/// A shard's change from one step to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepChange {
    /// The step before.
    pub from: Step,
    /// The step now; never the same as `from`.
    pub to: Step,
}

impl StepChange {
    /// True if the shard leaves out more from now on.
    pub fn is_up(self) -> bool {
        self.to > self.from
    }
}

/// A room's place on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomStep {
    /// The step set by an operator. `None`: the shard's step counts.
    pub own: Option<Step>,
    /// The step in force.
    pub in_force: Step,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_in_order_and_go_one_up_or_down() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(step.number()), number);
            assert_eq!(Step::numbered(step.number()), Some(step));
            assert!(step.up() == step || step.up().down() == step);
        }
        assert_eq!((Step::Calm.down(), Step::JoinsRefused.up()), (Step::Calm, Step::JoinsRefused));
        assert_eq!(Step::numbered(6), None);
    }
}
