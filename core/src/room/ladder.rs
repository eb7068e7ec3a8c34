//! The degradation ladder as a room sees it: what it leaves out while its node has too much to do. Reliable messages are
//! never on it.

use std::time::Duration;

/// How far apart counters are told on [`Step::CountersSlow`].
pub const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// What devices are shown a second of normal priority on [`Step::NormalSampled`] where nothing is configured; half of what is
/// configured otherwise.
const NORMAL_PER_SECOND: u32 = 20;

/// A step of the ladder. Each includes all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Step {
    /// Everything is as promised.
    #[default]
    Calm,
    /// Lossy messages are shed.
    LossyOff,
    /// Counters are told once a second.
    CountersSlow,
    /// Normal messages are sampled harder.
    NormalSampled,
    /// Rooms gather as long as they ever do.
    WindowWidest,
    /// No device joins.
    JoinsRefused,
}

impl Step {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Calm,
        Self::LossyOff,
        Self::CountersSlow,
        Self::NormalSampled,
        Self::WindowWidest,
        Self::JoinsRefused,
    ];

    /// What devices are shown a second of normal priority where the rules say `configured`; 0: as much as comes.
    #[must_use]
    pub fn normal_per_second(self, configured: u32) -> u32 {
        match (self >= Self::NormalSampled, configured) {
            (false, _) => configured,
            (true, 0) => NORMAL_PER_SECOND,
            (true, _) => configured.div_ceil(2),
        }
    }

    /// Its name in the log, in `/readyz` and in views.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::LossyOff => "lossy_off",
            Self::CountersSlow => "counters_slow",
            Self::NormalSampled => "normal_sampled",
            Self::WindowWidest => "window_widest",
            Self::JoinsRefused => "joins_refused",
        }
    }

    /// Its number, from 0.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The step of a number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The next one up; the last one itself.
    #[must_use]
    pub fn up(self) -> Self {
        Self::numbered(self.number() + 1).unwrap_or(self)
    }

    /// The next one down; the first one itself.
    #[must_use]
    pub fn down(self) -> Self {
        self.number().checked_sub(1).and_then(Self::numbered).unwrap_or(self)
    }
}

/// A shard went from one step to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepChange {
    /// The step before.
    pub from: Step,
    /// The step now; never the same.
    pub to: Step,
}

impl StepChange {
    /// Whether the shard leaves out more from now on.
    #[must_use]
    pub fn is_up(self) -> bool {
        self.to > self.from
    }
}

/// Where a room stands on the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomStep {
    /// The step that an operator gave it; `None`: its shard's counts.
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
