//! Seating: room sizes, and the room of each device. Pure.

use serde::{Deserialize, Serialize};

use crate::scenario::units::Share;

/// Distribution of devices over rooms. Each room has at least one device while there are enough devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Sizes {
    /// Device n sits in room n modulo the rooms.
    #[default]
    Even,
    /// The first room has this share of the devices; the others are alike.
    Giant { share: Share },
    /// The n-th room's part is in proportion to n^-exponent.
    Zipf { exponent: f64 },
    /// Sizes are drawn from a lognormal distribution; `sigma` is the standard deviation of the logarithm.
    Lognormal { sigma: f64 },
    /// The field of a live platform: one large room (half of the devices), hundreds of middle rooms (a tenth
    /// of the rooms, three tenths of the devices), and small rooms.
    Field,
}

/// Most draws for a device of another room. Past them a witness of another room is drawn.
const DRAWS_MAX: u32 = 32;

/// The room of every device of a run, in a few bytes a room.
///
/// Device n sits in room n while n is below the rooms, and is the room's witness. A stride spreads all
/// further devices evenly over the rooms' seats, so all rooms grow alike while an audience grows.
#[derive(Debug, Clone)]
pub(crate) struct Seating {
    devices: u32,
    rooms: u32,
    /// Room -> seats without witnesses in the rooms up to this room. Empty for even sizes.
    through: Vec<u32>,
    /// Step between the seats of consecutive devices; coprime to the number of seats, so every seat is
    /// reached once.
    stride: u64,
}

impl Seating {
    /// The seed only matters for drawn sizes.
    pub(crate) fn new(sizes: Sizes, devices: u32, rooms: u32, seed: u64) -> Self {
        let rooms = rooms.max(1);
        let through = match sizes {
            Sizes::Even => Vec::new(),
            _ => shared_out(&sizes.weights(rooms, seed), devices, rooms),
        };
        let others = through.last().copied().unwrap_or(0);
        Self { devices, rooms, through, stride: stride(others.into()) }
    }

    pub(crate) fn room_of(&self, device: u32) -> u32 {
        let others = self.through.last().copied().unwrap_or(0);
        // Witnesses sit in the room of their number; without uneven seats all devices go round robin.
        if device < self.rooms || others == 0 {
            return device % self.rooms;
        }
        let place = u64::from(device - self.rooms) * self.stride % u64::from(others);
        let room = self.through.partition_point(|through| u64::from(*through) <= place);
        u32::try_from(room).unwrap_or(0)
    }

    /// The room of a random device outside `room`; `room` itself where no other room has a device.
    pub(crate) fn another(&self, room: u32, random: &mut fastrand::Rng) -> u32 {
        let seated = self.devices.min(self.rooms);
        // With one device there is no other room.
        if seated < 2 {
            return room;
        }
        let drawn =
            (0..DRAWS_MAX).map(|_| self.room_of(random.u32(..self.devices))).find(|drawn| *drawn != room);
        // Rooms up to `seated` have their witness, so any of these rooms but `room` is a valid answer.
        drawn.unwrap_or_else(|| (room + 1 + random.u32(..seated - 1)) % seated)
    }

    pub(crate) fn devices_of(&self, room: u32) -> u32 {
        if self.through.is_empty() {
            return self.devices / self.rooms + u32::from(room < self.devices % self.rooms);
        }
        let at = |room: u32| self.through.get(room as usize).copied().unwrap_or(0);
        let before = room.checked_sub(1).map_or(0, at);
        at(room) - before + u32::from(room < self.devices)
    }
}

impl Sizes {
    /// The relative sizes of the rooms.
    fn weights(self, rooms: u32, seed: u64) -> Vec<f64> {
        let others = f64::from(rooms - 1).max(1.0);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5ea7);
        let middle = (rooms / 10).max(1).min(rooms - 1);
        let small = f64::from(rooms - 1 - middle).max(1.0);
        let weight = |room: u32| match self {
            Self::Even => 1.0,
            Self::Giant { share } if room == 0 => share.fraction(),
            Self::Giant { share } => (1.0 - share.fraction()) / others,
            Self::Zipf { exponent } => f64::from(room + 1).powf(-exponent),
            Self::Lognormal { sigma } => (sigma * normal(&mut random)).exp(),
            Self::Field if room == 0 => 0.5,
            Self::Field if room <= middle => 0.3 / f64::from(middle),
            Self::Field => 0.2 / small,
        };
        (0..rooms).map(weight).collect()
    }
}

