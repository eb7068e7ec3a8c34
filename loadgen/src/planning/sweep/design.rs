//! The points of a sweep, chosen so that the causes of cost do not rise and fall together. Pure.

use serde::Deserialize;

use crate::planning::model::nnls::condition_number;
use crate::scenario::shape::RunShape;
use crate::wire::frame::Encoding;

const POINTS_MAX: usize = 200;
/// Past this condition number columns are as good as collinear: an error of 1 % in a row becomes more than
/// 100 % in a coefficient.
pub(crate) const CONDITION_MAX: f64 = 100.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Points {
    point: Vec<RunShape>,
}

/// Reads the points that a TOML file lists as `[[point]]`. The error names the line or the point.
pub(crate) fn read(text: &str) -> Result<Vec<RunShape>, String> {
    let points: Points = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].lines().count().max(1));
        let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{at}{}", error.message())
    })?;
    for (number, point) in (1..).zip(&points.point) {
        let wrong = |what: &str| Err(format!("point {number}: {what}"));
        if point.devices == 0 || point.rooms == 0 || point.messages_per_request == 0 {
            return wrong("devices, rooms and messages_per_request must be more than 0");
        }
        if !(point.rate.is_finite() && point.rate > 0.0 && point.rate <= 1e9) {
            return wrong("rate must be more than 0, and at most 1e9");
        }
        if !(point.reliable_rate.is_finite() && point.reliable_rate >= 0.0) {
            return wrong("reliable_rate must be 0 or more");
        }
        if !(0.0..=1.0).contains(&point.reconnect_share) {
            return wrong("reconnect_share must be from 0 to 1");
        }
    }
    match points.point.len() {
        0 => Err("no [[point]]".into()),
        count if count > POINTS_MAX => Err(format!("{count} points; at most {POINTS_MAX} are allowed")),
        _ => Ok(points.point),
    }
}

/// A built-in point, in this order:
///
/// - devices, as a part of --devices-max
/// - devices of a room
/// - message rate, as a part of --rate-max
/// - bytes of payload
/// - messages of a request
/// - reliable messages a second in each room
/// - part of the devices that come and go
struct PointsLine(f64, f64, f64, usize, u32, f64, f64);

/// A single room for all devices.
const ALL: f64 = f64::INFINITY;

/// No point has few devices: their state fits the processor's caches, and says nothing about a node with many
/// devices. Fewest devices first, because a node does not return all memory of a point before the next point.
const LINES: [PointsLine; 22] = [
    PointsLine(0.1, 50.0, 1.5, 300, 1, 0.0, 0.0),
    PointsLine(0.1, ALL, 0.5, 700, 10, 0.0, 0.0),
    PointsLine(0.1, ALL, 0.002, 300, 1, 0.0, 0.0),
    PointsLine(0.1, 100.0, 1.0, 300, 1, 0.0, 0.0),
    PointsLine(0.1, ALL, 0.5, 300, 10, 0.0, 0.0),
    PointsLine(0.25, 10.0, 0.5, 300, 1, 0.0, 0.0),
    PointsLine(0.25, 20.0, 1.0, 300, 5, 0.0, 0.0),
    PointsLine(0.25, ALL, 0.2, 1_500, 1, 0.0, 0.0),
    PointsLine(0.25, 400.0, 0.6, 100, 5, 0.0, 0.0),
    PointsLine(0.25, ALL, 0.004, 300, 1, 0.0, 1.0),
    PointsLine(0.25, ALL, 0.04, 300, 1, 2.0, 0.0),
    PointsLine(0.5, 250.0, 0.008, 300, 1, 0.0, 0.0),
    PointsLine(0.5, ALL, 0.04, 300, 1, 0.0, 0.0),
    PointsLine(0.5, 1_000.0, 0.4, 100, 1, 0.0, 0.0),
    PointsLine(0.5, 250.0, 0.5, 600, 2, 0.0, 0.0),
    PointsLine(0.5, ALL, 0.05, 300, 1, 0.0, 0.5),
    PointsLine(0.5, 500.0, 0.05, 300, 1, 0.5, 0.0),
    PointsLine(1.0, ALL, 0.004, 300, 1, 0.0, 0.0),
    PointsLine(1.0, ALL, 0.1, 100, 1, 0.0, 0.0),
    PointsLine(1.0, 1_000.0, 0.2, 900, 4, 0.0, 0.0),
    PointsLine(1.0, 250.0, 0.2, 300, 1, 0.0, 0.0),
    PointsLine(1.0, 10.0, 0.1, 300, 1, 0.0, 0.0),
];

