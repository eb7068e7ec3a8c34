//! The crowd of a link: words that come by the thousand when devices come or go, and gather for a moment. Joins of a
//! room share a word, and so do members with the same welcome: a storm costs a home little more than its members do
//! on one node.

use std::time::Instant;

use crate::shard::lane::{Delivery, HomeSaid};
use crate::shard::ways::NodeWord;
use roomcast_core::limits::{LINK_CROWD_LOOKS_MAX, LINK_CROWD_MAX, LINK_CROWD_PAUSE};
use roomcast_core::room::SegmentSaid;

/// Words that gather for a link. Those of a room keep their order.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    words: Vec<NodeWord>,
    /// Joins, members of welcomes and other words. At `LINK_CROWD_MAX` the crowd leaves with the turn.
    count: usize,
    /// The end of the pause behind the last crowd. `None`: there was none yet.
    pause_ends: Option<Instant>,
}

impl Crowd {
    /// True for words that may wait for others.
    pub(super) fn takes(word: &NodeWord) -> bool {
        match word {
            NodeWord::Joins { .. } => true,
            NodeWord::ToHome(control) => matches!(
                control.said,
                SegmentSaid::Left(_) | SegmentSaid::Acked { .. } | SegmentSaid::AckedEarly { .. }
            ),
            NodeWord::ToBranch(Delivery { said, .. }) => {
                matches!(said, HomeSaid::Welcome(_) | HomeSaid::Refused(_))
            }
            NodeWord::ResetTaken | NodeWord::Room { .. } | NodeWord::Keep(_) | NodeWord::Packed { .. } => {
                false
            }
        }
    }

    /// Takes a word.
    pub(super) fn push(&mut self, word: NodeWord) {
        self.count += word.count();
        let mut newest = self.words.iter_mut().rev().take(LINK_CROWD_LOOKS_MAX);
        // The last word of the room: any other one would be overtaken.
        let last = newest.find(|last| last.room() == word.room());
        let apart = if let Some(last) = last { last.absorb(word) } else { Some(word) };
        self.words.extend(apart);
    }

