//! Welcomes: the answers to joins. The joiners of a storm share one encoded frame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{HomeRoom, Homes};
use crate::shard::lane::{HomeSaid, Welcome};
use roomcast_core::fanout::segment::StreamPlace;
use roomcast_core::limits::{COUNT_WIRE_BYTES, FIELDS_WIRE_BYTES, WELCOME_FIRST_BYTES_MAX};
use roomcast_core::now::{Now, millis};
use roomcast_core::room::history;
use roomcast_core::room::id::{Encoding, Epoch, Seq};
use roomcast_core::room::{LatestPlace, Reach, Snapshot, Welcomed};
use roomcast_core::wire::frame::{self, Greeting, Head};

/// Time for which an encoded welcome may be handed to further joiners while no batch is cut. Its history ages
/// meanwhile.
const WELCOME_AGE_MAX: Duration = Duration::from_secs(1);

/// Welcomes a room keeps for further joiners; past that, the oldest go.
const WELCOMES_MAX: usize = 16;

/// The welcomes of a room's present seq, newest first.
#[derive(Debug, Default)]
pub(super) struct Welcomes(VecDeque<SharedWelcome>);

#[derive(Debug, Clone)]
struct SharedWelcome {
    like: WelcomeKey,
    encoded_at: Instant,
    /// The part of the reliable stream behind the welcome: from the last offset in it to the last offset of
    /// level members.
    opening: Option<Reach>,
    /// The place of the member among the latest values; `None`: the frame has all of them.
    latest: Option<LatestPlace>,
    frame: Bytes,
    /// Older history, to follow in pieces: the newest first.
    pieces: Arc<[Bytes]>,
}

/// Everything that tells two welcomes of a room apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WelcomeKey {
    seq: Seq,
    encoding: Encoding,
    history_after: Seq,
    resumed: bool,
    /// `None`: the stream is unknown.
    epoch: Option<Epoch>,
    after: Option<u64>,
    reset: Option<&'static str>,
    /// Reliable messages that had died: a welcome must not bring a message that has expired since.
    deaths: u64,
}

impl WelcomeKey {
    /// True if the welcome is for devices that come without a cursor and without a seq.
    fn is_first(&self) -> bool {
        !self.resumed && self.history_after == Seq(0) && self.after.unwrap_or(0) == 0 && self.reset.is_none()
    }
}

impl Welcomes {
    /// Lets go of welcomes of an earlier seq, and of those whose history is too old.
    pub(super) fn forget_old(&mut self, seq: Seq, now: Instant) {
        self.0.retain(|shared| {
            shared.like.seq == seq && now.saturating_duration_since(shared.encoded_at) < WELCOME_AGE_MAX
        });
    }

    fn find(&self, like: &WelcomeKey) -> Option<&SharedWelcome> {
        self.0.iter().find(|shared| shared.like == *like)
    }

    fn keep(&mut self, shared: SharedWelcome) {
        if self.0.len() == WELCOMES_MAX {
            // Devices that come back bring any number of different cursors. The welcome for first-time
            // devices is the one that a storm shares, so cursors never push it out.
            let oldest = self.0.iter().rposition(|kept| !kept.like.is_first());
            self.0.remove(oldest.unwrap_or(WELCOMES_MAX - 1));
        }
        self.0.push_front(shared);
    }
}

impl HomeRoom {
    /// The welcome for a join like this one, shared or encoded anew; `encoded` counts the latter.
    fn welcome(&mut self, like: WelcomeKey, heartbeat_ms: u32, encoded: &mut u64, now: Now) -> SharedWelcome {
        self.welcomes.forget_old(self.room.seq(), now.instant);
        if let Some(shared) = self.welcomes.find(&like) {
            return shared.clone();
        }
        *encoded += 1;
        let WelcomeKey { seq, encoding, history_after, resumed, after, reset, .. } = like;
        let mut snapshot = self.room.snapshot(history_after, after, now);
        let first_bytes = WELCOME_FIRST_BYTES_MAX.saturating_sub(bytes_beside_history(&snapshot));
        let cut = history::cut_history(std::mem::take(&mut snapshot.history), first_bytes);
        snapshot.history = cut.first;
        snapshot.cut_short |= cut.left_out;
        let greeting = Greeting { heartbeat_ms, resumed: resumed && !snapshot.cut_short, reset };
        let head = Head { room: self.room.name(), run: self.room.run(), seq };
        let frame = frame::welcome(head, greeting, &snapshot, encoding);
        let pieces = super::frames::pieces(head, &cut.pieces, encoding);
        let opening = snapshot.stream.as_ref();
        let opening =
            opening.map(|opening| Reach { after: opening.carried.span.through, through: opening.offset });
        let shared = SharedWelcome {
            like,
            encoded_at: now.instant,
            opening,
            latest: snapshot.latest_rest,
            frame,
            pieces,
        };
        // No second joiner follows the first member of a small room: tens of thousands of those must cost
        // little.
        if self.room.members() > 1 {
            self.welcomes.keep(shared.clone());
        }
        shared
    }
}

/// Bytes of a welcome beside the history: an upper bound for usual names.
fn bytes_beside_history(snapshot: &Snapshot) -> usize {
    let reliable = snapshot.stream.iter().flat_map(|opening| &opening.carried.messages);
    let messages: usize = snapshot.latest.iter().chain(reliable).map(|message| message.wire_bytes).sum();
    let counters: usize =
        snapshot.counters.iter().map(|(name, _)| name.as_str().len() + COUNT_WIRE_BYTES).sum();
    FIELDS_WIRE_BYTES + messages + counters
}

impl Homes {
    /// Sends the answer to a join the room has taken.
    pub(super) fn send_welcome(&mut self, key: usize, welcomed: Welcomed, now: Now) {
        let Welcomed { shard, join, history_after, resumed, stands } = welcomed;
        let heartbeat_ms = u32::try_from(millis(self.plan.heartbeat)).unwrap_or(u32::MAX);
        let home = &mut self.rooms[key];
        let seq = home.room.seq();
        let epoch = home.room.epoch();
        let after = stands.map(|stands| stands.after);
        let reset = stands.and_then(|stands| stands.reset);
        let deaths = home.room.deaths();
        let encoding = join.encoding;
        let like = WelcomeKey { seq, encoding, history_after, resumed, epoch, after, reset, deaths };
        let encoded = &mut self.tally.welcomes_encoded;
        let SharedWelcome { opening, latest, frame, pieces, .. } =
            home.welcome(like, heartbeat_ms, encoded, now);
        let place = opening.zip(stands).map(|(opening, stands)| StreamPlace {
            sent: opening.after,
            head: opening.through,
            acked: stands.after,
            counts_from: stands.counts_from,
            device: stands.device,
            ack_within: home.room.ack_within(),
        });
        let welcome = Welcome {
            seq,
            shard: join.shard,
            connection: join.connection,
            join: join.join,
            encoding: join.encoding,
            epoch,
            place: place.unwrap_or(StreamPlace::UNKNOWN),
            latest,
            frame,
            pieces,
            also: Vec::new(),
        };
        self.deliver(key, shard, HomeSaid::Welcome(Box::new(welcome)));
    }
}
