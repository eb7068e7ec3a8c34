//! What `plan` is asked, as typed: numbers with magnitudes, rooms by size, a node's resources, the shape of a run. Pure.

use std::str::FromStr;

use serde::Serialize;

use crate::scenario::shape::RunShape;

/// Sizes of rooms in one question, at most.
const SIZES_MAX: usize = 64;

/// A number that may be written as `1e6`, `1_000_000`, `1M`, `20k` or `1.5G`.
///
/// # Errors
/// One line that says what is allowed.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no number like 1e6, 1_000_000 or 1M");
    let plain = text.trim().replace('_', "");
    let (digits, scale) = match plain.char_indices().last() {
        Some((at, 'k' | 'K')) => (&plain[..at], 1e3),
        Some((at, 'm' | 'M')) => (&plain[..at], 1e6),
        Some((at, 'g' | 'G')) => (&plain[..at], 1e9),
        _ => (&*plain, 1.0),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let number = number * scale;
    if number.is_finite() && (0.0..=1e12).contains(&number) { Ok(number) } else { Err(wrong()) }
}

/// Like [`number`], but whole, from 1 to 4 thousand million.
fn whole(text: &str) -> Result<u32, String> {
    let number = number(text)?;
    let whole = u32::try_from(crate::figures::rounded(number)).ok().filter(|whole| *whole >= 1);
    whole
        .filter(|whole| (f64::from(*whole) - number).abs() < 1e-6)
        .ok_or_else(|| format!("{text:?} is no whole number from 1 on"))
}

/// AskedRooms of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Size {
    pub(crate) rooms: u32,
    /// Devices of each.
    pub(crate) viewers: u32,
    /// Chat messages a second of each, where that is not the same for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
}

/// All rooms: `COUNT:VIEWERS[:RATE]` each, or a number of rooms that are alike.
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
                _ => return Err(format!("{text:?} is not COUNT:VIEWERS or COUNT:VIEWERS:RATE")),
            };
            let rate = rate.map(number).transpose()?;
            Ok(Size { rooms: whole(rooms)?, viewers: whole(viewers)?, rate })
        };
        let sizes: Vec<Size> = text.split(',').map(size).collect::<Result<_, _>>()?;
        if sizes.len() > SIZES_MAX {
            return Err(format!("{} sizes; at most {SIZES_MAX}", sizes.len()));
        }
        Ok(Self::Sizes(sizes))
    }
}

impl AskedRooms {
    /// The sizes, for so many viewers in all where that was said.
    ///
    /// # Errors
    /// One line, when both do not agree or one is missing.
    pub(crate) fn sizes(self, viewers: Option<f64>) -> Result<Vec<Size>, String> {
        match (self, viewers) {
            (Self::Alike(_), None) => Err("--viewers: needed where --rooms is a number".into()),
            (Self::Alike(rooms), Some(viewers)) => {
                let all = crate::figures::rounded(viewers);
                let each = u32::try_from(all / u64::from(rooms));
                let each = each.map_err(|_| "--viewers: too many for a room".to_owned())?;
                if each == 0 {
                    return Err(format!("--viewers {viewers}: fewer than one for each of {rooms} rooms"));
                }
                // Below the number of rooms.
                let larger = u32::try_from(all % u64::from(rooms)).unwrap_or(0);
                let sizes = [(larger, each.saturating_add(1)), (rooms - larger, each)];
                let some = sizes.into_iter().filter(|(rooms, _)| *rooms > 0);
                Ok(some.map(|(rooms, viewers)| Size { rooms, viewers, rate: None }).collect())
            }
            (Self::Sizes(sizes), viewers) => {
                let sum: f64 = sizes.iter().map(|size| f64::from(size.rooms) * f64::from(size.viewers)).sum();
                match viewers {
                    Some(viewers) if (viewers - sum).abs() > 0.01 * viewers => {
                        Err(format!("--viewers {viewers}: --rooms have {sum} in all"))
                    }
                    _ => Ok(sizes),
                }
            }
        }
    }
}

/// What one node has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Node {
    pub(crate) processors: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) nic_bits_per_s: f64,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not like 16c,64g,10gbit: processors, GiB of memory, network");
        let &[processors, memory, nic] = &*text.split(',').map(str::trim).collect::<Vec<_>>() else {
            return Err(wrong());
        };
        let part = |text: &str, unit: &str| {
            let digits = text.strip_suffix(unit)?;
            digits.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0 && *number <= 1e6)
        };
        let gigabits = part(nic, "gbit").or_else(|| part(nic, "mbit").map(|mbit| mbit / 1e3));
        Ok(Self {
            processors: part(processors, "c").ok_or_else(wrong)?,
            memory_bytes: part(memory, "g").ok_or_else(wrong)? * f64::from(1 << 30),
            nic_bits_per_s: gigabits.ok_or_else(wrong)? * 1e9,
        })
    }
}

/// One node under the load of a `run`: `devices=4000,rooms=4,rate=200,payload=300,messages-per-request=1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct At {
    pub(crate) shape: RunShape,
    pub(crate) joins_per_s: f64,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = "devices = 0\nrate = 0";
        let mut shape: RunShape = toml::from_str(shape).map_err(|error| error.to_string())?;
        let mut joins_per_s = 0.0;
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
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
                        "{key:?} is none of devices, rooms, rate, payload, messages-per-request, reliable-rate, joins, encoding"
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
    use crate::wire::frame::Encoding;

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
        assert!(rooms.sizes(Some(2e6)).unwrap_err().contains("1000000 in all"));
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
        let node: Node = "16c,64g,10gbit".parse().unwrap();
        assert_eq!((node.processors, node.nic_bits_per_s), (16.0, 1e10));
        for wrong in ["", "16,64,10", "16c,64g", "0c,64g,10gbit", "16c,64g,10"] {
            assert!(wrong.parse::<Node>().is_err(), "{wrong}");
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