/// A draw from the standard normal distribution (Box and Muller).
pub(super) fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// Gives the devices without witnesses to the rooms by largest remainder. With its witness each room comes as
/// near to its part of all devices as whole numbers allow. Returns the running sums by room.
fn shared_out(weights: &[f64], devices: u32, rooms: u32) -> Vec<u32> {
    let all: f64 = weights.iter().sum();
    // Each room has its witness already, so only the part beyond 1 device is shared out.
    let beyond: Vec<f64> =
        weights.iter().map(|weight| (f64::from(devices) * weight / all - 1.0).max(0.0)).collect();
    let wanted = beyond.iter().sum::<f64>();
    let others = devices.saturating_sub(rooms);
    let parts: Vec<f64> = beyond
        .iter()
        .map(|part| if wanted > 0.0 { part / wanted * f64::from(others) } else { 0.0 })
        .collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the devices")]
    let mut whole: Vec<u32> = parts.iter().map(|part| part.floor() as u32).collect();
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by(|one, other| {
        let remainder = |room: usize| parts[room] - parts[room].floor();
        remainder(*other).total_cmp(&remainder(*one)).then(one.cmp(other))
    });
    // Cycled, so rounding errors of the floats leave no device without a room.
    let left = others.saturating_sub(whole.iter().sum());
    by_remainder.into_iter().cycle().take(left as usize).for_each(|room| whole[room] += 1);
    let sums = whole.iter().scan(0_u32, |sum, count| {
        *sum = sum.saturating_add(*count);
        Some(*sum)
    });
    sums.collect()
}

/// A stride near the golden section of `count` and coprime to `count`. Multiples of such a stride lie evenly,
/// however few.
fn stride(count: u64) -> u64 {
    let golden = count * 618 / 1_000;
    (golden.max(1)..).find(|stride| divisor(*stride, count) == 1).unwrap_or(1)
}

/// Greatest common divisor (Euclid).
fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Sizes; 5] = [
        Sizes::Even,
        Sizes::Giant { share: Share::of_millionths(500_000) },
        Sizes::Zipf { exponent: 1.1 },
        Sizes::Lognormal { sigma: 1.5 },
        Sizes::Field,
    ];

    fn counted(seating: &Seating, devices: u32, rooms: u32) -> Vec<u32> {
        let mut counts = vec![0; rooms as usize];
        (0..devices).for_each(|device| counts[seating.room_of(device) as usize] += 1);
        counts
    }

    #[test]
    fn sizes_add_up_and_are_what_devices_come_to_and_each_room_has_its_witness() {
        for sizes in ALL {
            for (devices, rooms) in [(1, 1), (5, 1), (7, 3), (3, 7), (100, 100), (1_000, 30), (20_000, 1_003)]
            {
                let seating = Seating::new(sizes, devices, rooms, 7);
                let counts = counted(&seating, devices, rooms);
                let said: Vec<u32> = (0..rooms).map(|room| seating.devices_of(room)).collect();
                assert_eq!(said, counts, "{sizes:?} {devices} in {rooms}");
                assert_eq!(counts.iter().sum::<u32>(), devices);
                assert!((0..rooms.min(devices)).all(|device| seating.room_of(device) == device));
            }
        }
    }

    #[test]
    fn an_even_seating_is_round_robin() {
        let seating = Seating::new(Sizes::Even, 10, 4, 1);
        assert_eq!(
            (0..10).map(|device| seating.room_of(device)).collect::<Vec<_>>(),
            [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
        );
    }

    #[test]
    fn rooms_are_as_large_as_was_asked() {
        let of = |sizes| Seating::new(sizes, 10_000, 100, 3);
        let giant = of(Sizes::Giant { share: Share::of_millionths(400_000) });
        assert_eq!((giant.devices_of(0), giant.devices_of(1).abs_diff(61) <= 1), (4_000, true));
        let zipf = of(Sizes::Zipf { exponent: 1.0 });
        assert!(zipf.devices_of(0).abs_diff(2 * zipf.devices_of(1)) <= 2);
        let field = of(Sizes::Field);
        assert_eq!(field.devices_of(0), 5_000);
        assert_eq!((1..11).map(|room| field.devices_of(room)).sum::<u32>(), 3_000);
        let drawn = of(Sizes::Lognormal { sigma: 1.0 });
        let sizes: Vec<u32> = (0..100).map(|room| drawn.devices_of(room)).collect();
        assert!(sizes.iter().max() > Some(&400) && sizes.iter().min() < Some(&30), "{sizes:?}");
        assert_ne!(
            drawn.devices_of(0),
            Seating::new(Sizes::Lognormal { sigma: 1.0 }, 10_000, 100, 4).devices_of(0)
        );
    }

    #[test]
    fn while_an_audience_grows_all_rooms_grow_alike() {
        for sizes in ALL {
            let devices = 20_000;
            let rooms = 50;
            let seating = Seating::new(sizes, devices, rooms, 7);
            let half = counted(&seating, (devices + rooms) / 2, rooms);
            for (room, count) in (0..rooms).zip(half) {
                let others = (seating.devices_of(room) - 1) / 2;
                assert!(
                    (count - 1).abs_diff(others) <= 5 + others / 20,
                    "{sizes:?} room {room}: {count} of {others}"
                );
            }
        }
    }
}
