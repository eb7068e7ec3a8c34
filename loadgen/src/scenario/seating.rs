//! Which room each device sits in: how large rooms are, and how devices are spread over them. Pure.

use serde::{Deserialize, Serialize};

/// How large the rooms of a run are. Each has at least one device, as long as there are enough of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sizes {
    /// All alike: device n sits in room n modulo the rooms.
    #[default]
    Even,
    /// The first has this share of the devices, in millionths; the others share the rest alike.
    Giant { share: u32 },
    /// The n-th has a part in proportion to 1 / n to the power of this.
    Zipf { exponent: f64 },
    /// Sizes drawn from a lognormal distribution whose logarithm has this standard deviation.
    Lognormal { sigma: f64 },
    /// As live platforms see them: one large room (half of the devices), hundreds of middle ones (a tenth of the rooms,
    /// three tenths of the devices), all others small.
    Field,
}

/// Devices that are drawn to find one of another room. Past it a witness of one is drawn.
const DRAWS_MAX: u32 = 32;

/// Where every device of a run sits. A few bytes a room, whatever the devices.
///
/// Device n of the first as many as there are rooms sits in room n and is its witness; what other devices come to is
/// spread evenly over their numbers, so that all rooms grow alike while an audience does.
#[derive(Debug, Clone)]
pub(crate) struct Seating {
    devices: u32,
    rooms: u32,
    /// Of each room: how many devices besides witnesses sit in it and the rooms before it. Empty where all are alike.
    through: Vec<u32>,
    /// From one device's place among those to the next one's; has no divisor in common with how many they are.
    stride: u64,
}

impl Seating {
    /// Seats so many devices in so many rooms. `seed` is what drawn sizes are drawn from.
    #[must_use]
    pub(crate) fn new(sizes: Sizes, devices: u32, rooms: u32, seed: u64) -> Self {
        let rooms = rooms.max(1);
        let through = match sizes {
            Sizes::Even => Vec::new(),
            _ => shared_out(&sizes.weights(rooms, seed), devices, rooms),
        };
        let others = through.last().copied().unwrap_or(0);
        Self { devices, rooms, through, stride: stride(others.into()) }
    }

    /// The room of device `device`.
    #[must_use]
    pub(crate) fn room_of(&self, device: u32) -> u32 {
        let others = self.through.last().copied().unwrap_or(0);
        if device < self.rooms || others == 0 {
            return device % self.rooms;
        }
        let place = u64::from(device - self.rooms) * self.stride % u64::from(others);
        let room = self.through.partition_point(|through| u64::from(*through) <= place);
        u32::try_from(room).unwrap_or(0)
    }

    /// The room of a device drawn at random that does not sit in `room`; `room` where all do.
    #[must_use]
    pub(crate) fn another(&self, room: u32, random: &mut fastrand::Rng) -> u32 {
        let seated = self.devices.min(self.rooms);
        if seated < 2 {
            return room;
        }
        let drawn =
            (0..DRAWS_MAX).map(|_| self.room_of(random.u32(..self.devices))).find(|drawn| *drawn != room);
        // The first device of each room sits in it.
        drawn.unwrap_or_else(|| (room + 1 + random.u32(..seated - 1)) % seated)
    }

    /// How many devices sit in a room, of all there ever are.
    #[must_use]
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
    /// What the rooms' sizes are in proportion to.
    fn weights(self, rooms: u32, seed: u64) -> Vec<f64> {
        let others = f64::from(rooms - 1).max(1.0);
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5ea7);
        let middle = (rooms / 10).max(1).min(rooms - 1);
        let small = f64::from(rooms - 1 - middle).max(1.0);
        let weight = |room: u32| match self {
            Self::Even => 1.0,
            Self::Giant { share } if room == 0 => f64::from(share) / 1_000_000.0,
            Self::Giant { share } => (1.0 - f64::from(share) / 1_000_000.0).max(0.0) / others,
            Self::Zipf { exponent } => f64::from(room + 1).powf(-exponent),
            Self::Lognormal { sigma } => (sigma * normal(&mut random)).exp(),
            Self::Field if room == 0 => 0.5,
            Self::Field if room <= middle => 0.3 / f64::from(middle),
            Self::Field => 0.2 / small,
        };
        (0..rooms).map(weight).collect()
    }
}

/// A number from the standard normal distribution (Box and Muller).
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

/// Shares the devices that are no witnesses out to the rooms, so that with its witness each comes as near to its part of
/// all as whole devices allow: the largest remainders are rounded up. Gives the sums up to each room.
fn shared_out(weights: &[f64], devices: u32, rooms: u32) -> Vec<u32> {
    let all: f64 = weights.iter().sum();
    let beyond = weights.iter().map(|weight| (f64::from(devices) * weight / all - 1.0).max(0.0));
    let beyond: Vec<f64> = beyond.collect();
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
    let mut left = others.saturating_sub(whole.iter().sum());
    for room in by_remainder.into_iter().cycle() {
        if left == 0 {
            break;
        }
        whole[room] += 1;
        left -= 1;
    }
    let sums = whole.iter().scan(0_u32, |sum, count| {
        *sum = sum.saturating_add(*count);
        Some(*sum)
    });
    sums.collect()
}

/// A stride near the golden section of `count`, whose multiples lie evenly in it however few they are, and which has no
/// divisor in common with it, so that `count` of them reach every place.
fn stride(count: u64) -> u64 {
    let golden = count * 618 / 1_000;
    (golden.max(1)..).find(|stride| divisor(*stride, count) == 1).unwrap_or(1)
}

/// Euclid's.
fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Sizes; 5] = [
        Sizes::Even,
        Sizes::Giant { share: 500_000 },
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
        let giant = of(Sizes::Giant { share: 400_000 });
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
