//! The members of a reliable stream, for receipts: devices by name, and connections without a name.
//!
//! A device with a name counts once in a receipt, over any connections, and in any order of joins, departures
//! and acknowledgements. So receipts keep no running count of such devices: a receipt is computed from the
//! records here. A segment knows the acknowledgements of the connections present, and the home hears of these
//! with the departure.
//!
//! Connections without a name are counted one by one in the receipts themselves. Nothing tells whether such a
//! connection is the return of another.

use std::collections::{BTreeMap, BTreeSet};

use super::entries::Entries;
use super::exchange::{Departure, Reach};
use crate::limits::{INTEGER_MAX, RECEIPT_DEVICES_MAX};
use crate::node_proto as pb;

/// The members of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamMembers {
    /// Hash of the name -> the device. At most `RECEIPT_DEVICES_MAX`.
    by_name: BTreeMap<u64, NamedDevice>,
    /// Last counted offset and name of each device without a connection.
    away: BTreeSet<(u64, u64)>,
    /// Gaps of all devices, at most `RECEIPT_DEVICES_MAX`.
    gaps: usize,
    /// Connections that count without a name.
    pub(super) unnamed: u64,
    /// Last offset sent in an earlier life of the room.
    earlier: u64,
    /// Connections from before the stream was replaced. Their departures are still to come.
    former: u64,
}

/// A device with a name.
#[derive(Debug, Default)]
struct NamedDevice {
    /// Connections present; 0: the device is away.
    connections: u32,
    /// Last acknowledged offset known to the home: from departures, and from cursors.
    acked: u64,
    /// Receipts count the device for messages behind this offset.
    after: u64,
    /// Receipts count a device that is away for messages up to this offset.
    until: u64,
    /// Messages of which receipts do not count the device all the same: dead before its return, or known to
    /// its cursor by another way.
    gaps: Vec<Reach>,
}

impl NamedDevice {
    fn is_counted_for(&self, offset: u64) -> bool {
        let is_behind = offset > self.after && (self.connections > 0 || offset <= self.until);
        is_behind && !self.gaps.iter().any(|gap| gap.after < offset && offset <= gap.through)
    }
}

/// The gaps of a device that comes with a cursor. `former`: the messages that the device did not count for.
///
/// From now on the device counts for the living ones behind its cursor, which are carried to it. Up to the
/// cursor it counts for the messages of an earlier life of the room, up to `earlier`: no better knowledge of
/// these is left.
fn gaps_behind(cursor: u64, earlier: u64, former: &[Reach], entries: &Entries) -> Vec<Reach> {
    let mut gaps = Vec::new();
    for gap in former {
        let known = Reach { after: gap.after.max(earlier), through: gap.through.min(cursor) };
        let behind = Reach { after: gap.after.max(cursor), through: gap.through };
        gaps.extend((known.after < known.through).then_some(known));
        gaps.extend(entries.dead_runs(behind));
    }
    gaps
}

/// The treatment of a joining connection in receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CountedAs {
    /// Hash of the device's name; 0: the connection counts without a name.
    pub(super) device: u64,
    /// Offset behind which acknowledgements of the connection count.
    pub(super) from: u64,
}

/// The named devices in the receipt of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NamedCounts {
    /// Devices counted.
    pub(super) counted: u64,
    /// Devices with an acknowledgement known to the home.
    pub(super) acknowledged: u64,
    /// Devices that are away without an acknowledgement.
    pub(super) left: u64,
    /// The other devices, rising. Their segments know of an acknowledgement.
    pub(super) waiting: Vec<u64>,
}

impl StreamMembers {
    /// Nobody yet. `earlier`: the last offset sent in an earlier life of the room.
    pub(super) fn new(earlier: u64) -> Self {
        Self { earlier, ..Self::default() }
    }

