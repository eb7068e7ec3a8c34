//! The writes of a slot on their way into the log: appends gathered into one record, or a removal alone.
//!
//! Appends are judged when they are gathered. None is under way then, so the image is the log's present state.
//! The writes of a room keep their order. Writes of other rooms may pass them: the rows of an append past an
//! hour take no record together with short ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use roomcast_core::limits::{
    LOG_CLAIM_AGE, LOG_RECORD_BYTES_MAX, LOG_RECORD_SLACK, LOG_SHORT_ROW, STORE_COMMIT_MESSAGES_MAX,
};
use roomcast_core::now::millis;
use roomcast_core::room::id::{Epoch, RoomName};

use super::image::Image;
use super::record::{Content, HEAD_BYTES, LogRow};
use crate::store::row::Marks;
use crate::store::time::StoreNow;
use crate::store::{Append, StoreAnswer, StoreError, StoreRequest};

/// A request that a slot holds.
#[derive(Debug)]
pub(super) struct HeldRequest {
    pub(super) desk: usize,
    pub(super) request: StoreRequest,
}

/// Writes that are answered together, after the last of their records.
#[derive(Debug, Default)]
pub(super) struct SlotCommit {
    /// The records still to be sent. More than one only for an append larger than a record.
    pub(super) records: VecDeque<Content>,
    /// The writes in order, and the reason of each refusal.
    pub(super) writes: Vec<(HeldRequest, Result<(), StoreError>)>,
    /// True: a part of the append is in the log.
    pub(super) is_begun: bool,
}

impl SlotCommit {
    /// True if a write of the room is among them.
    pub(super) fn is_of(&self, room: &RoomName) -> bool {
        self.writes.iter().any(|(held, _)| held.request.room() == room)
    }

    /// Gathers the next writes of a queue. Reads, and writes behind a write that does not fit, stay in the queue.
    pub(super) fn gather(
        queue: &mut VecDeque<HeldRequest>,
        image: &Image,
        bytes_max: u64,
        now: StoreNow,
    ) -> Self {
        let mut gathering = Gathering::new(image, bytes_max, now);
        let mut passed = BTreeSet::new();
        for held in std::mem::take(queue) {
            let room = held.request.room();
            let taken = if passed.contains(room) { Taking::Later } else { gathering.take(&held.request) };
            match taken {
                Taking::Taken(outcome) => gathering.commit.writes.push((held, outcome)),
                Taking::Later => {
                    passed.insert(room.clone());
                    queue.push_back(held);
                }
            }
        }
        gathering.end()
    }
}

/// The fate of a request in a gathering.
enum Taking {
    /// Part of the commit, or refused.
    Taken(Result<(), StoreError>),
    /// For a later commit.
    Later,
}

/// A commit as it grows.
struct Gathering<'a> {
    image: &'a Image,
    bytes_max: u64,
    now: StoreNow,
    commit: SlotCommit,
    rows: Vec<LogRow>,
    /// Bytes of `rows` in a record, at most.
    row_bytes: usize,
    /// Bytes of `rows` and their keys, as the slot's bound counts them.
    stored: u64,
    /// Epoch and head of rooms with rows in `rows`.
    heads: BTreeMap<RoomName, (Epoch, u64)>,
    /// Rooms and lives with a refused append. Later appends would leave a hole.
    refused: BTreeSet<(RoomName, u64)>,
    /// `Some` from the first row on: true if the rows live past `LOG_SHORT_ROW`.
    are_long: Option<bool>,
    /// True: nothing else fits.
    is_full: bool,
}

impl<'a> Gathering<'a> {
    fn new(image: &'a Image, bytes_max: u64, now: StoreNow) -> Self {
        Self {
            image,
            bytes_max,
            now,
            commit: SlotCommit::default(),
            rows: Vec::new(),
            row_bytes: 0,
            stored: 0,
            heads: BTreeMap::new(),
            refused: BTreeSet::new(),
            are_long: None,
            is_full: false,
        }
    }

    fn take(&mut self, request: &StoreRequest) -> Taking {
        match request {
            StoreRequest::Append(append) if !self.is_full => self.append(append),
            StoreRequest::Forget { room, .. } if self.commit.writes.is_empty() => {
                self.is_full = true;
                // Without a stream nothing is written, and the answer says so.
                let record = self.image.head(room).map(|_| Content::Forget(room.clone()));
                self.commit.records.extend(record);
                Taking::Taken(Ok(()))
            }
            _ => Taking::Later,
        }
    }

