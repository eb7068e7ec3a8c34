//! The bounds of a room's rules, in one place for the configuration (`flush.*`, `readable.*`, `limits.*`) and for
//! `PUT /v1/rooms/{room}`.

use std::ops::RangeInclusive;
use std::time::Duration;

use roomcast_core::now::millis;
use roomcast_core::room::pace::{Quotas, RoomSettings};
use roomcast_core::room::policy::Priority;

use roomcast_core::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_MESSAGES_MAX, DIRECT_MEMBERS_MAX, GATHER_MAX, RATE_MAX,
    URGENT_SPACING_MAX,
};

/// A number that a field does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct BadValue {
    /// The field: `flush.gather_ms`.
    pub field: &'static str,
    /// What is allowed, with the unit.
    pub allowed: String,
}

/// One number of a room's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleField {
    /// Milliseconds the oldest message waits.
    GatherMs,
    /// Messages of one batch.
    MaxMessages,
    /// Bytes of one batch.
    MaxBytes,
    /// Members up to which a room flushes at once.
    DirectMembers,
    /// Milliseconds between early flushes.
    UrgentSpacingMs,
    /// Milliseconds to which the window may widen.
    GatherMaxMs,
    /// Messages of normal and low priority that devices are asked to show a second.
    NormalPerSecond,
    /// Messages of high priority that devices are asked to show a second.
    HighPerSecond,
    /// Messages that a room takes a second.
    RoomMessagesPerSecond,
}

impl RuleField {
    /// All of them, in the order of `config/default.toml`.
    pub const ALL: [Self; 9] = [
        Self::GatherMs,
        Self::MaxMessages,
        Self::MaxBytes,
        Self::DirectMembers,
        Self::UrgentSpacingMs,
        Self::GatherMaxMs,
        Self::NormalPerSecond,
        Self::HighPerSecond,
        Self::RoomMessagesPerSecond,
    ];

    /// The field of this path.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.path() == path)
    }

    /// Where it stands in the configuration and in `PUT /v1/rooms/{room}`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::GatherMs => "flush.gather_ms",
            Self::MaxMessages => "flush.max_messages",
            Self::MaxBytes => "flush.max_bytes",
            Self::DirectMembers => "flush.direct_members",
            Self::UrgentSpacingMs => "flush.urgent_spacing_ms",
            Self::GatherMaxMs => "flush.gather_max_ms",
            Self::NormalPerSecond => "readable.normal_per_second",
            Self::HighPerSecond => "readable.high_per_second",
            Self::RoomMessagesPerSecond => "limits.room_messages_per_second",
        }
    }

    /// What it counts.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::GatherMs | Self::UrgentSpacingMs | Self::GatherMaxMs => "milliseconds",
            Self::MaxMessages => "messages",
            Self::MaxBytes => "bytes",
            Self::DirectMembers => "members",
            Self::NormalPerSecond | Self::HighPerSecond | Self::RoomMessagesPerSecond => "messages a second",
        }
    }

    /// The numbers it takes.
    #[must_use]
    pub fn bounds(self) -> RangeInclusive<u64> {
        match self {
            Self::GatherMs | Self::GatherMaxMs => 1..=millis(GATHER_MAX),
            Self::MaxMessages => 1..=BATCH_MESSAGES_MAX as u64,
            Self::MaxBytes => BATCH_BYTES_MIN as u64..=BATCH_BYTES_MAX as u64,
            Self::DirectMembers => 0..=DIRECT_MEMBERS_MAX,
            Self::UrgentSpacingMs => 1..=millis(URGENT_SPACING_MAX),
            Self::NormalPerSecond | Self::HighPerSecond | Self::RoomMessagesPerSecond => 0..=RATE_MAX.into(),
        }
    }

    /// Puts a number in its place in `settings`.
    ///
    /// # Errors
    /// [`BadValue`] if it is out of bounds; `settings` are as they were.
    pub fn set(self, value: u64, settings: &mut RoomSettings) -> Result<(), BadValue> {
        let fits = self.bounds().contains(&value);
        let (true, Ok(size)) = (fits, usize::try_from(value)) else {
            let (min, max) = self.bounds().into_inner();
            return Err(BadValue { field: self.path(), allowed: format!("{min} to {max} {}", self.unit()) });
        };
        // No bound of these is past it.
        let rate = Some(u32::try_from(value).unwrap_or(RATE_MAX));
        match self {
            Self::GatherMs => settings.gather = Some(Duration::from_millis(value)),
            Self::MaxMessages => settings.messages_max = Some(size),
            Self::MaxBytes => settings.bytes_max = Some(size),
            Self::DirectMembers => settings.direct_members = Some(value),
            Self::UrgentSpacingMs => settings.urgent_spacing = Some(Duration::from_millis(value)),
            Self::GatherMaxMs => settings.gather_max = Some(Duration::from_millis(value)),
            Self::NormalPerSecond => settings.normal_per_second = rate,
            Self::HighPerSecond => settings.high_per_second = rate,
            Self::RoomMessagesPerSecond => settings.messages_per_second = rate,
        }
        Ok(())
    }
}

