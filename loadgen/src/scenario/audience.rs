//! The audience: a line through points gives the number of devices present over time, and each device's stays
//! follow from the line. Pure.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Time after the first publish is due, in ms.
    pub(crate) at_ms: u64,
    /// Devices present at this time.
    pub(crate) devices: u32,
}

/// The number of devices present over time. Device n is present while the line is above n.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Audience {
    /// Invariant: the first point is at 0 and times never fall. The line is straight between two points and
    /// level after the last.
    pub(crate) points: Vec<Point>,
}

impl Audience {
    pub(crate) fn steady(devices: u32) -> Self {
        Self { points: vec![Point { at_ms: 0, devices }] }
    }

    pub(crate) fn at_start(&self) -> u32 {
        self.points.first().map_or(0, |point| point.devices)
    }

    /// The average number of devices over the first `of_ms`, at least 1.
    pub(crate) fn mean(&self, of_ms: u64) -> u32 {
        let at = |pair: &[Point]| {
            let took_ms = pair[1].at_ms.min(of_ms).saturating_sub(pair[0].at_ms);
            u64::from(pair[0].devices) * took_ms + u64::from(pair[1].devices) * took_ms
        };
        let last = self.points.last().copied().unwrap_or_default();
        let after = 2 * u64::from(last.devices) * of_ms.saturating_sub(last.at_ms);
        // Twice the area under the line: the halves of the trapezoids cancel.
        let twice: u64 = self.points.windows(2).map(at).sum::<u64>() + after;
        u32::try_from((twice / (2 * of_ms.max(1))).max(1)).unwrap_or(u32::MAX)
    }

    /// The stays of device `device`, oldest first. The device comes and goes as the line passes halfway
    /// between its number and the next. So at each point exactly as many devices are present as the point
    /// says, and the last to come is the first to go. Each call walks all points.
    pub(crate) fn stays(&self, device: u32) -> impl Iterator<Item = Stay> + '_ {
        let is_first = self.points.first().is_some_and(|point| point.devices > device);
        let mut crossings = self.points.windows(2).filter_map(move |pair| crossing_ns(pair, device));
        let mut first = is_first.then_some(None);
        std::iter::from_fn(move || {
            loop {
                let from_ns = match first.take() {
                    Some(from_ns) => from_ns,
                    None => Some(crossings.next()?),
                };
                let stay = Stay { from_ns, to_ns: crossings.next() };
                // At a point above and below the same time, a device would come and go at once: no stay.
                if stay.from_ns.is_none() || stay.from_ns != stay.to_ns {
                    return Some(stay);
                }
            }
        })
    }
}

/// A time in which a device is present, in ns after the first publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay {
    /// `None`: the device is present before the first publish.
    pub(crate) from_ns: Option<u64>,
    /// `None`: the device stays to the end.
    pub(crate) to_ns: Option<u64>,
}

/// The time at which the line between two points passes halfway above `device`; `None` where the line does
/// not.
fn crossing_ns(pair: &[Point], device: u32) -> Option<u64> {
    let [one, other] = pair else { return None };
    let low = one.devices.min(other.devices);
    let high = one.devices.max(other.devices);
    // The line stays on one side of the device's number.
    if !(low..high).contains(&device) {
        return None;
    }
    // In half devices: the way from the first point's level to the crossing, and the whole way between the
    // points.
    let half = 2 * u128::from(device) + 1;
    let gone = half.abs_diff(2 * u128::from(one.devices));
    let all = 2 * u128::from(high - low);
    let took_ns = u128::from(other.at_ms.saturating_sub(one.at_ms)) * 1_000_000;
    let after_ns = u64::try_from(took_ns * gone / all).unwrap_or(u64::MAX);
    Some(one.at_ms.saturating_mul(1_000_000).saturating_add(after_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(points: &[(u64, u32)]) -> Audience {
        Audience {
            points: points
                .iter()
                .map(|(at_ms, devices)| Point { at_ms: *at_ms, devices: *devices })
                .collect(),
        }
    }

    fn stays_ms(audience: &Audience, device: u32) -> Vec<(Option<u64>, Option<u64>)> {
        let ms = |ns: Option<u64>| ns.map(|ns| ns / 1_000_000);
        audience.stays(device).map(|stay| (ms(stay.from_ns), ms(stay.to_ns))).collect()
    }

    fn there(audience: &Audience, most: u32, at_ms: u64) -> usize {
        let at_ns = at_ms * 1_000_000;
        let is_there = |stay: Stay| {
            stay.from_ns.is_none_or(|from_ns| from_ns <= at_ns)
                && stay.to_ns.is_none_or(|to_ns| to_ns > at_ns)
        };
        (0..most).filter(|device| audience.stays(*device).any(is_there)).count()
    }

    #[test]
    fn a_steady_audience_is_there_throughout_and_nobody_else() {
        let steady = Audience::steady(3);
        assert_eq!(stays_ms(&steady, 2), [(None, None)]);
        assert_eq!(stays_ms(&steady, 3), []);
        assert_eq!(stays_ms(&Audience::default(), 0), []);
    }

    #[test]
    fn on_a_ramp_devices_come_one_after_the_other() {
        let ramp = audience(&[(0, 10), (10_000, 20)]);
        assert_eq!(ramp.at_start(), 10);
        assert_eq!((ramp.mean(10_000), ramp.mean(20_000)), (15, 17));
        assert_eq!((Audience::steady(7).mean(5_000), Audience::steady(0).mean(5_000)), (7, 1));
        assert_eq!(stays_ms(&ramp, 9), [(None, None)]);
        assert_eq!(stays_ms(&ramp, 10), [(Some(500), None)]);
        assert_eq!(stays_ms(&ramp, 19), [(Some(9_500), None)]);
        assert_eq!(there(&ramp, 20, 5_000), 15);
    }

    #[test]
    fn at_a_step_all_come_at_once() {
        let step = audience(&[(0, 2), (5_000, 2), (5_000, 6), (9_000, 6), (9_000, 1)]);
        for device in 2..6 {
            assert_eq!(stays_ms(&step, device), [(Some(5_000), Some(9_000))]);
        }
        assert_eq!(stays_ms(&step, 1), [(None, Some(9_000))]);
        assert_eq!(stays_ms(&step, 0), [(None, None)]);
    }

    #[test]
    fn at_a_spike_who_came_last_goes_first_and_may_come_again() {
        let spike = audience(&[(0, 1), (1_000, 1), (3_000, 5), (5_000, 1), (7_000, 5)]);
        assert_eq!(stays_ms(&spike, 4), [(Some(2_750), Some(3_250)), (Some(6_750), None)]);
        assert_eq!(stays_ms(&spike, 1), [(Some(1_250), Some(4_750)), (Some(5_250), None)]);
        let needle = audience(&[(0, 1), (1_000, 1), (1_000, 9), (1_000, 1), (2_000, 9)]);
        assert_eq!(stays_ms(&needle, 5), [(Some(1_562), None)], "nobody comes and goes at one time");
    }

    #[test]
    fn in_a_raid_the_line_is_kept_throughout() {
        let raid = audience(&[(0, 10), (2_000, 10), (12_000, 10_010), (20_000, 10_010)]);
        for (at_ms, expected) in [(0, 10), (2_000, 10), (7_000, 5_010), (12_000, 10_010), (30_000, 10_010)] {
            assert_eq!(there(&raid, 10_010, at_ms), expected, "{at_ms}");
        }
    }
}
