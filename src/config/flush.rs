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

/// A field of a room's rules: a whole number.
#[derive(Debug)]
pub(crate) struct RuleField {
    /// The path of the field in the configuration and in `PUT /v1/rooms/{room}`.
    pub(crate) path: &'static str,
    /// The unit of the field.
    pub(crate) unit: &'static str,
    /// The least and the largest number of the field.
    pub(crate) bounds: RangeInclusive<u64>,
    /// Stores a number within the bounds.
    store: fn(&mut RoomSettings, u64),
}

impl RuleField {
    /// Every field, in the order of `config/default.toml`.
    pub(crate) fn all() -> [Self; 9] {
        let windows = 1..=millis(GATHER_MAX);
        let spacings = 1..=millis(URGENT_SPACING_MAX);
        let sizes = BATCH_BYTES_MIN as u64..=BATCH_BYTES_MAX as u64;
        let rates = || 0..=u64::from(RATE_MAX);
        let per_second = "messages a second";
        [
            rule("flush.gather_ms", "milliseconds", windows.clone(), |room, n| room.gather = ms(n)),
            rule("flush.max_messages", "messages", 1..=BATCH_MESSAGES_MAX as u64, |room, n| {
                room.messages_max = usize::try_from(n).ok();
            }),
            rule("flush.max_bytes", "bytes", sizes, |room, n| room.bytes_max = usize::try_from(n).ok()),
            rule("flush.direct_members", "members", 0..=DIRECT_MEMBERS_MAX, |room, n| {
                room.direct_members = Some(n);
            }),
            rule("flush.urgent_spacing_ms", "milliseconds", spacings, |room, n| room.urgent_spacing = ms(n)),
            rule("flush.gather_max_ms", "milliseconds", windows, |room, n| room.gather_max = ms(n)),
            rule("readable.normal_per_second", per_second, rates(), |room, n| {
                room.normal_per_second = u32::try_from(n).ok();
            }),
            rule("readable.high_per_second", per_second, rates(), |room, n| {
                room.high_per_second = u32::try_from(n).ok();
            }),
            rule("limits.room_messages_per_second", per_second, rates(), |room, n| {
                room.messages_per_second = u32::try_from(n).ok();
            }),
        ]
    }

    /// The field at `path`, if any.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::all().into_iter().find(|field| field.path == path)
    }

    /// The bounds and the unit, for problem responses.
    pub(crate) fn allowed(&self) -> String {
        format!("{} to {} {}", self.bounds.start(), self.bounds.end(), self.unit)
    }

    /// Stores `value` in the field of `settings`. `None`, and no change, for a value out of bounds.
    #[must_use]
    pub(crate) fn set(&self, value: u64, settings: &mut RoomSettings) -> Option<()> {
        self.bounds.contains(&value).then(|| (self.store)(settings, value))
    }
}

fn rule(
    path: &'static str,
    unit: &'static str,
    bounds: RangeInclusive<u64>,
    store: fn(&mut RoomSettings, u64),
) -> RuleField {
    RuleField { path, unit, bounds, store }
}

fn ms(value: u64) -> Option<Duration> {
    Some(Duration::from_millis(value))
}

/// The allowed values of a share, for mistakes and problem responses.
pub(crate) const SHARE_ALLOWED: &str = "a share, 0 to 1";

/// The tolerance of sums and roundings: fractions like 0.1 have no exact double.
const SLACK: f64 = 1e-6;

/// The reserved shares of a batch by priority, each from 0 to 1, in the order of [`Priority::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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

    /// Changes the share at `path`. `None`, and no change, for an unknown path or a share out of 0 to 1.
    #[must_use]
    pub(crate) fn set(&mut self, path: &str, share: f64) -> Option<()> {
        let index = Self::PATHS.iter().position(|known| *known == path)?;
        self.0[index] = (0.0..=1.0).contains(&share).then_some(share)?;
        Some(())
    }

    /// A share in thousandths, rounded down. `None` for a share out of 0 to 1.
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

    impl Shares {
        fn of(quotas: Quotas) -> Self {
            Self(quotas.permille.map(|permille| f64::from(permille) / 1000.0))
        }
    }

    #[test]
    fn each_field_takes_its_bounds_and_nothing_beside_them() {
        // Other rules than the default, so that each field's least and most change something.
        let rules = RoomRules {
            messages_per_second: 7,
            readable: roomcast_core::room::pace::Readable { normal_per_second: 7, high_per_second: 7 },
            ..RoomRules::default()
        };
        for field in RuleField::all() {
            let mut settings = RoomSettings::default();
            let (min, max) = field.bounds.clone().into_inner();
            assert_eq!(RuleField::at(field.path).unwrap().bounds, field.bounds);
            for good in [min, max] {
                field.set(good, &mut settings).unwrap();
                assert_ne!(rules.with(&settings), rules, "{field:?}");
            }
            let before = settings.clone();
            for bad in [min.checked_sub(1), Some(max + 1), Some(u64::MAX)].into_iter().flatten() {
                assert_eq!(field.set(bad, &mut settings), None, "{field:?}");
                assert_eq!(settings, before, "a refused number changes nothing");
            }
        }
        assert!(RuleField::at("flush.cpu_share").is_none());
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
