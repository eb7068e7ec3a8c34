//! The pause of a branch while its home hands the room over.
//!
//! The home says `Pause` behind its last batch. From then on the branch keeps its words, and answers `Paused` behind
//! the earlier ones: the home knows the members exactly as the branch does. The pause ends in one of these ways:
//!
//! - The next home says `Adopted`: the branch is attached to it from now on, in the same run, and says its kept words.
//! - This node is the next home: the room takes over the segments of the branch ([`Branch::hand_in`]).
//! - The home goes on (`Resumed`), and hears the kept words.
//! - Anything else, or nothing within `BRANCH_PAUSED_AGE_MAX`: the members join again.
//!
//! The former home has a branch of its own members as well. This branch *stands in* for the room ([`HandedOut`]) from
//! the moment at which the room is said to its next home. While the room is still here, the words of the members wait
//! in the branch for whoever goes on with the room.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Branch, BranchSaid, BranchSegment, NO_SHARD};
use crate::cluster::{NodeKey, SlotHome};
use crate::limits::{BRANCH_PAUSED_AGE_MAX, BRANCH_PAUSED_WORDS_MAX};
use crate::room::id::{Epoch, Run, Seq};
use crate::room::{Census, Join, LocalSegment, SegmentSaid};

/// The words of a branch for the next home of its room.
#[derive(Debug)]
pub(super) struct Pause {
    since: Instant,
    words: Vec<KeptWord>,
    /// The room is still here, and may go on here.
    stands_in: bool,
}

/// A room of this node whose state was said to its next home.
#[derive(Debug)]
pub struct HandedOut {
    /// The next home.
    pub to: NodeKey,
    /// The life of the room.
    pub run: Run,
    /// The life of its reliable stream.
    pub epoch: Option<Epoch>,
    /// The newest batch, which all segments have taken.
    pub seq: Seq,
    /// The segments here: shard and members.
    pub segments: Vec<(usize, Census)>,
}

#[derive(Debug)]
struct KeptWord {
    /// The shard of the segment, or `NO_SHARD`.
    shard: usize,
    run: Option<Run>,
    said: SegmentSaid,
}

/// The parts of a branch whose node is the next home of the room.
#[derive(Debug, Default)]
pub struct HandedIn {
    /// The segments with members.
    pub segments: Vec<LocalSegment>,
    /// The newest batch that the segments were sent.
    pub seq: Seq,
    /// Words of segments for the home, in order, each with the shard of its segment.
    pub words: Vec<(usize, SegmentSaid)>,
    /// Joins without an answer.
    pub joins: Vec<Join>,
}

impl Branch {
    /// The branch of a room that this node hands over.
    #[must_use]
    pub fn standing_in(ticket: u32, room: HandedOut, now: Instant) -> Self {
        let HandedOut { to, run, epoch, seq, segments } = room;
        let segment = |(shard, census)| (shard, BranchSegment { census, ..BranchSegment::default() });
        Self {
            home: Some(to),
            run: Some(run),
            epoch,
            seq,
            segments: segments.into_iter().map(segment).collect(),
            pause: Some(Pause { since: now, words: Vec::new(), stands_in: true }),
            ..Self::new(ticket)
        }
    }

