//! The bounds of the flush policy, in one place for the configuration (`flush.*`) and for `PUT /v1/rooms/{room}`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::millis;
use crate::room::pace::RoomSettings;

use super::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_MESSAGES_MAX, DIRECT_MEMBERS_MAX, GATHER_MAX, URGENT_SPACING_MAX,
};

/// A number that a field does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {allowed}")]
pub struct BadValue {
    /// The field, without its section: `gather_ms`.
    pub field: &'static str,
    /// What is allowed, with the unit.
    pub allowed: String,
}

/// One number of the flush policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushField {
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
}

impl FlushField {
    /// All of them, in the order of `config/default.toml`.
    pub const ALL: [Self; 6] = [
        Self::GatherMs,
        Self::MaxMessages,
        Self::MaxBytes,
        Self::DirectMembers,
        Self::UrgentSpacingMs,
        Self::GatherMaxMs,
    ];

    /// The field of this name, without its section.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Its name in the configuration and in `PUT /v1/rooms/{room}`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GatherMs => "gather_ms",
            Self::MaxMessages => "max_messages",
            Self::MaxBytes => "max_bytes",
            Self::DirectMembers => "direct_members",
            Self::UrgentSpacingMs => "urgent_spacing_ms",
            Self::GatherMaxMs => "gather_max_ms",
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
        }
    }

    /// Puts a number in its place in `settings`.
    ///
    /// # Errors
    /// [`BadValue`] if it is out of bounds; `settings` are as they were.
    pub fn set(self, value: u64, settings: &mut RoomSettings) -> Result<(), BadValue> {
        let fits = self.bounds().contains(&value).then(|| usize::try_from(value).ok()).flatten();
        let Some(size) = fits else {
            let (min, max) = self.bounds().into_inner();
            return Err(BadValue { field: self.name(), allowed: format!("{min} to {max} {}", self.unit()) });
        };
        match self {
            Self::GatherMs => settings.gather = Some(Duration::from_millis(value)),
            Self::MaxMessages => settings.messages_max = Some(size),
            Self::MaxBytes => settings.bytes_max = Some(size),
            Self::DirectMembers => settings.direct_members = Some(value),
            Self::UrgentSpacingMs => settings.urgent_spacing = Some(Duration::from_millis(value)),
            Self::GatherMaxMs => settings.gather_max = Some(Duration::from_millis(value)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::pace::RoomRules;

    #[test]
    fn each_field_takes_its_bounds_and_nothing_beside_them() {
        for field in FlushField::ALL {
            let mut settings = RoomSettings::default();
            let (min, max) = field.bounds().into_inner();
            assert_eq!(FlushField::named(field.name()), Some(field));
            for good in [min, max] {
                field.set(good, &mut settings).unwrap();
                assert_ne!(RoomRules::default().with(&settings), RoomRules::default(), "{field:?}");
            }
            let before = settings.clone();
            for bad in [min.checked_sub(1), Some(max + 1), Some(u64::MAX)].into_iter().flatten() {
                let refused = field.set(bad, &mut settings).unwrap_err();
                assert_eq!(refused.field, field.name());
                assert!(refused.allowed.contains(field.unit()), "{refused}");
                assert_eq!(settings, before, "a refused number changes nothing");
            }
        }
        assert_eq!(FlushField::named("cpu_share"), None);
    }
}
