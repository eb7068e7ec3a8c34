//! The way from a shape to its features without a run: the number and the size of the frames of a room. Pure.
//!
//! A room gathers for a window w from its oldest message on. With r requests a second at random times, the
//! next message comes 1/r after a flush. So two flushes are w + 1/r apart. A window of 100 ms and 20 requests
//! a second give a flush every 150 ms. Nothing here knows a node's settings: windows and frame limits are
//! estimated from the rows.

use serde::Serialize;

use super::cost::{mean, most};
use super::{Features, Row, nnls};
use crate::scenario::shape::RunShape;
use crate::wire::frame::Encoding;

/// The first of the windows that are tried, the ratio between neighbours, and their number: up to 4 s.
const WINDOW_MIN_S: f64 = 0.001;
const WINDOW_STEP: f64 = 1.005;
const WINDOW_STEPS: i32 = 1_663;
/// A window is uncertain once windows so many times as wide fit the rows equally well.
const WINDOW_RATIO_MAX: f64 = 2.0;
/// Rooms of neighbouring sizes are of one kind up to this ratio.
const KIND_RATIO: f64 = 2.0;
/// A frame limit is believed once the limit lowers the sum of the squared errors to this part.
const LIMIT_GAIN: f64 = 0.9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishRhythm {
    /// At even distances, as `run` publishes.
    Steady,
    /// By chance, as people write.
    Poisson,
}

/// The gather window of rooms of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct FlushWindow {
    /// Devices of the smallest measured room of this kind.
    pub(crate) members_min: f64,
    /// Devices of the largest measured room of this kind.
    pub(crate) members_max: f64,
    /// Time from the oldest message to the flush: the middle of all windows that fit the rows best.
    pub(crate) window_s: f64,
    /// The narrowest window that fits as well.
    pub(crate) window_low_s: f64,
    /// The widest window that fits as well.
    pub(crate) window_high_s: f64,
    pub(crate) rows: usize,
}

impl FlushWindow {
    /// The rows leave the window open. In slow rooms each message is flushed alone, for any window below the
    /// time between two messages.
    pub(crate) fn is_vague(&self) -> bool {
        self.window_high_s > self.window_low_s * WINDOW_RATIO_MAX
    }

    /// The ratio of a room's devices to the nearest measured size of this kind, at least 1.
    pub(crate) fn distance(&self, members: f64) -> f64 {
        let below = self.members_min / members.max(1e-9);
        let above = members / self.members_max.max(1e-9);
        below.max(above).max(1.0)
    }

    /// The measured rooms in words: `rooms of 60 devices`, `rooms of 50 to 80 devices`.
    pub(crate) fn rooms(&self) -> String {
        let least = format!("{:.0}", self.members_min);
        let most = format!("{:.0}", self.members_max);
        if least == most {
            format!("rooms of {least} devices")
        } else {
            format!("rooms of {least} to {most} devices")
        }
    }

    /// The range of windows that fit, in words.
    pub(crate) fn range(&self) -> String {
        format!("{:.1} to {:.1} ms", self.window_low_s * 1_000.0, self.window_high_s * 1_000.0)
    }
}

/// A node's frames, as estimated from a sweep.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Flushes {
    /// Smallest rooms first.
    pub(crate) kinds: Vec<FlushWindow>,
    pub(crate) limits: Limits,
    pub(crate) bytes: Vec<FrameBytes>,
    /// Acknowledgements for each reliable message and device.
    pub(crate) acks_per_delivery: f64,
}

/// The largest frame. `None`: no row shows such a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Limits {
    pub(crate) messages: Option<f64>,
    pub(crate) bytes: Option<f64>,
}

/// The bytes of frames in an encoding: a part for each frame, each message, and each byte of payload.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct FrameBytes {
    pub(crate) encoding: Encoding,
    pub(crate) per_frame: f64,
    pub(crate) per_message: f64,
    pub(crate) per_payload_byte: f64,
}

