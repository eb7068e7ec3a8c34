//! The bounds of a room's rules, shared by the configuration (`flush.*`, `readable.*`, `limits.*`) and by
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

/// A number out of a field's bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub(crate) struct BadValue {
    /// The path of the field, such as `flush.gather_ms`.
    pub(crate) field: &'static str,
    /// The bounds and the unit.
    pub(crate) allowed: String,
}

/// A field of a room's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleField {
    /// The gather window of a room, in milliseconds.
    GatherMs,
    /// The most messages of a batch.
    MaxMessages,
    /// The most encoded bytes of a batch.
    MaxBytes,
    /// A room of up to so many members flushes at once.
    DirectMembers,
    /// Milliseconds between two early flushes of a room.
    UrgentSpacingMs,
    /// Milliseconds to which a room's window may widen.
    GatherMaxMs,
    /// Readable messages per second, of normal and low priority.
    NormalPerSecond,
    /// Readable messages per second, of high priority.
    HighPerSecond,
    /// Messages per second into a room.
    RoomMessagesPerSecond,
}

impl RuleField {
    /// Every field, in the order of `config/default.toml`.
    pub(crate) const ALL: [Self; 9] = [
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

    /// The field at `path`, if any.
    #[must_use]
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.path() == path)
    }

    /// The path of the field in the configuration and in `PUT /v1/rooms/{room}`.
    #[must_use]
    pub(crate) fn path(self) -> &'static str {
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

    /// The unit of the field.
    #[must_use]
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::GatherMs | Self::UrgentSpacingMs | Self::GatherMaxMs => "milliseconds",
            Self::MaxMessages => "messages",
            Self::MaxBytes => "bytes",
            Self::DirectMembers => "members",
            Self::NormalPerSecond | Self::HighPerSecond | Self::RoomMessagesPerSecond => "messages a second",
        }
    }

    /// The least and the largest number of the field.
    #[must_use]
    pub(crate) fn bounds(self) -> RangeInclusive<u64> {
        match self {
            Self::GatherMs | Self::GatherMaxMs => 1..=millis(GATHER_MAX),
            Self::MaxMessages => 1..=BATCH_MESSAGES_MAX as u64,
            Self::MaxBytes => BATCH_BYTES_MIN as u64..=BATCH_BYTES_MAX as u64,
            Self::DirectMembers => 0..=DIRECT_MEMBERS_MAX,
            Self::UrgentSpacingMs => 1..=millis(URGENT_SPACING_MAX),
            Self::NormalPerSecond | Self::HighPerSecond | Self::RoomMessagesPerSecond => 0..=RATE_MAX.into(),
        }
    }

    /// Stores `value` in the field of `settings`.
    ///
    /// # Errors
    /// [`BadValue`] for a value out of bounds. `settings` are unchanged.
    pub(crate) fn set(self, value: u64, settings: &mut RoomSettings) -> Result<(), BadValue> {
        let fits = self.bounds().contains(&value);
        let (true, Ok(size)) = (fits, usize::try_from(value)) else {
            let (min, max) = self.bounds().into_inner();
            return Err(BadValue { field: self.path(), allowed: format!("{min} to {max} {}", self.unit()) });
        };
        // The fields that read `rate` have RATE_MAX as their bound; the others do not use it.
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

/// The allowed values of a share, for mistakes and problem responses.
pub(crate) const SHARE_ALLOWED: &str = "a share, 0 to 1";

/// The tolerance of sums and roundings: fractions like 0.1 have no exact double.
const SLACK: f64 = 1e-6;

/// The reserved shares of a batch by priority, each from 0 to 1, in the order of [`Priority::ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares([f64; Priority::ALL.len()]);

/// Shares with a sum of more than 1.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the shares add up to {sum}")]
pub(crate) struct TooMuch {
    /// The sum, rounded up to thousandths.
    pub(crate) sum: f64,
}

impl Shares {
    /// The paths of the shares in the configuration and in `PUT /v1/rooms/{room}`, in the order of
    /// [`Priority::ALL`].
    pub const PATHS: [&'static str; Priority::ALL.len()] =
        ["flush.low_share", "flush.normal_share", "flush.high_share"];

    /// The shares of `quotas`, as a start for changes.
    #[must_use]
    pub(crate) fn of(quotas: Quotas) -> Self {
        Self(quotas.permille.map(|permille| f64::from(permille) / 1000.0))
    }

    /// Changes the share at `path`. `None`, and no change, for an unknown path or a share out of 0 to 1.
    #[must_use]
    pub(crate) fn set(&mut self, path: &str, share: f64) -> Option<()> {
        let index = Self::PATHS.iter().position(|known| *known == path)?;
        self.0[index] = (0.0..=1.0).contains(&share).then_some(share)?;
        Some(())
    }

    /// A share in thousandths, rounded down. `None` for a share out of 0 to 1.
    #[must_use]
    pub(crate) fn permille(share: f64) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1")]
        (0.0..=1.0).contains(&share).then_some((share * 1000.0 + SLACK).floor() as u32)
    }

    /// The shares as quotas, each rounded down to thousandths.
    ///
    /// # Errors
    /// [`TooMuch`] for a sum of more than 1.
    pub(crate) fn quotas(self) -> Result<Quotas, TooMuch> {
        // Rounding down first would hide a sum like 1.0009, and rounding each up would refuse three thirds.
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
