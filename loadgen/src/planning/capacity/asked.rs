//! The arguments of `plan`, as typed: numbers with magnitudes, rooms by size, a node, the shape of a run.
//! Pure.

use std::str::FromStr;

use clap::Args;
use serde::Serialize;

use super::models::Resources;
use crate::scenario::shape::RunShape;
use crate::wire::frame::Encoding;

/// Bounds the lines of an answer.
const SIZES_MAX: usize = 64;

/// Parses a number such as `1e6`, `1_000_000`, `1M`, `20k` or `1.5G`.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} must be a number like 1e6, 1_000_000 or 1M");
    let plain = text.trim().replace('_', "");
    let (digits, scale) = match plain.char_indices().last() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1e3),
        Some((at, 'm' | 'M')) => (&plain[..at], 1e6),
        Some((at, 'g' | 'G')) => (&plain[..at], 1e9),
        _ => (&*plain, 1.0),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    // The range also refuses infinity and NaN, which `parse` takes.
    Some(number * scale).filter(|number| (0.0..=1e12).contains(number)).ok_or_else(wrong)
}

/// Like [`number`], but whole and from 1 to 4 × 10⁹.
fn whole(text: &str) -> Result<u32, String> {
    let number = number(text)?;
    let whole = u32::try_from(crate::figures::rounded(number)).ok().filter(|whole| *whole >= 1);
    whole
        .filter(|whole| (f64::from(*whole) - number).abs() < 1e-6)
        .ok_or_else(|| format!("{text:?} must be a whole number, 1 or more"))
}

/// The traffic of every room.
#[derive(Debug, Clone, Copy, Args, Serialize)]
pub(crate) struct AskedTraffic {
    /// Chat messages a second of each room without a rate in --rooms. Arrivals are random, as people write
    /// (Poisson).
    #[arg(long, default_value = "1", value_parser = number)]
    pub(crate) chat_rate: f64,
    /// Reliable messages a second of each room.
    #[arg(long, default_value = "0", value_parser = number)]
    pub(crate) reliable_rate: f64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 300)]
    pub(crate) payload_bytes: usize,
    /// Messages of each publish request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) messages_per_request: u32,
    /// Encoding of the devices' frames.
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) encoding: Encoding,
    /// Devices that join each second, over all rooms. Each room gets its share by its devices.
    #[arg(long, default_value = "0", value_parser = number)]
    #[serde(rename = "joins_per_s")]
    pub(crate) joins_per_second: f64,
}

/// Rooms of the same size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Size {
    pub(crate) rooms: u32,
    /// Devices of each room.
    pub(crate) viewers: u32,
    /// Chat messages a second of each room. `None`: --chat-rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
}

impl Size {
    /// Devices of all rooms of this size.
    pub(crate) fn devices(&self) -> f64 {
        f64::from(self.rooms) * f64::from(self.viewers)
    }
}

/// The value of --rooms: a number of rooms that are alike, or a list of `COUNT:VIEWERS[:RATE]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskedRooms {
    Alike(u32),
    Sizes(Vec<Size>),
}

impl FromStr for AskedRooms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return whole(text).map(Self::Alike);
        }
        let size = |text: &str| {
            let parts: Vec<&str> = text.split(':').collect();
            let (rooms, viewers, rate) = match *parts {
                [rooms, viewers] => (rooms, viewers, None),
                [rooms, viewers, rate] => (rooms, viewers, Some(rate)),
                _ => return Err(format!("{text:?} must be COUNT:VIEWERS or COUNT:VIEWERS:RATE")),
            };
            let rate = rate.map(number).transpose()?;
            Ok(Size { rooms: whole(rooms)?, viewers: whole(viewers)?, rate })
        };
        let sizes: Vec<Size> = text.split(',').map(size).collect::<Result<_, _>>()?;
        if sizes.len() > SIZES_MAX {
            return Err(format!("{} sizes; at most {SIZES_MAX} are allowed", sizes.len()));
        }
        Ok(Self::Sizes(sizes))
    }
}

impl AskedRooms {
    /// The sizes. `viewers` is the number of all viewers; a list of sizes has to agree within 1 %.
    pub(crate) fn sizes(self, viewers: Option<f64>) -> Result<Vec<Size>, String> {
        match (self, viewers) {
            (Self::Alike(_), None) => Err("--viewers: needed with a number of --rooms".into()),
            (Self::Alike(rooms), Some(viewers)) => {
                let all = crate::figures::rounded(viewers);
                let each = u32::try_from(all / u64::from(rooms));
                let each = each.map_err(|_| "--viewers: too many for a room".to_owned())?;
                if each == 0 {
                    return Err(format!("--viewers {viewers}: fewer than one for each of {rooms} rooms"));
                }
                // The remainder makes some rooms larger by a single viewer, so that the sum is exact.
                let larger = u32::try_from(all % u64::from(rooms)).unwrap_or(0);
                let sizes = [(larger, each.saturating_add(1)), (rooms - larger, each)];
                let some = sizes.into_iter().filter(|(rooms, _)| *rooms > 0);
                Ok(some.map(|(rooms, viewers)| Size { rooms, viewers, rate: None }).collect())
            }
            (Self::Sizes(sizes), viewers) => {
                let sum: f64 = sizes.iter().map(Size::devices).sum();
                match viewers {
                    Some(viewers) if (viewers - sum).abs() > 0.01 * viewers => {
                        Err(format!("--viewers {viewers}: but --rooms have {sum} viewers in all"))
                    }
                    _ => Ok(sizes),
                }
            }
        }
    }
}