/// The traffic of a single room.
#[derive(Debug, Clone, Copy)]
struct RoomTraffic {
    requests_per_s: f64,
    messages_per_s: f64,
    /// Bytes to each device.
    bytes_per_s: f64,
}

impl RoomTraffic {
    fn of(row: &Row) -> Self {
        let rooms = f64::from(row.shape.rooms);
        Self {
            requests_per_s: row.features.publishes_per_s / rooms,
            messages_per_s: row.features.messages_per_s / rooms,
            bytes_per_s: row.features.bytes_per_s / row.features.connections.max(1.0),
        }
    }
}

impl Limits {
    /// The least frames a second to each device that can hold this traffic.
    fn frames_min(&self, traffic: RoomTraffic) -> f64 {
        let messages = self.messages.map_or(0.0, |most| traffic.messages_per_s / most);
        messages.max(self.bytes.map_or(0.0, |most| traffic.bytes_per_s / most))
    }
}

/// The time between two flushes of a room.
fn interval_s(window_s: f64, requests_per_s: f64, arrivals: PublishRhythm) -> f64 {
    match arrivals {
        // The first request after the end of the window opens the next window.
        PublishRhythm::Steady => ((window_s * requests_per_s).floor() + 1.0) / requests_per_s,
        PublishRhythm::Poisson => window_s + 1.0 / requests_per_s,
    }
}

impl Flushes {
    /// Estimates windows, limits and sizes from the rows. Fails without a row that shows a plain window.
    pub(crate) fn fit(rows: &[&Row]) -> Result<Self, String> {
        // Reliable messages leave before the window ends, so rows with such messages do not show the window.
        let plain = |row: &&&Row| row.shape.reliable_rate == 0.0 && row.features.frames_per_s > 0.0;
        let mut plain: Vec<&Row> = rows.iter().filter(plain).copied().collect();
        if plain.is_empty() {
            return Err("every usable row has reliable messages or no frames".into());
        }
        plain.sort_by(|one, other| one.shape.members().total_cmp(&other.shape.members()));
        let mut kinds = Vec::new();
        let mut limits = Limits::default();
        let mut least = f64::INFINITY;
        for candidate in candidates(&plain) {
            let fitted = fit_kinds(&plain, candidate);
            let error: f64 = fitted.iter().map(|(_, error)| error).sum();
            // More limits always fit a little better, so each has to earn its place.
            if error < least * LIMIT_GAIN || kinds.is_empty() {
                kinds = fitted.into_iter().map(|(kind, _)| kind).collect();
                limits = candidate;
                least = error;
            }
        }
        let acks = rows.iter().filter(|row| row.shape.reliable_rate > 0.0).map(|row| {
            let deliveries = row.shape.reliable_rate * row.shape.members();
            row.features.acks_per_s / deliveries.max(f64::MIN_POSITIVE)
        });
        let acks: Vec<f64> = acks.collect();
        let acks_per_delivery = if acks.is_empty() { 1.0 } else { mean(acks.into_iter()) };
        Ok(Self { kinds, limits, bytes: frame_bytes(&plain), acks_per_delivery })
    }

