//! Loads and pages of a slot, with their reads of the log.

use std::time::Instant;

use roomcast_core::cluster::Slot;
use roomcast_core::limits::{LOG_GET_BYTES_MAX, LOG_GET_RECORDS_MAX};

use super::commit::HeldRequest;
use super::image::{Fetched, Image, Wanted};
use super::ops::{LogEntry, OpId};
use super::record::{Content, LogRecord};
use crate::store::time::StoreNow;
use crate::store::{StoreAnswer, StoreRequest};

/// A load or a page.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) held: HeldRequest,
    fetched: Fetched,
    /// Records to be read.
    wanted: Wanted,
    /// Records that are being read.
    asked: Vec<u64>,
    /// The read under way, and the end of the patience with it.
    pub(super) op: Option<(OpId, Instant)>,
}

impl Fetch {
    pub(super) fn new(held: HeldRequest) -> Self {
        Self { held, fetched: Fetched::default(), wanted: Wanted::new(), asked: Vec::new(), op: None }
    }

    /// Begins anew, with another image.
    pub(super) fn reset(&mut self) {
        self.fetched = Fetched::default();
        self.wanted.clear();
        self.asked.clear();
        self.op = None;
    }

    /// The answer, if no record has to be read first.
    pub(super) fn answer(&mut self, image: &Image, now: StoreNow) -> Option<StoreAnswer> {
        if !self.wanted.is_empty() {
            return None;
        }
        let answer = match &self.held.request {
            StoreRequest::Load { room, life, whole_after } => image
                .load(room, *whole_after, &self.fetched, now)
                .map(|stream| StoreAnswer::Loaded { room: room.clone(), life: *life, stream }),
            StoreRequest::Page { room, life, after, bytes_max } => image
                .page(room, *after, *bytes_max, &self.fetched)
                .map(|page| StoreAnswer::Paged { room: room.clone(), life: *life, after: *after, page }),
            StoreRequest::Append(_) | StoreRequest::Forget { .. } => unreachable!("a fetch is a read"),
        };
        answer.map_err(|wanted| self.wanted = wanted).ok()
    }

    /// The sequences of the next read.
    pub(super) fn next_sequences(&mut self) -> Vec<u64> {
        let mut bytes = 0;
        while self.asked.len() < LOG_GET_RECORDS_MAX {
            let Some(next) = self.wanted.first_entry() else { break };
            bytes += next.get();
            if bytes > LOG_GET_BYTES_MAX && !self.asked.is_empty() {
                break;
            }
            self.asked.push(*next.key());
            next.remove();
        }
        self.asked.clone()
    }

    /// Takes records that were read.
    pub(super) fn take(&mut self, slot: Slot, entries: &[LogEntry]) {
        for entry in entries.iter().filter(|entry| self.asked.contains(&entry.sequence)) {
            let record = LogRecord::parse(slot, &entry.entry);
            let Some(LogRecord { content: Content::Rows(rows), .. }) = record else { continue };
            let of_room = rows.into_iter().filter(|row| row.room == *self.held.request.room());
            let keyed = of_room.map(|row| ((entry.sequence, row.message.offset), row.message));
            self.fetched.messages.extend(keyed);
        }
    }

    /// Ends the read under way. Returns the number of records that gave no message.
    pub(super) fn end_read(&mut self) -> u64 {
        self.op = None;
        let mut lost = 0;
        for sequence in self.asked.drain(..) {
            let mut found = self.fetched.messages.range((sequence, 0)..=(sequence, u64::MAX));
            lost += u64::from(found.next().is_none());
            self.fetched.read.insert(sequence);
        }
        lost
    }
}