/// The value of --node: `16c,64g,10gbit`.
impl FromStr for Resources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be like 16c,64g,10gbit: processors, GiB of memory, network");
        let &[processors, memory, nic] = &*text.split(',').map(str::trim).collect::<Vec<_>>() else {
            return Err(wrong());
        };
        let part = |text: &str, unit: &str| {
            let digits = text.strip_suffix(unit)?;
            digits.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e6)
        };
        let gigabits = part(nic, "gbit").or_else(|| part(nic, "mbit").map(|mbit| mbit / 1e3));
        Ok(Self {
            processors: part(processors, "c").ok_or_else(wrong)?,
            memory_bytes: part(memory, "g").ok_or_else(wrong)? * f64::from(1 << 30),
            nic_bits_per_s: gigabits.ok_or_else(wrong)? * 1e9,
        })
    }
}

/// The value of --at: a node under the load of a `run`, `devices=4000,rooms=4,rate=200,payload=300`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct At {
    pub(crate) shape: RunShape,
    pub(crate) joins_per_s: f64,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The other keys have defaults of their own.
        let shape = "devices = 0\nrate = 0";
        let mut shape: RunShape = toml::from_str(shape).map_err(|error| error.to_string())?;
        let mut joins_per_s = 0.0;
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} must be KEY=VALUE"))?;
            let named = |error| format!("{key}: {error}");
            match key.trim() {
                "devices" => shape.devices = whole(value).map_err(named)?,
                "rooms" => shape.rooms = whole(value).map_err(named)?,
                "rate" => shape.rate = number(value).map_err(named)?,
                "payload" => shape.payload_bytes = whole(value).map_err(named)? as usize,
                "messages-per-request" => shape.messages_per_request = whole(value).map_err(named)?,
                "reliable-rate" => shape.reliable_rate = number(value).map_err(named)?,
                "joins" => joins_per_s = number(value).map_err(named)?,
                "encoding" => shape.encoding = clap::ValueEnum::from_str(value, false).map_err(named)?,
                _ => {
                    return Err(format!(
                        "{key:?} must be devices, rooms, rate, payload, messages-per-request, reliable-rate, joins or \
                         encoding"
                    ));
                }
            }
        }
        if shape.devices == 0 {
            return Err("devices=N is needed".into());
        }
        Ok(Self { shape, joins_per_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_magnitudes() {
        for (text, wanted) in
            [("1e6", 1e6), ("1_000_000", 1e6), ("1M", 1e6), ("20k", 2e4), ("0.5", 0.5), ("1.5G", 1.5e9)]
        {
            assert_eq!(number(text), Ok(wanted), "{text}");
        }
        for wrong in ["", "M", "-1", "nan", "1e99", "1T", "inf"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rooms_are_a_number_or_sizes_that_add_up() {
        let rooms: AskedRooms = "1:500000:200,300:1k,20000:10".parse().unwrap();
        let sizes = rooms.clone().sizes(Some(1e6)).unwrap();
        assert_eq!(sizes[0], Size { rooms: 1, viewers: 500_000, rate: Some(200.0) });
        assert_eq!((sizes[1].viewers, sizes[2].rooms), (1_000, 20_000));
        assert!(rooms.sizes(Some(2e6)).unwrap_err().contains("1000000 viewers in all"));
        let alike: AskedRooms = "100".parse().unwrap();
        assert_eq!(alike.clone().sizes(Some(1e4)).unwrap()[0].viewers, 100);
        assert!(alike.clone().sizes(None).unwrap_err().contains("--viewers"));
        let refused = alike.clone().sizes(Some(10.0)).unwrap_err();
        assert!(refused.contains("--viewers 10: fewer than one for each of 100 rooms"), "{refused}");
        let uneven = alike.sizes(Some(150.0)).unwrap();
        let uneven: Vec<(u32, u32)> = uneven.iter().map(|size| (size.rooms, size.viewers)).collect();
        assert_eq!(uneven, [(50, 2), (50, 1)], "no viewer more or less than asked");
        for wrong in ["", "0", "1:0", "1:2:3:4", "1:x", "1.5"] {
            assert!(wrong.parse::<AskedRooms>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_and_a_point_are_read_or_refused_by_name() {
        let node: Resources = "16c,64g,10gbit".parse().unwrap();
        assert_eq!((node.processors, node.nic_bits_per_s), (16.0, 1e10));
        for wrong in ["", "16,64,10", "16c,64g", "0c,64g,10gbit", "16c,64g,10"] {
            assert!(wrong.parse::<Resources>().is_err(), "{wrong}");
        }
        let at: At = "devices=4k,rooms=4,rate=200,payload=500,joins=3,encoding=proto".parse().unwrap();
        assert_eq!((at.shape.devices, at.shape.payload_bytes, at.joins_per_s), (4_000, 500, 3.0));
        assert_eq!(at.shape.encoding, Encoding::Proto);
        for (wrong, named) in
            [("rooms=1", "devices"), ("devices=x", "devices"), ("speed=1", "speed"), ("a", "KEY")]
        {
            assert!(wrong.parse::<At>().unwrap_err().contains(named), "{wrong}");
        }
    }
}