    /// The features of `shape`, whose rooms are alike, with `joins_per_s` joins. Fails for an encoding
    /// without a row.
    pub(crate) fn features(
        &self,
        shape: &RunShape,
        joins_per_s: f64,
        arrivals: PublishRhythm,
    ) -> Result<Features, String> {
        let encoding = shape.encoding;
        let bytes = self.bytes.iter().find(|bytes| bytes.encoding == encoding);
        let bytes =
            bytes.ok_or_else(|| format!("no row of the sweep has encoding {}", encoding.subprotocol()))?;
        let devices = f64::from(shape.devices);
        let rooms = f64::from(shape.rooms);
        let requests_per_s = shape.requests_per_s() / rooms;
        let urgent_per_s = shape.reliable_rate / rooms;
        let messages_per_s = shape.rate / rooms + urgent_per_s;
        #[expect(clippy::cast_precision_loss, reason = "a payload is below 64 KiB")]
        let message_bytes = bytes.per_message + bytes.per_payload_byte * shape.payload_bytes as f64;
        let traffic = RoomTraffic {
            requests_per_s,
            messages_per_s,
            // The frames' own bytes depend on the result, and are small beside a full frame.
            bytes_per_s: messages_per_s * message_bytes,
        };
        let by_age = self.by_age_per_s(shape.members(), requests_per_s, urgent_per_s, arrivals);
        let flushes_per_s = by_age.max(self.limits.frames_min(traffic));
        let frames_per_s = flushes_per_s * devices;
        let deliveries_per_s = messages_per_s * devices;
        Ok(Features {
            connections: devices,
            rooms,
            publishes_per_s: shape.requests_per_s() + shape.reliable_rate,
            messages_per_s: shape.rate + shape.reliable_rate,
            frames_per_s,
            deliveries_per_s,
            bytes_per_s: bytes.per_frame * frames_per_s + message_bytes * deliveries_per_s,
            joins_per_s,
            acks_per_s: urgent_per_s * devices * self.acks_per_delivery,
            // A room without a device does not flush.
            flushes_per_s: flushes_per_s * rooms.min(devices),
            idle_rooms: 0.0,
        })
    }

    /// The kind whose measured sizes are nearest to a room of `members` devices.
    pub(crate) fn nearest(&self, members: f64) -> Option<&FlushWindow> {
        self.kinds.iter().min_by(|one, other| one.distance(members).total_cmp(&other.distance(members)))
    }

    /// Flushes a second of a room by the end of the window or by an urgent message.
    fn by_age_per_s(
        &self,
        members: f64,
        requests_per_s: f64,
        urgent_per_s: f64,
        arrivals: PublishRhythm,
    ) -> f64 {
        // Without other messages, each urgent message leaves alone.
        if requests_per_s <= 0.0 {
            return urgent_per_s;
        }
        let window_s = self.nearest(members).map_or(0.0, |kind| kind.window_s);
        let interval_s = interval_s(window_s, requests_per_s, arrivals);
        if urgent_per_s <= 0.0 {
            return 1.0 / interval_s;
        }
        // An urgent message flushes the waiting messages, too. So the time between two flushes is the mean of
        // the lesser of the interval and an exponential wait.
        urgent_per_s / (1.0 - (-urgent_per_s * interval_s).exp())
    }
}

/// The limits to try: none, and the largest measured frames by messages, by bytes, and by both.
fn candidates(rows: &[&Row]) -> [Limits; 4] {
    let largest = |of: fn(&Features) -> f64| {
        Some(most(rows.iter().map(|row| of(&row.features) / row.features.frames_per_s)))
    };
    let messages = largest(|features| features.deliveries_per_s);
    let bytes = largest(|features| features.bytes_per_s);
    [
        Limits::default(),
        Limits { messages, bytes: None },
        Limits { messages: None, bytes },
        Limits { messages, bytes },
    ]
}

/// The kinds of rooms among `rows`, smallest first, each with the sum of the squared errors of its window.
fn fit_kinds(rows: &[&Row], limits: Limits) -> Vec<(FlushWindow, f64)> {
    let parts = rows.chunk_by(|one, other| other.shape.members() < one.shape.members() * KIND_RATIO);
    let kind = |part: &[&Row]| {
        let (windows, error) = windows(part, limits);
        let kind = FlushWindow {
            members_min: part[0].shape.members(),
            members_max: part[part.len() - 1].shape.members(),
            window_s: windows[windows.len() / 2],
            window_low_s: windows[0],
            window_high_s: windows[windows.len() - 1],
            rows: part.len(),
        };
        (kind, error)
    };
    parts.map(kind).collect()
}

