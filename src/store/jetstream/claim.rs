//! A claim under way, and the image that grows from the log up to the claim.
//!
//! A claim expects nothing, so a busy home can't hold it off. An earlier append of anyone is in the log before
//! the claim, or refused for ever. A read up to the claim therefore sees everything that was acknowledged. A
//! replica that lags ends the read early: then the claim itself is missing, and the read goes on.

use std::time::{Duration, Instant};

use roomcast_core::cluster::{Slot, Term};

use super::image::{Image, RecordPlace};
use super::ops::{LogEntry, OpId};
use super::orders::LogNews;
use super::record::{Claimant, Content, LogRecord};

/// A claim under way.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) generation: u64,
    /// The term of the claim, once it is in the log.
    pub(super) claimed: Option<Term>,
    pub(super) replay: Replay,
    /// The operation under way. `None`: a pause.
    pub(super) op: Option<OpId>,
    /// The time that the next append of the claim has for its answer.
    pub(super) patience: Duration,
    /// The end of the patience with the operation, or of the pause.
    pub(super) until: Instant,
    /// Requests wait up to this moment. `None`: they fail at once.
    pub(super) requests_until: Option<Instant>,
}

/// The log as read so far.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) image: Image,
    /// The highest term read.
    pub(super) highest: Term,
    /// The sequence of the next entry.
    pub(super) next: u64,
    /// The sequence of this node's last claim; 0: none read.
    pub(super) own: u64,
    /// The term of the last claim of another node, or of its last renewal: claims expire before renewals.
    pub(super) behind: Term,
    /// Damaged entries.
    pub(super) damaged: u64,
    /// Some entry is of a later version of roomcast. Without it the rooms of the slot would be wrong.
    pub(super) is_newer: bool,
    /// Entries of a term below a claim before them.
    pub(super) out_of_term: u64,
    /// The term under which the rooms of this node know their streams. `None`: no rooms.
    former: Option<Term>,
    /// The last claim of another node behind `former`. The other node may have changed every stream, so the
    /// rooms here end.
    pub(super) fenced: Option<LogNews>,
}

impl Replay {
    /// Nothing read yet. `payload_bytes_max` bounds the payloads in memory.
    pub(super) fn new(payload_bytes_max: usize, former: Option<Term>) -> Self {
        Self {
            image: Image::new(payload_bytes_max),
            highest: Term::default(),
            next: 1,
            own: 0,
            behind: Term::default(),
            damaged: 0,
            is_newer: false,
            out_of_term: 0,
            former,
            fenced: None,
        }
    }

    /// Nothing read yet, of another log.
    pub(super) fn anew(&self, payload_bytes_max: usize) -> Self {
        Self::new(payload_bytes_max, self.former)
    }

    /// True if this node has rooms that know their streams under a former term.
    pub(super) fn has_rooms(&self) -> bool {
        self.former.is_some()
    }

    /// Takes the next entry of the log.
    pub(super) fn take(&mut self, slot: Slot, entry: &LogEntry, own: &Claimant) {
        if entry.sequence < self.next {
            return;
        }
        self.next = entry.sequence.saturating_add(1);
        let Some(record) = LogRecord::parse(slot, &entry.entry) else {
            self.is_newer |= LogRecord::is_newer(slot, &entry.entry);
            self.damaged += 1;
            return;
        };
        let term = record.term_at(entry.sequence);
        if record.content.claimant().is_some_and(|claimant| claimant != own) {
            self.behind = self.behind.max(term);
        }
        if let Content::Claim(claimant) = &record.content {
            if claimant == own {
                self.own = entry.sequence;
            // A claim below an earlier term is repeated, and has served nobody.
            } else if self.former.is_some() && term > self.highest {
                self.fenced = Some(LogNews::Fenced { slot, by: term, node: claimant.node.clone() });
            }
        // The fence refuses such entries. One that is here all the same was never acknowledged by a home that
        // knew of the claim before it.
        } else if term < self.highest {
            self.out_of_term += 1;
            return;
        }
        // By position and not by number: a log that has shrunk gives lower sequences again.
        if self.former == Some(term) {
            self.fenced = None;
        }
        self.highest = self.highest.max(term);
        self.image.take(record.content, RecordPlace { sequence: entry.sequence, bytes: entry.entry.len() });
    }
}