/// The built-in points, scaled to the most devices and to a message rate.
pub(crate) fn built_in(devices_max: u32, rate_max: u32, encoding: Encoding) -> Vec<RunShape> {
    let shape = |line: &PointsLine| {
        let &PointsLine(part, members, rate, payload_bytes, messages_per_request, reliable, reconnect_share) =
            line;
        let devices = whole(f64::from(devices_max) * part);
        let rooms = whole(f64::from(devices) / members);
        RunShape {
            devices,
            rooms,
            rate: f64::from(rate_max) * rate,
            payload_bytes,
            messages_per_request,
            reliable_rate: reliable * f64::from(rooms),
            reconnect_share,
            encoding,
        }
    };
    LINES.iter().map(shape).collect()
}

fn whole(number: f64) -> u32 {
    u32::try_from(crate::figures::rounded(number)).unwrap_or(u32::MAX).max(1)
}

/// The condition number of the points' columns; infinite for a column that follows from others. Frames are
/// left out, because a run has to measure them first.
pub(crate) fn condition(points: &[RunShape]) -> f64 {
    let columns: [fn(&RunShape) -> f64; 8] = [
        |_| 1.0,
        |shape| f64::from(shape.devices),
        |shape| f64::from(shape.rooms),
        |shape| shape.rate,
        RunShape::requests_per_s,
        |shape| shape.members() * shape.rate,
        |shape| f64::from(shape.devices) * shape.reconnect_share,
        |shape| shape.members() * shape.reliable_rate,
    ];
    // A sweep without joins or acknowledgements is allowed: `plan` then refuses questions about them.
    let asked = columns.iter().filter(|column| points.iter().any(|point| column(point) != 0.0));
    let asked: Vec<_> = asked.collect();
    let rows: Vec<Vec<f64>> =
        points.iter().map(|point| asked.iter().map(|column| column(point)).collect()).collect();
    condition_number(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_points_tell_what_they_vary_apart_at_every_size() {
        for (devices_max, rate_max) in [(1_000, 300), (4_000, 1_000), (18_000, 5_000)] {
            let points = built_in(devices_max, rate_max, Encoding::Json);
            let condition = condition(&points);
            assert!(condition < CONDITION_MAX, "{devices_max} devices: {condition}");
            assert!(points.iter().all(|point| point.devices <= devices_max && point.rooms >= 1));
            assert!(points.is_sorted_by_key(|point| point.devices));
        }
    }

    #[test]
    fn points_that_only_grow_together_are_collinear() {
        let lines = (1..9).map(|n| format!("[[point]]\ndevices = {}\nrooms = {n}\nrate = {n}\n", n * 100));
        let points = read(&lines.collect::<String>()).unwrap();
        assert_eq!((points.len(), points[2].devices, points[2].messages_per_request), (8, 300, 1));
        assert_eq!(condition(&points), f64::INFINITY);
    }

    #[test]
    fn a_wrong_point_is_named() {
        for (text, named) in [
            ("", "point"),
            ("point = []", "no [[point]]"),
            ("[[point]]\ndevices = 1\nrate = 1\n\nspeed = 2", "speed"),
            ("[[point]]\ndevices = 1\nrate = \"x\"", "line 3"),
            ("[[point]]\ndevices = 1\nrate = 0", "point 1: rate"),
            ("[[point]]\ndevices = 0\nrate = 1", "point 1: devices"),
            ("[[point]]\ndevices = 1\nrate = 1\nreconnect_share = 2", "point 1: reconnect_share"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
