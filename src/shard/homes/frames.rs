//! Frames of a room on their way to its segments: encoded once per state or encoding, never once per member.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Homes;
use crate::shard::lane::{HomeSaid, LaneSent};
use roomcast_core::fanout::segment::{Level, RefreshFrame, Refreshed};
use roomcast_core::now::Now;
use roomcast_core::room::history::{self, Past};
use roomcast_core::room::id::{Encoding, Seq};
use roomcast_core::room::{Batch, Carried, CarryWant, Census, Input, Reach, Refresh, RefreshWant, Room};
use roomcast_core::wire::frame::{self, Head};

impl Homes {
    /// Encodes a batch once for each encoding in use, and sends the same bytes to every segment.
    pub(super) fn send_batch(
        &mut self,
        key: usize,
        batch: &Batch,
        segments: &[(usize, Census)],
        sent: u64,
        now: Now,
    ) {
        // A room without members still orders: its batches are history for the first who joins.
        if segments.is_empty() {
            return;
        }
        let level = Arc::new(level(&self.rooms[key].room, batch, segments, sent));
        for &(shard, _) in segments {
            if self.deliver(key, shard, HomeSaid::Level(Arc::clone(&level))) == LaneSent::Lapsed {
                self.tally.lane_full += 1;
                // The segment will never take this batch. Counted as before the segment, four of them would
                // stop the room's cuts for good.
                let room = &mut self.rooms[key].room;
                let lapsed = Input::Lapsed { place: shard, seq: batch.seq };
                room.handle(lapsed, now, &mut self.tally.rooms);
            }
        }
    }

    /// Tells all segments of a room that their members' picture of the reliable stream is wrong.
    pub(super) fn send_stream_changed(&mut self, key: usize) {
        let shards: Vec<usize> = self.rooms[key].room.segments().map(|(shard, _)| shard).collect();
        for shard in shards {
            self.deliver(key, shard, HomeSaid::StreamChanged);
        }
    }
}

fn level(room: &Room, batch: &Batch, segments: &[(usize, Census)], sent: u64) -> Level {
    let head = Head { room: room.name(), run: room.run(), seq: batch.seq };
    let is_used = |encoding| segments.iter().any(|(_, census)| census.uses(encoding));
    let level_in =
        |encoding| if is_used(encoding) { frame::level(head, batch, encoding) } else { Bytes::new() };
    Level {
        seq: batch.seq,
        frames: Encoding::ALL.map(level_in),
        reach: Reach { after: batch.span.map_or(sent, |span| span.after), through: sent },
        ack_within: Duration::from_millis(batch.span.map_or(0, |span| span.ack_within_ms).into()),
        oldest: batch.oldest,
        skipped: batch.skipped.iter().map(|(_, count)| count).sum(),
    }
}

/// The refresh of members in the state `want`, up to the batch `to`; `head` is the last offset that has left
/// in batches.
pub(super) fn refresh(room: &Room, want: RefreshWant, refresh: &Refresh, to: Seq, head: u64) -> RefreshFrame {
    let span = refresh.carried.as_ref().map(|carried| carried.span);
    let reaches = Refreshed {
        seq: to,
        sent: span.map_or(want.sent, |span| span.through),
        head,
        latest: refresh.latest_rest,
        ack_within: Duration::from_millis(span.map_or(0, |span| span.ack_within_ms).into()),
        skipped: refresh.missed.skipped.iter().map(|(_, count)| count).sum(),
    };
    let head = Head { room: room.name(), run: room.run(), seq: to };
    let history = pieces(head, &history::cut_history(refresh.history.clone(), 0).pieces, want.encoding);
    RefreshFrame { frame: frame::refresh(head, refresh, want.encoding), to: reaches, history }
}

/// The frames for the pieces of a history.
pub(super) fn pieces(head: Head<'_>, pieces: &[Vec<Past>], encoding: Encoding) -> Arc<[Bytes]> {
    pieces.iter().map(|piece| frame::history(head, piece, encoding)).collect()
}

/// The frame that carries reliable messages again, at the seq the members hold already.
pub(super) fn carry(room: &Room, want: CarryWant, seq: Seq, carried: &Carried) -> Bytes {
    frame::carry(Head { room: room.name(), run: room.run(), seq }, carried, want.encoding)
}