    /// As `new`, while the connections of `former` are still to leave under the same epoch.
    pub(super) fn following(former: &Self, earlier: u64) -> Self {
        let named: u64 = former.by_name.values().map(|device| u64::from(device.connections)).sum();
        Self { former: former.former + former.unnamed + named, ..Self::new(earlier) }
    }

    /// Named devices with a connection.
    pub(super) fn devices(&self) -> u64 {
        (self.by_name.len() - self.away.len()) as u64
    }

    /// Takes in a connection. `cursor`: the offset of an honoured cursor. `sent`: the last offset sent.
    pub(super) fn join(
        &mut self,
        device: u64,
        cursor: Option<u64>,
        sent: u64,
        entries: &mut Entries,
    ) -> CountedAs {
        if device != 0
            && let Some(from) = self.join_named(device, cursor, sent, entries)
        {
            return CountedAs { device, from };
        }
        self.unnamed += 1;
        // A newcomer owes no acknowledgement for messages sent before.
        let Some(cursor) = cursor else { return CountedAs { device: 0, from: sent } };
        // The messages up to the floor are dead, and will not reach the connection.
        let from = cursor.max(entries.floor(sent));
        entries.come_back(cursor, Reach { after: from, through: sent });
        CountedAs { device: 0, from }
    }

    /// Returns the offset behind which acknowledgements count. `None`: the names are used up.
    fn join_named(&mut self, name: u64, cursor: Option<u64>, sent: u64, entries: &Entries) -> Option<u64> {
        if !self.by_name.contains_key(&name) {
            if self.by_name.len() >= RECEIPT_DEVICES_MAX {
                return None;
            }
            // A newcomer owes no acknowledgement for messages sent before.
            let newcomer = NamedDevice { after: sent, until: sent, ..NamedDevice::default() };
            self.by_name.insert(name, newcomer);
        }
        let device = self.by_name.get_mut(&name).expect("just made");
        self.gaps -= device.gaps.len();
        let mut gaps = std::mem::take(&mut device.gaps);
        if device.connections == 0 {
            self.away.remove(&(device.until, name));
            let missed = Reach { after: device.until, through: sent };
            // With a cursor the device says what it has of these. Without one, a device that is known comes
            // back for everything that is alive.
            match cursor {
                Some(_) => gaps.push(missed),
                None => gaps.extend(entries.dead_runs(missed)),
            }
        }
        if let Some(cursor) = cursor {
            gaps.insert(0, Reach { after: 0, through: device.after });
            gaps = gaps_behind(cursor, self.earlier, &gaps, entries);
            let leading = gaps.first().copied().filter(|gap| gap.after == 0);
            device.after = leading.map_or(0, |gap| gap.through);
            gaps.drain(..usize::from(leading.is_some()));
        }
        let first = entries.first_offset().unwrap_or(u64::MAX);
        gaps.retain(|gap| gap.through >= first && gap.after < gap.through);
        // Past the bound, a device counts for messages that it never was to get.
        gaps.truncate(RECEIPT_DEVICES_MAX.saturating_sub(self.gaps));
        self.gaps += gaps.len();
        device.gaps = gaps;
        device.connections += 1;
        device.acked = device.acked.max(cursor.unwrap_or(0));
        Some(device.acked.max(device.after))
    }

    /// Takes a connection out. `sent`: the last offset sent.
    pub(super) fn leave(&mut self, left: &Departure, sent: u64, entries: &mut Entries) {
        // The store went back in time, and the stream goes on under the same epoch. The offsets of its former
        // connections mean nothing any more.
        if self.former > 0 {
            self.former -= 1;
            return;
        }
        if left.device == 0 {
            self.unnamed = self.unnamed.saturating_sub(1);
            return entries.leave(left.acked.max(left.counts_from), sent);
        }
        let Some(device) = self.by_name.get_mut(&left.device) else { return };
        device.acked = device.acked.max(left.acked.min(sent));
        device.connections = device.connections.saturating_sub(1);
        if device.connections > 0 {
            return;
        }
        device.until = sent;
        self.away.insert((sent, left.device));
        // Devices that come and go in a room without reliable messages leave nothing behind.
        let mut offsets = entries.offsets_down(Reach { after: device.after, through: sent });
        if !offsets.any(|offset| device.is_counted_for(offset)) {
            self.forget(sent, left.device);
        }
    }