/// The windows with the least sum of squared relative errors, narrowest first, and that sum. A range of
/// windows often gives the same frames.
fn windows(rows: &[&Row], limits: Limits) -> (Vec<f64>, f64) {
    let error = |window_s: f64| -> f64 {
        let error = |row: &&Row| {
            let traffic = RoomTraffic::of(row);
            let frames_per_s = row.features.frames_per_s / row.features.connections.max(1.0);
            let by_age = 1.0 / interval_s(window_s, traffic.requests_per_s, PublishRhythm::Steady);
            (by_age.max(limits.frames_min(traffic)) / frames_per_s - 1.0).powi(2)
        };
        rows.iter().map(error).sum()
    };
    let tried: Vec<(f64, f64)> = (0..WINDOW_STEPS)
        .map(|step| WINDOW_MIN_S * WINDOW_STEP.powi(step))
        .map(|window_s| (window_s, error(window_s)))
        .collect();
    let least = tried.iter().map(|(_, error)| *error).fold(f64::INFINITY, f64::min);
    let good = tried.iter().filter(|(_, error)| *error <= least * 1.001 + 1e-12);
    (good.map(|(window_s, _)| *window_s).collect(), least)
}

/// Frame sizes for each encoding with a row.
fn frame_bytes(rows: &[&Row]) -> Vec<FrameBytes> {
    #[expect(clippy::cast_precision_loss, reason = "a payload is below 64 KiB")]
    let line = |row: &&Row| {
        let Features { frames_per_s, deliveries_per_s, bytes_per_s, .. } = row.features;
        let payload = row.shape.payload_bytes as f64 * deliveries_per_s;
        [frames_per_s, deliveries_per_s, payload].map(|part| part / bytes_per_s).to_vec()
    };
    let fit = |encoding: Encoding| {
        let spoken = |row: &&&Row| row.shape.encoding == encoding && row.features.bytes_per_s > 0.0;
        let lines: Vec<Vec<f64>> = rows.iter().filter(spoken).map(line).collect();
        let found = nnls::solve(&lines, &vec![1.0; lines.len()]);
        let &[per_frame, per_message, per_payload_byte] = &*found else { return None };
        Some(FrameBytes { encoding, per_frame, per_message, per_payload_byte })
    };
    [Encoding::Json, Encoding::Proto].into_iter().filter_map(fit).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row of a node that gathers for `window_s`, at most 100 messages a frame.
    pub(crate) fn row(shape: RunShape, window_s: f64) -> Row {
        let devices = f64::from(shape.devices);
        let messages = shape.rate / f64::from(shape.rooms);
        let requests = shape.requests_per_s() / f64::from(shape.rooms);
        let frames =
            (1.0 / interval_s(window_s, requests, PublishRhythm::Steady)).max(messages / 100.0) * devices;
        let deliveries = messages * devices;
        let payload = f64::from(u32::try_from(shape.payload_bytes).unwrap());
        let features = Features {
            connections: devices,
            rooms: f64::from(shape.rooms),
            publishes_per_s: shape.requests_per_s(),
            messages_per_s: shape.rate,
            frames_per_s: frames,
            deliveries_per_s: deliveries,
            bytes_per_s: 60.0 * frames + (25.0 + payload) * deliveries,
            flushes_per_s: frames / shape.members(),
            ..Features::default()
        };
        let cpu = 0.1;
        let memory_bytes = 1e6;
        let p99_ms = 5.0;
        Row { shape, features, cpu, memory_bytes, socket_bytes: None, p99_ms, unusable_because: None }
    }

    pub(crate) fn shape(devices: u32, rooms: u32, rate: f64) -> RunShape {
        let shape: RunShape = toml::from_str(&format!("devices = {devices}\nrate = {rate:?}")).unwrap();
        RunShape { rooms, ..shape }
    }

    fn fitted(rows: &[Row]) -> Flushes {
        Flushes::fit(&rows.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_window_is_read_off_the_rows_for_each_size_of_room() {
        let large = [7.0, 33.0, 120.0, 400.0].map(|rate| row(shape(2_000, 1, rate), 0.13));
        let small = [300.0, 5_000.0, 11_000.0].map(|rate| row(shape(500, 50, rate), 0.021));
        let flushes = fitted(&[large.to_vec(), small.to_vec()].concat());
        let windows: Vec<f64> = flushes.kinds.iter().map(|kind| kind.window_s).collect();
        assert_eq!(windows.len(), 2, "{flushes:?}");
        assert!((windows[0] - 0.021).abs() < 0.006 && (windows[1] - 0.13).abs() < 0.01, "{windows:?}");
        assert_eq!(flushes.limits, Limits::default(), "no frame was full");
        assert_eq!(flushes.kinds[0].rooms(), "rooms of 10 devices");
        let uneven = FlushWindow { members_max: 18.0, ..flushes.kinds[0] };
        assert_eq!(uneven.rooms(), "rooms of 10 to 18 devices");
    }

    #[test]
    fn a_window_that_no_row_can_tell_is_a_range() {
        // 20 messages a second of 50 rooms: 2.5 s apart, so each message is flushed alone for any window.
        let slow = [10.0, 20.0].map(|rate| row(shape(500, 50, rate), 0.1));
        let kind = fitted(&slow).kinds[0];
        assert!(kind.is_vague() && kind.window_low_s <= 0.001 && kind.window_high_s > 2.0, "{kind:?}");
        let told = [33.0, 120.0, 400.0].map(|rate| row(shape(2_000, 1, rate), 0.13));
        let kind = fitted(&told).kinds[0];
        assert!(!kind.is_vague() && kind.window_low_s <= 0.131 && kind.window_high_s >= 0.129, "{kind:?}");
    }

    #[test]
    fn what_was_not_measured_is_told_frames_and_bytes() {
        let rates = [5.0, 20.0, 90.0, 300.0, 1_500.0, 2_500.0];
        let rows = rates.map(|rate| row(shape(1_000, 1, rate), 0.1)).to_vec();
        let large = rates.map(|rate| row(RunShape { payload_bytes: 900, ..shape(1_000, 1, rate) }, 0.1));
        let flushes = fitted(&[rows, large.to_vec()].concat());
        assert!((flushes.limits.messages.unwrap() - 100.0).abs() < 0.1, "{flushes:?}");
        for rate in [50.0, 700.0, 2_000.0] {
            let asked = RunShape { payload_bytes: 500, ..shape(1_000, 1, rate) };
            let told = flushes.features(&asked, 0.0, PublishRhythm::Steady).unwrap();
            let known = row(asked, 0.1).features;
            let off = (told.frames_per_s / known.frames_per_s - 1.0).abs();
            assert!(off < 0.06, "{told:?} for {known:?}");
            assert!((told.bytes_per_s / known.bytes_per_s - 1.0).abs() < 0.02, "{told:?} for {known:?}");
        }
        let proto = RunShape { encoding: Encoding::Proto, ..shape(10, 1, 1.0) };
        assert!(flushes.features(&proto, 0.0, PublishRhythm::Steady).is_err());
    }

    #[test]
    fn people_who_write_by_chance_and_urgent_messages_make_more_frames() {
        let rates = [7.0, 33.0, 120.0, 400.0];
        let flushes = fitted(&rates.map(|rate| row(shape(1_000, 1, rate), 0.1)));
        let plain = flushes.features(&shape(1_000, 1, 20.0), 0.0, PublishRhythm::Poisson).unwrap();
        assert!((plain.frames_per_s - 1_000.0 / 0.15).abs() < 300.0, "{plain:?}");
        let urgent = RunShape { reliable_rate: 2.0, ..shape(1_000, 1, 20.0) };
        let urgent = flushes.features(&urgent, 0.0, PublishRhythm::Poisson).unwrap();
        assert!(
            urgent.frames_per_s > plain.frames_per_s && urgent.frames_per_s < plain.frames_per_s + 2_000.0
        );
        assert_eq!((urgent.acks_per_s, urgent.messages_per_s), (2_000.0, 22.0));
        let alone = flushes.features(
            &RunShape { reliable_rate: 2.0, ..shape(1_000, 1, 0.0) },
            0.0,
            PublishRhythm::Poisson,
        );
        assert_eq!(alone.unwrap().frames_per_s, 2_000.0);
    }
}