/// What is allowed for a share.
pub const SHARE_ALLOWED: &str = "a share, 0 to 1";

/// Fractions like 0.1 have no exact double.
const SLACK: f64 = 1e-6;

/// Shares of a batch that are reserved by priority, each from 0 to 1, in the order of [`Priority::ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares([f64; Priority::ALL.len()]);

/// Shares that are more than there is: their sum.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the shares add up to {sum}")]
pub struct TooMuch {
    /// More than 1; rounded to thousandths.
    pub sum: f64,
}

impl Shares {
    /// Where each stands in the configuration and in `PUT /v1/rooms/{room}`, in the order of [`Priority::ALL`].
    pub const PATHS: [&'static str; Priority::ALL.len()] =
        ["flush.low_share", "flush.normal_share", "flush.high_share"];

    /// The shares of these quotas, to change some of them.
    #[must_use]
    pub fn of(quotas: Quotas) -> Self {
        Self(quotas.permille.map(|permille| f64::from(permille) / 1000.0))
    }

    /// Changes the one at this path; `None`, and no change, if there is none there, or `share` is not from 0 to 1.
    #[must_use]
    pub fn set(&mut self, path: &str, share: f64) -> Option<()> {
        let index = Self::PATHS.iter().position(|known| *known == path)?;
        self.0[index] = (0.0..=1.0).contains(&share).then_some(share)?;
        Some(())
    }

    /// One share in thousandths, rounded down; `None`: it is not from 0 to 1.
    #[must_use]
    pub fn permille(share: f64) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1")]
        (0.0..=1.0).contains(&share).then_some((share * 1000.0 + SLACK).floor() as u32)
    }

    /// Them as quotas, rounded down to thousandths.
    ///
    /// # Errors
    /// [`TooMuch`] if they add up to more than 1.
    pub fn quotas(self) -> Result<Quotas, TooMuch> {
        let sum: f64 = self.0.iter().sum();
        if sum > 1.0 + SLACK {
            return Err(TooMuch { sum: (sum * 1000.0).ceil() / 1000.0 });
        }
        Ok(Quotas { permille: self.0.map(|share| Self::permille(share).expect("each is from 0 to 1")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::room::pace::RoomRules;

    #[test]
    fn each_field_takes_its_bounds_and_nothing_beside_them() {
        // Other rules than the default, so that each field's least and most change something.
        let rules = RoomRules {
            messages_per_second: 7,
            readable: roomcast_core::room::pace::Readable { normal_per_second: 7, high_per_second: 7 },
            ..RoomRules::default()
        };
        for field in RuleField::ALL {
            let mut settings = RoomSettings::default();
            let (min, max) = field.bounds().into_inner();
            assert_eq!(RuleField::at(field.path()), Some(field));
            for good in [min, max] {
                field.set(good, &mut settings).unwrap();
                assert_ne!(rules.with(&settings), rules, "{field:?}");
            }
            let before = settings.clone();
            for bad in [min.checked_sub(1), Some(max + 1), Some(u64::MAX)].into_iter().flatten() {
                let refused = field.set(bad, &mut settings).unwrap_err();
                assert_eq!(refused.field, field.path());
                assert!(refused.allowed.contains(field.unit()), "{refused}");
                assert_eq!(settings, before, "a refused number changes nothing");
            }
        }
        assert_eq!(RuleField::at("flush.cpu_share"), None);
    }

    #[test]
    fn shares_are_parts_of_one_whole() {
        let none = Shares::of(Quotas { permille: [0; 3] });
        let mut tenths = none;
        for (path, share) in Shares::PATHS.into_iter().zip([0.1, 0.2, 0.7]) {
            tenths.set(path, share).unwrap();
        }
        assert_eq!(tenths.quotas(), Ok(Quotas { permille: [100, 200, 700] }));
        assert_eq!(Shares::of(tenths.quotas().unwrap()).quotas(), tenths.quotas());
        let mut thirds = none;
        Shares::PATHS.iter().for_each(|path| thirds.set(path, 1.0 / 3.0).unwrap());
        assert_eq!(thirds.quotas(), Ok(Quotas { permille: [333; 3] }), "never more than the whole");
        tenths.set("flush.low_share", 0.101).unwrap();
        assert_eq!(tenths.quotas(), Err(TooMuch { sum: 1.001 }));
        for bad in [-0.1, 1.001, f64::NAN, f64::INFINITY] {
            assert_eq!(tenths.set("flush.high_share", bad), None, "{bad}");
        }
        assert_eq!(tenths.set("flush.cpu_share", 0.5), None);
    }

    #[test]
    fn every_whole_of_thousandths_is_taken_as_it_is() {
        for high in 0..=1000 {
            let quotas = Quotas { permille: [0, 1000 - high, high] };
            assert_eq!(Shares::of(quotas).quotas(), Ok(quotas));
        }
    }
}