    fn append(&mut self, append: &Append) -> Taking {
        let life = (append.room.clone(), append.life);
        if self.refused.contains(&life) {
            return Taking::Taken(Err(StoreError::Moved));
        }
        let found = self.heads.get(&append.room).copied().or_else(|| self.image.head(&append.room));
        // A room that was alive for days without a message is forgotten here. The room itself knows its head.
        let (epoch, head) = found.unwrap_or((append.epoch, append.durable));
        let stored = append.stored_bytes();
        let error = if epoch != append.epoch || !append.follows(head) {
            StoreError::Moved
        } else if self.image.bytes() + self.stored + stored > self.bytes_max {
            StoreError::Full
        } else {
            return self.push(append, stored);
        };
        self.refused.insert(life);
        Taking::Taken(Err(error))
    }

    fn push(&mut self, append: &Append, stored: u64) -> Taking {
        let accepted_ms = self.now.ms_of(append.accepted);
        let row = |message: &Arc<_>| LogRow {
            room: append.room.clone(),
            // The payload stays in the row: a record is read as a whole.
            marks: Marks { is_apart: false, ..Marks::of(append.epoch, accepted_ms, message) },
            message: Arc::clone(message),
        };
        let rows: Vec<_> = append.messages.iter().map(row).collect();
        let short_until = self.now.stamp.store_ms.saturating_add(millis(LOG_SHORT_ROW));
        let are_long = rows.iter().any(|row| ends_ms(row, self.image) > short_until);
        let bytes: usize = rows.iter().map(|row| LogRow::bytes(&row.room, &row.message)).sum();
        // The first append always fits: an append larger than a record would wait for ever.
        let fits = self.rows.is_empty()
            || (self.are_long == Some(are_long)
                && self.rows.len() + rows.len() <= STORE_COMMIT_MESSAGES_MAX
                && HEAD_BYTES + self.row_bytes + bytes <= LOG_RECORD_BYTES_MAX);
        if !fits {
            return Taking::Later;
        }
        self.are_long = Some(are_long);
        self.row_bytes += bytes;
        self.is_full = HEAD_BYTES + self.row_bytes > LOG_RECORD_BYTES_MAX;
        self.stored += stored;
        let head = append.messages.last().map_or(append.durable, |message| message.offset);
        self.heads.insert(append.room.clone(), (append.epoch, head));
        self.rows.extend(rows);
        Taking::Taken(Ok(()))
    }

    fn end(mut self) -> SlotCommit {
        let mut record = Vec::new();
        let mut bytes = HEAD_BYTES;
        for row in self.rows {
            let more = LogRow::bytes(&row.room, &row.message);
            if bytes + more > LOG_RECORD_BYTES_MAX {
                self.commit.records.push_back(Content::Rows(std::mem::take(&mut record)));
                bytes = HEAD_BYTES;
            }
            bytes += more;
            record.push(row);
        }
        if !record.is_empty() {
            self.commit.records.push_back(Content::Rows(record));
        }
        self.commit
    }
}

/// The answer to a write that is in the log. `existed`: the log had a stream of the room before.
pub(super) fn stored(request: StoreRequest, existed: bool) -> StoreAnswer {
    match request {
        StoreRequest::Append(Append { room, life, durable, messages, .. }) => {
            let through = messages.last().map_or(durable, |message| message.offset);
            StoreAnswer::Durable { room, life, through }
        }
        StoreRequest::Forget { room, life } => StoreAnswer::Forgotten { room, life, existed },
        StoreRequest::Load { .. } | StoreRequest::Page { .. } => unreachable!("a commit has writes"),
    }
}

/// Store time up to which the log has to keep a row.
fn ends_ms(row: &LogRow, image: &Image) -> u64 {
    let own = row.marks.delete_at_ms(&row.message);
    // A log can't mark the recalled row, so the recall has to outlive it.
    let recalled = image.delete_at_ms(&row.room, row.message.recall);
    own.max(recalled.unwrap_or(0))
}

/// The time after which the log may remove a record, in whole seconds.
pub(super) fn life_of(content: &Content, image: &Image, now: StoreNow) -> Duration {
    let ends_ms = match content {
        Content::Rows(rows) => rows.iter().map(|row| ends_ms(row, image)).max(),
        Content::Heads(heads) => heads.iter().map(|head| head.forget_ms).max(),
        Content::Claim(_) | Content::Renewal(_) | Content::Forget(_) => return LOG_CLAIM_AGE,
    };
    let left = Duration::from_millis(ends_ms.unwrap_or(0).saturating_sub(now.stamp.store_ms));
    let life = left + LOG_RECORD_SLACK;
    Duration::from_secs(life.as_secs() + u64::from(life.subsec_nanos() > 0))
}