    /// Forgets the devices that are away and stand in no receipt any more. `first`: the first offset with a
    /// receipt.
    pub(super) fn age(&mut self, first: Option<u64>) {
        while let Some((until, name)) = self.away.first().copied()
            && first.is_none_or(|first| until < first)
        {
            self.forget(until, name);
        }
    }

    fn forget(&mut self, until: u64, name: u64) {
        self.away.remove(&(until, name));
        self.gaps -= self.by_name.remove(&name).map_or(0, |device| device.gaps.len());
    }

    /// The named devices in the receipt of the message at `offset`, which has been sent.
    pub(super) fn count(&self, offset: u64) -> NamedCounts {
        let mut counts = NamedCounts::default();
        for (name, device) in self.by_name.iter().filter(|(_, device)| device.is_counted_for(offset)) {
            counts.counted += 1;
            if device.acked >= offset {
                counts.acknowledged += 1;
            } else if device.connections == 0 {
                counts.left += 1;
            } else {
                counts.waiting.push(*name);
            }
        }
        counts
    }

    /// Writes the members into the words for the next home of the room.
    pub(super) fn hand_over(&self, stream: &mut pb::RoomStream) {
        let named = |(name, device): (&u64, &NamedDevice)| pb::NamedMember {
            device: *name,
            connections: device.connections,
            acked: device.acked,
            after: device.after,
            until: device.until,
            gaps: device
                .gaps
                .iter()
                .map(|gap| pb::Reach { after: gap.after, through: gap.through })
                .collect(),
        };
        stream.named = self.by_name.iter().map(named).collect();
        stream.unnamed = self.unnamed;
        stream.earlier = self.earlier;
        stream.former = self.former;
    }

    /// The members of a former home. `None`: no home says so.
    pub(super) fn of_handed(stream: &mut pb::RoomStream) -> Option<Self> {
        let pb::RoomStream { unnamed, earlier, former, .. } = *stream;
        let mut members = Self { unnamed, earlier, former, ..Self::default() };
        for said in std::mem::take(&mut stream.named) {
            let pb::NamedMember { device, connections, acked, after, until, gaps } = said;
            let gaps: Vec<Reach> =
                gaps.into_iter().map(|gap| Reach { after: gap.after, through: gap.through }).collect();
            members.gaps += gaps.len();
            if connections == 0 {
                members.away.insert((until, device));
            }
            members.by_name.insert(device, NamedDevice { connections, acked, after, until, gaps });
            if members.by_name.len().max(members.gaps) > RECEIPT_DEVICES_MAX {
                return None;
            }
        }
        let is_possible = unnamed.max(former).max(earlier) <= INTEGER_MAX;
        // A device that is named twice would be away and present.
        let away = members.by_name.values().filter(|device| device.connections == 0).count();
        (is_possible && away == members.away.len()).then_some(members)
    }

    pub(super) fn check_invariants(&self) {
        // Small tables only: with each input, a test of large ones would never end.
        if self.by_name.len() > 64 {
            return;
        }
        let away = self.by_name.iter().filter(|(_, device)| device.connections == 0);
        let away: BTreeSet<(u64, u64)> = away.map(|(name, device)| (device.until, *name)).collect();
        assert_eq!(away, self.away, "devices without a connection are away");
        assert_eq!(self.by_name.values().map(|device| device.gaps.len()).sum::<usize>(), self.gaps);
        assert!(self.by_name.len() <= RECEIPT_DEVICES_MAX && self.gaps <= RECEIPT_DEVICES_MAX);
    }
}