    /// True for the branch of a room that is still here.
    #[must_use]
    pub fn stands_in(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.stands_in)
    }

    /// The slot of the room stands anew. True: the room is still here, and the branch stands in for it.
    pub(super) fn stays_here(&mut self, home: SlotHome) -> bool {
        let Some(pause) = self.pause.as_mut().filter(|pause| pause.stands_in) else { return false };
        pause.stands_in = home.is_own();
        pause.stands_in
    }

    /// The room has gone another way than to its next home: the members join again.
    pub fn parted(&mut self, run: Run) {
        if self.is_awaited(run) {
            self.detach(false);
        }
    }

    /// True while the branch keeps its words for the next home.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// The home hands the room over, and waits for the answer to this attempt.
    pub fn pause(&mut self, node: NodeKey, run: Run, attempt: u64, now: Instant) {
        let is_heard = self.is_heard(node, run);
        // Words about another life change nothing at the home: it has heard all that matter.
        self.said.push_back(BranchSaid::ToHome {
            node,
            run: Some(run),
            said: SegmentSaid::Paused { attempt },
        });
        if is_heard {
            self.pause.get_or_insert(Pause { since: now, words: Vec::new(), stands_in: false });
        }
    }

    /// The home goes on.
    pub fn resumed(&mut self, node: NodeKey, run: Run) {
        if !self.is_heard(node, run) {
            return;
        }
        let words = self.pause.take().map_or_else(Vec::new, |pause| pause.words);
        self.said.extend(words.into_iter().map(|KeptWord { run, said, .. }| BranchSaid::ToHome {
            node,
            run,
            said,
        }));
        self.line_up();
    }

    /// The next home has the room, as of the batch `seq`.
    pub fn adopted(&mut self, node: NodeKey, run: Run, seq: Seq) {
        if !self.is_awaited(run) || seq < self.seq {
            // The home counts members that have gone another way.
            self.stale += 1;
            self.said.push_back(BranchSaid::ToHome { node, run: Some(run), said: SegmentSaid::Moved });
            return;
        }
        let words = self.pause.take().map_or_else(Vec::new, |pause| pause.words);
        self.handed_from = self.home.replace(node).filter(|former| *former != node);
        // The home takes no join of this node before.
        self.said.push_back(BranchSaid::ToHome {
            node,
            run: Some(run),
            said: SegmentSaid::Paused { attempt: 0 },
        });
        self.ask_all_again();
        if seq > self.seq {
            // Batches of the former home have lapsed on their way.
            self.seq = seq;
            let gap = |shard| BranchSaid::Gap { shard, run, seq };
            let gaps: Vec<BranchSaid> = self.shards().into_iter().map(gap).collect();
            self.said.extend(gaps);
        }
        for KeptWord { run, said, .. } in words.into_iter().filter(is_of_members) {
            self.said.push_back(BranchSaid::ToHome { node, run, said });
        }
        let refreshes = self.refreshes.keys().map(|want| SegmentSaid::Refresh(*want));
        let wants: Vec<_> =
            refreshes.chain(self.carries.keys().map(|want| SegmentSaid::Carry(*want))).collect();
        self.said.extend(wants.into_iter().map(|said| BranchSaid::ToHome { node, run: Some(run), said }));
        self.line_up();
    }

    /// This node has the room, in the life `run`. `None`: the branch is none of a room that was handed over whole, and
    /// its members join again.
    #[must_use]
    pub fn hand_in(&mut self, run: Run) -> Option<HandedIn> {
        // A segment whose members join again has said words that the room would take for those of members.
        if !self.is_awaited(run) || self.segments.values().any(|segment| segment.moving > 0) {
            return None;
        }
        let pause = self.pause.take()?;
        let of_here = |word: &KeptWord| word.shard != NO_SHARD && word.run == Some(run);
        let words = pause.words.into_iter().filter(is_of_members).filter(of_here);
        let mut words: Vec<_> = words.map(|word| (word.shard, word.said)).collect();
        for (want, shards) in std::mem::take(&mut self.refreshes) {
            words.extend(shards.into_iter().map(|shard| (shard, SegmentSaid::Refresh(want))));
        }
        for (want, shards) in std::mem::take(&mut self.carries) {
            words.extend(shards.into_iter().map(|shard| (shard, SegmentSaid::Carry(want))));
        }
        let mut census: BTreeMap<usize, Census> =
            self.segments.iter().map(|(shard, segment)| (*shard, segment.census)).collect();
        // Members that have left since the pause: the former home counts them, and their words come to this one.
        for (shard, said) in &words {
            if let SegmentSaid::Left(left) = said {
                census.entry(*shard).or_default().add(left.encoding);
            }
        }
        let queued = |shard: &usize| self.segments.get(shard).map_or(0, |segment| segment.untaken.len());
        let segment =
            |(shard, census): (usize, Census)| LocalSegment { shard, census, queued: queued(&shard) };
        Some(HandedIn {
            segments: census.into_iter().map(segment).collect(),
            seq: self.seq,
            words,
            joins: std::mem::take(&mut self.joins).into_values().map(|waiting| waiting.join).collect(),
        })
    }

    /// Has the members join again if no home has come in time.
    pub(super) fn end_long_pause(&mut self, now: Instant) {
        let awaited = self.pause.as_ref().filter(|pause| !pause.stands_in);
        let age = awaited.map(|pause| now.saturating_duration_since(pause.since));
        if age.is_some_and(|age| age >= BRANCH_PAUSED_AGE_MAX) {
            self.give_up_pause();
        }
    }

    /// True if the branch waits for the next home of this life of its room.
    pub(super) fn is_awaited(&self, run: Run) -> bool {
        self.pause.is_some() && self.run == Some(run)
    }

    /// Says a word to the home, or keeps it for the next one.
    pub(super) fn send_or_keep(&mut self, node: NodeKey, shard: usize, run: Option<Run>, said: SegmentSaid) {
        let Some(pause) = &mut self.pause else {
            return self.said.push_back(BranchSaid::ToHome { node, run, said });
        };
        // A room that goes on here may lose no departure. A member leaves once, so these have a bound of their own.
        let is_needed = pause.stands_in && matches!(said, SegmentSaid::Left(_));
        if is_needed || pause.words.len() < BRANCH_PAUSED_WORDS_MAX {
            return pause.words.push(KeptWord { shard, run, said });
        }
        if pause.stands_in {
            // More acknowledgements than anybody counts in that time: these are lost.
            self.stale += 1;
        } else {
            self.give_up_pause();
        }
    }

    /// Has the members join again. Whichever node is the home counts them off.
    fn give_up_pause(&mut self) {
        self.pause = None;
        self.detach(true);
        self.ask_all_again();
    }
}

/// True for a word that the next home is to hear. Batches of the former home are none of its own, and what the members
/// want is asked again.
fn is_of_members(word: &KeptWord) -> bool {
    !matches!(word.said, SegmentSaid::TakenThrough { .. } | SegmentSaid::Refresh(_) | SegmentSaid::Carry(_))
}
