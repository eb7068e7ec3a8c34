//! A device's place: in its room, in the order of batches, and in the reliable stream. Pure.

use crate::scenario::habits::DeviceHabits;

/// A device's place in the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// The newest seq held; `None` before the first welcome.
    pub(crate) seq: Option<u64>,
    /// Welcomed on the present connection.
    pub(super) is_in: bool,
    /// Once away, or a late joiner: chat missed meanwhile is not owed to the device.
    pub(super) was_away: bool,
    /// The seq of the welcome from which on the device was owed every batch of the life.
    pub(super) start_seq: u64,
    /// The life of the room, by place in `Watch::lives`.
    pub(super) life: u32,
    /// Place in the reliable stream.
    pub(crate) place: StreamPlace,
}

impl Track {
    /// The track of a late joiner. Earlier messages are not owed to the device.
    pub(crate) fn late(habits: DeviceHabits) -> Self {
        Self { was_away: true, ..Self::new(habits) }
    }

    /// The track of a device that joins before the first publish.
    pub(crate) fn new(habits: DeviceHabits) -> Self {
        let place =
            StreamPlace { drops_acks: habits.drops_acks, is_slow: habits.is_slow, ..StreamPlace::default() };
        Self { place, ..Self::default() }
    }

    #[inline]
    pub(super) fn arrival(&self, now_ns: u64) -> Arrival {
        let timed_from_ns = if self.place.is_slow { u64::MAX } else { self.place.returned_ns };
        Arrival { now_ns, timed_from_ns }
    }

    /// In the room from before the first publish until now: every accepted message is owed to such a device.
    pub(crate) fn is_throughout(&self) -> bool {
        self.is_in && !self.was_away
    }

    /// Welcomed at least once.
    pub(crate) fn is_known(&self) -> bool {
        self.seq.is_some()
    }
}

/// A device and its room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    /// Number of the device in the run.
    pub(crate) device: u32,
    /// Place of the room among the worker's rooms.
    pub(crate) place: usize,
}

/// One device's place in its room's stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// The epoch, counted from 1; 0: none known.
    pub(crate) epoch: u32,
    /// Everything up to here is applied.
    pub(crate) offset: u64,
    /// The newest offset told. Above `offset` while something has to be pulled.
    pub(crate) wanted: u64,
    /// Time of the last return, or of the last beginning to read again; 0: there throughout.
    pub(crate) returned_ns: u64,
    /// Some of the device's acknowledgements are dropped.
    pub(crate) drops_acks: bool,
    /// The device reads slowly now. Its times to apply are no figures of the node, and its limit is its own.
    pub(crate) is_slow: bool,
}

/// The time of a frame's receipt, and the part of the frame that is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) now_ns: u64,
    /// Frames with earlier due times are not timed: the device was away or did not read, and caused the delay
    /// itself.
    pub(crate) timed_from_ns: u64,
}