    /// True if the crowd leaves with this turn. The first word behind a pause waits for nobody.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_over = self.pause_ends.is_none_or(|at| at <= now);
        !self.words.is_empty() && (is_over || self.count >= LINK_CROWD_MAX)
    }

    /// The words, which leave now.
    pub(super) fn leave(&mut self, now: Instant) -> Vec<NodeWord> {
        if !self.words.is_empty() {
            self.pause_ends = Some(now + LINK_CROWD_PAUSE);
        }
        self.count = 0;
        std::mem::take(&mut self.words)
    }

    /// Drops all words: the link begins anew.
    pub(super) fn forget(&mut self) {
        self.count = 0;
        self.words.clear();
    }

    /// The moment at which the crowd leaves.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        self.pause_ends.filter(|_| !self.words.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::clock;
    use crate::shard::lane::{Control, Welcome};
    use roomcast_core::fanout::segment::StreamPlace;
    use roomcast_core::limits::NODE_WORD_JOINS_MAX;
    use roomcast_core::room::id::{Encoding, RoomName, Run, Seq};
    use roomcast_core::room::{Departure, Join};

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn join(name: &str, connection: u64) -> NodeWord {
        let encoding = Encoding::Json;
        let join = Join {
            shard: 0,
            connection,
            join: 1,
            encoding,
            seen: None,
            cursor: None,
            device: 0,
            moved: false,
        };
        NodeWord::Joins { room: room(name), joins: vec![join] }
    }

    fn left(name: &str) -> NodeWord {
        let encoding = Encoding::Json;
        let left = Departure { encoding, epoch: None, acked: 0, counts_from: 0, device: 0 };
        NodeWord::ToHome(Control { room: room(name), run: Some(Run(1)), said: SegmentSaid::Left(left) })
    }

    fn welcome(connection: u64, seq: u64, frame: &Bytes, pieces: &Arc<[Bytes]>) -> NodeWord {
        let welcome = Welcome {
            seq: Seq(seq),
            shard: 3,
            connection,
            join: 9,
            encoding: Encoding::Json,
            epoch: None,
            place: StreamPlace { device: connection, counts_from: 5, ..StreamPlace::UNKNOWN },
            latest: None,
            frame: frame.clone(),
            pieces: Arc::clone(pieces),
            also: Vec::new(),
        };
        let said = HomeSaid::Welcome(Box::new(welcome));
        NodeWord::ToBranch(Delivery { room: room("r1"), run: Run(1), said })
    }

    /// The words of a crowd: joins and welcomes by their connections.
    fn words(crowd: &mut Crowd) -> Vec<String> {
        let shown = |word: NodeWord| match word {
            NodeWord::Joins { room, joins } => {
                let connections: Vec<u64> = joins.iter().map(|join| join.connection).collect();
                format!("{room} {connections:?}")
            }
            NodeWord::ToBranch(Delivery { said: HomeSaid::Welcome(welcome), .. }) => {
                let members = welcome.apart();
                assert!(members.iter().all(|of| (of.shard, of.join, of.place.counts_from) == (3, 9, 5)));
                assert!(members.iter().all(|of| of.place.device == of.connection && of.also.is_empty()));
                let connections: Vec<u64> = members.iter().map(|of| of.connection).collect();
                format!("welcome {connections:?}")
            }
            word => format!("{} left", word.room().unwrap()),
        };
        crowd.leave(clock::now().instant).into_iter().map(shown).collect()
    }

    #[test]
    fn joins_of_a_room_share_a_word_and_overtake_no_other_word_of_the_room() {
        let mut crowd = Crowd::default();
        for word in [join("a", 1), join("b", 2), join("a", 3), left("a"), join("a", 4), join("b", 5)] {
            assert!(Crowd::takes(&word));
            crowd.push(word);
        }
        assert_eq!(words(&mut crowd), ["a [1, 3]", "b [2, 5]", "a left", "a [4]"]);
    }

    #[test]
    fn a_word_has_so_many_joins_and_the_next_one_has_the_rest() {
        let mut crowd = Crowd::default();
        (0..=NODE_WORD_JOINS_MAX as u64).for_each(|connection| crowd.push(join("a", connection)));
        let words = words(&mut crowd);
        assert_eq!((words.len(), words[1].as_str()), (2, "a [256]"));
    }

    #[test]
    fn members_share_a_welcome_that_has_the_same_bytes() {
        let frames = [Bytes::from(vec![1; 100]), Bytes::from(vec![1; 100])];
        let pieces: [Arc<[Bytes]>; 2] = [Arc::new([]), Arc::new([])];
        let mut crowd = Crowd::default();
        for connection in 1..=3 {
            crowd.push(welcome(connection, 7, &frames[0], &pieces[0]));
        }
        crowd.push(welcome(4, 8, &frames[0], &pieces[0]));
        crowd.push(welcome(5, 8, &frames[1], &pieces[0]));
        crowd.push(welcome(6, 8, &frames[1], &pieces[1]));
        let apart = ["welcome [1, 2, 3]", "welcome [4]", "welcome [5]", "welcome [6]"];
        assert_eq!(words(&mut crowd), apart);
        for connection in 0..=NODE_WORD_JOINS_MAX as u64 {
            crowd.push(welcome(connection, 7, &frames[0], &pieces[0]));
        }
        assert_eq!(words(&mut crowd).len(), 2, "a word has so many members");
    }

    #[test]
    fn the_first_word_leaves_at_once_and_then_a_crowd_for_each_pause_or_a_large_one() {
        let now = clock::now().instant;
        let mut crowd = Crowd::default();
        assert!(!crowd.is_due(now) && crowd.poll_deadline().is_none());
        crowd.push(join("a", 1));
        assert!(crowd.is_due(now));
        assert_eq!(crowd.leave(now).len(), 1);
        crowd.push(left("a"));
        let due = now + LINK_CROWD_PAUSE;
        assert_eq!((crowd.is_due(now), crowd.is_due(due), crowd.poll_deadline()), (false, true, Some(due)));
        (2..=LINK_CROWD_MAX as u64).for_each(|connection| crowd.push(join("a", connection)));
        assert!(crowd.is_due(now), "more would save nothing");
        crowd.forget();
        assert!(!crowd.is_due(due) && crowd.poll_deadline().is_none(), "a reset loses the words");
    }
}
