//! The branches of a shard: the stand-ins of homes on other nodes. To the segments of its node a branch is the
//! home of the room, and to the home the branch is one place.
//!
//! [`Branch`] decides; this module carries frames and words between the branch, its segments and its home.

mod heat;
mod pace;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use self::heat::BranchHeats;
use self::pace::JoinPace;
use super::directory::Scatter;
use super::lane::{Control, Delivery, HomeLanes, HomeSaid, JoinRefusal, JoinRefused, LaneSent, Welcome};
use super::ways::{NodeWord, ToNode};
use super::{Plan, Table, table};
use roomcast_core::cluster::{
    Branch, BranchSaid, HandedIn, HandedOut, JoinKey, NodeKey, SlotHome, Welcoming,
};
use roomcast_core::fanout::segment::{Level, StreamPlace};
use roomcast_core::limits::NO_HOME_RETRY;
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run};
use roomcast_core::room::{Departure, SegmentSaid};

/// The branches of a shard.
#[derive(Debug)]
pub(super) struct Branches {
    rooms: Table<RoomName, Branch>,
    /// Rooms with joins that wait for an answer, or for their turn.
    waiting: BTreeSet<RoomName>,
    pace: JoinPace,
    heats: BranchHeats,
    /// The next look at these joins. `None` while there are none.
    look_at: Option<Instant>,
    /// Words to other nodes.
    words: VecDeque<ToNode>,
    /// The last ticket of all branches that were dropped.
    ticket: u32,
    /// Joins for the homes of this shard, with the shards of their segments.
    own: VecDeque<(usize, Control)>,
    /// Stale and wrong words, of segments and of homes.
    pub(super) stale: u64,
    /// Too much waits for the way to other nodes: newcomers are refused.
    pub(super) is_overloaded: bool,
}

impl Branches {
    /// No branches.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            rooms: table(plan.home_key),
            waiting: BTreeSet::new(),
            pace: JoinPace::default(),
            heats: BranchHeats::new(plan.heat, Arc::clone(&plan.hot_rooms)),
            look_at: None,
            words: VecDeque::new(),
            ticket: 0,
            own: VecDeque::new(),
            stale: 0,
            is_overloaded: false,
        }
    }

    /// Takes the words of a segment on `shard` whose room has its home on another node, or nowhere at present.
    pub(super) fn take_control(
        &mut self,
        shard: usize,
        control: Control,
        home: SlotHome,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let Control { room, run, said } = control;
        if let SegmentSaid::Join(join) = &said {
            if self.is_overloaded && !join.moved {
                let key = JoinKey { shard: join.shard, connection: join.connection, join: join.join };
                return refuse(&room, key, JoinRefusal::Overloaded, lanes);
            }
            if self.look_at.is_none() {
                self.look_at = Some(now.instant + NO_HOME_RETRY);
            }
        } else if !self.rooms.contains_key(&room) {
            // The words are about a life of the room that has ended.
            return;
        }
        let branch = self.rooms.entry(room.clone()).or_insert_with(|| Branch::new(self.ticket));
        // A room that is still here tells the directory by itself.
        let is_fuel = matches!(said, SegmentSaid::Left(_)) && !branch.stands_in();
        branch.hear(shard, run, said, home, now.instant);
        if is_fuel {
            self.heats.feed(&room, branch.by_shard(), now.instant);
        }
        self.settle(&room, lanes, now);
    }

    /// Takes the words of a home on another node.
    pub(super) fn take_delivery(
        &mut self,
        node: NodeKey,
        delivery: Delivery,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let Delivery { room, run, said } = delivery;
        // Members may have gone: the home is to count them off, to await no batch, and to have the answer to its pause.
        let branch = match &said {
            HomeSaid::Welcome(_) | HomeSaid::Level(_) | HomeSaid::Pause { .. } | HomeSaid::Adopted { .. } => {
                self.rooms.entry(room.clone()).or_insert_with(|| Branch::new(self.ticket))
            }
            _ => match self.rooms.get_mut(&room) {
                Some(branch) => branch,
                None => return self.stale += 1,
            },
        };
        let to = |shard: usize, said: HomeSaid| (shard, Delivery { room: room.clone(), run, said });
        let all = |shards: Vec<usize>, said: &dyn Fn() -> HomeSaid| -> Vec<(usize, Delivery)> {
            shards.into_iter().map(|shard| to(shard, said())).collect()
        };
        let forwards: Vec<(usize, Delivery)> = match said {
            HomeSaid::Welcome(welcome) => {
                let known = known_welcomes(branch, node, run, *welcome);
                self.heats.feed(&room, branch.by_shard(), now.instant);
                known
                    .into_iter()
                    .map(|welcome| to(welcome.shard.into(), HomeSaid::Welcome(Box::new(welcome))))
                    .collect()
            }
            HomeSaid::Refused(refused) => {
                let JoinRefused { shard, connection, join, code } = refused;
                let join =
                    branch.refused(node, JoinKey { shard, connection, join }, code == JoinRefusal::NotHome);
                let known = |join: JoinKey| JoinRefused { join: join.join, ..refused };
                let refused = join.map(|join| to(usize::from(shard), HomeSaid::Refused(known(join))));
                refused.into_iter().collect()
            }
            HomeSaid::Level(level) => {
                self.take_level(node, &room, run, &level, lanes);
                return self.settle(&room, lanes, now);
            }
            HomeSaid::Refresh { want, frame } => {
                let shards = branch.refreshed(node, run, &want);
                let answer = |shard| to(shard, HomeSaid::Refresh { want, frame: frame.clone() });
                shards.into_iter().map(answer).collect()
            }
            HomeSaid::Carry { want, seq, frame, floor } => {
                let shards = branch.carried(node, run, &want);
                let answer = |shard| to(shard, HomeSaid::Carry { want, seq, frame: frame.clone(), floor });
                shards.into_iter().map(answer).collect()
            }
            HomeSaid::StreamChanged => all(branch.to_all(node, run), &|| HomeSaid::StreamChanged),
            HomeSaid::Gap { seq } => all(branch.to_all(node, run), &|| HomeSaid::Gap { seq }),
            HomeSaid::Closed => all(branch.closed(node, run), &|| HomeSaid::Closed),
            said => {
                hear_move(branch, node, run, &said, now.instant);
                if branch.is_paused() {
                    self.look_at.get_or_insert(now.instant + NO_HOME_RETRY);
                }
                Vec::new()
            }
        };
        // First the words that make room for these: a segment knows one life of the room at a time.
        self.settle(&room, lanes, now);
        for (shard, delivery) in forwards {
            lanes.send(shard, delivery);
        }
    }

    /// The link to a node begins anew: the members of rooms with their home there join again.
    pub(super) fn reset(
        &mut self,
        node: NodeKey,
        home: impl Fn(&RoomName) -> SlotHome,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in rooms {
            if let Some(branch) = self.rooms.get_mut(&room) {
                branch.reset(node, home(&room));
            }
            self.settle(&room, lanes, now);
        }
    }

    /// Has branches follow their slots. `moved`: the home of a room whose slot stands anew.
    pub(super) fn follow(
        &mut self,
        moved: impl Fn(&RoomName) -> Option<SlotHome>,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let turning = self.rooms.keys().filter_map(|room| Some((room.clone(), moved(room)?)));
        let turning: Vec<(RoomName, SlotHome)> = turning.collect();
        for (room, home) in turning {
            if let Some(branch) = self.rooms.get_mut(&room) {
                branch.follow(home);
                if branch.members() > 0 {
                    // The directory has forgotten a room that has had its home here.
                    self.heats.forget(&room);
                    self.heats.feed(&room, branch.by_shard(), now.instant);
                }
            }
            self.settle(&room, lanes, now);
        }
    }

    /// Stands in for a room of this node that is handed over.
    pub(super) fn stand_in(&mut self, room: RoomName, out: HandedOut, now: Now) {
        if let Some(former) = self.rooms.get(&room) {
            self.ticket = self.ticket.max(former.ticket());
        }
        self.look_at.get_or_insert(now.instant + NO_HOME_RETRY);
        self.waiting.insert(room.clone());
        self.rooms.insert(room, Branch::standing_in(self.ticket, out, now.instant));
    }

    /// A room for which a branch stands in has gone another way.
    pub(super) fn part(&mut self, room: &RoomName, run: Run, lanes: &mut HomeLanes, now: Now) {
        if let Some(branch) = self.rooms.get_mut(room) {
            branch.parted(run);
        }
        self.settle(room, lanes, now);
    }

    /// Takes the branch of a room out, for the home that this node is from now on. Without a branch that was handed
    /// over whole the result is empty, and the branch follows its slot.
    pub(super) fn hand_in(&mut self, room: &RoomName, run: Run) -> HandedIn {
        let Some(branch) = self.rooms.get_mut(room) else { return HandedIn::default() };
        let Some(here) = branch.hand_in(run) else { return HandedIn::default() };
        self.ticket = self.ticket.max(branch.ticket());
        self.rooms.remove(room);
        self.waiting.remove(room);
        self.heats.forget(room);
        self.pace.note(room, None);
        here
    }

    /// The next word to another node.
    pub(super) fn poll_word(&mut self) -> Option<ToNode> {
        self.words.pop_front()
    }

    /// The next word about the placement of a room for the directory.
    pub(super) fn poll_scatter(&mut self) -> Option<Scatter> {
        self.heats.poll_scatter()
    }

    /// The next join for the homes of this shard, with the shard of its segment.
    pub(super) fn poll_own(&mut self) -> Option<(usize, Control)> {
        self.own.pop_front()
    }

    /// The moment of the next [`Branches::due`].
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Does what is due: refuses joins that have waited too long for a home, and asks again for the others.
    pub(super) fn due(&mut self, home: impl Fn(&RoomName) -> SlotHome, lanes: &mut HomeLanes, now: Now) {
        if self.look_at.is_none_or(|at| at > now.instant) {
            return;
        }
        let rooms: Vec<RoomName> = self.waiting.iter().cloned().collect();
        for room in rooms {
            if let Some(branch) = self.rooms.get_mut(&room) {
                branch.due(home(&room), now.instant);
            }
            self.settle(&room, lanes, now);
        }
        self.look_at = (!self.waiting.is_empty()).then(|| now.instant + NO_HOME_RETRY);
    }

    fn take_level(
        &mut self,
        node: NodeKey,
        room: &RoomName,
        run: Run,
        level: &Arc<Level>,
        lanes: &mut HomeLanes,
    ) {
        let Some(branch) = self.rooms.get_mut(room) else { return };
        for shard in branch.level(node, run, level.seq) {
            let said = HomeSaid::Level(Arc::clone(level));
            if lanes.send(shard, Delivery { room: room.clone(), run, said }) == LaneSent::Lapsed {
                branch.lapsed(shard, level.seq);
            }
        }
    }

    /// Sends on the words of a branch, drops a branch without a use, and sends joins whose turn has come.
    fn settle(&mut self, room: &RoomName, lanes: &mut HomeLanes, now: Now) {
        self.send_words(room, lanes);
        while let Some(room) = self.pace.next() {
            if let Some(branch) = self.rooms.get_mut(&room) {
                branch.send_join(now.instant);
            }
            self.send_words(&room, lanes);
        }
    }

    fn send_words(&mut self, room: &RoomName, lanes: &mut HomeLanes) {
        let Some(branch) = self.rooms.get_mut(room) else { return };
        while let Some(said) = branch.poll_said() {
            let (shard, run, said) = match said {
                BranchSaid::ToHome { node, run, said } => {
                    let room = room.clone();
                    let word = match said {
                        SegmentSaid::Join(join) => NodeWord::Joins { room, joins: vec![join] },
                        said => NodeWord::ToHome(Control { room, run, said }),
                    };
                    self.words.push_back(ToNode { node, word });
                    continue;
                }
                BranchSaid::ToHere(join) => {
                    let said = SegmentSaid::Join(join);
                    let control = Control { room: room.clone(), run: None, said };
                    self.own.push_back((usize::from(join.shard), control));
                    continue;
                }
                BranchSaid::Refused(key) => {
                    refuse(room, key, JoinRefusal::NoHome, lanes);
                    continue;
                }
                BranchSaid::GaveBack(join) => {
                    (usize::from(join.shard), Run(0), HomeSaid::GaveBack(Box::new(join)))
                }
                BranchSaid::Moved { shard, run } => (shard, run, HomeSaid::Moved),
                BranchSaid::StreamChanged { shard, run } => (shard, run, HomeSaid::StreamChanged),
                BranchSaid::Gap { shard, run, seq } => (shard, run, HomeSaid::Gap { seq }),
            };
            lanes.send(shard, Delivery { room: room.clone(), run, said });
        }
        self.stale += branch.take_stale();
        if !branch.has_joins() && !branch.is_paused() {
            self.waiting.remove(room);
        } else if !self.waiting.contains(room) {
            self.waiting.insert(room.clone());
        }
        if branch.is_idle() {
            self.ticket = self.ticket.max(branch.ticket());
            self.rooms.remove(room);
            self.waiting.remove(room);
            self.heats.forget(room);
        }
        self.pace.note(room, self.rooms.get(room));
    }
}

/// The welcomes of a word for the members that the branch knows, each as its connection named the join.
fn known_welcomes(branch: &mut Branch, node: NodeKey, run: Run, welcome: Welcome) -> Vec<Welcome> {
    let known = |welcome: Welcome| {
        let JoinKey { join, .. } = branch.welcome(node, run, &welcoming(&welcome))?;
        Some(Welcome { join, ..welcome })
    };
    welcome.apart().into_iter().filter_map(known).collect()
}

/// Takes a word about the home of a room.
fn hear_move(branch: &mut Branch, node: NodeKey, run: Run, said: &HomeSaid, now: Instant) {
    match said {
        HomeSaid::Moved => branch.home_moved(node, run),
        HomeSaid::Pause { attempt } => branch.pause(node, run, *attempt, now),
        HomeSaid::Resumed => branch.resumed(node, run),
        HomeSaid::Adopted { seq } => branch.adopted(node, run, *seq),
        // No home says another word.
        _ => {}
    }
}

/// Refuses a join. The refusal knows no life of the room.
fn refuse(room: &RoomName, key: JoinKey, code: JoinRefusal, lanes: &mut HomeLanes) {
    let JoinKey { shard, connection, join } = key;
    let said = HomeSaid::Refused(JoinRefused { shard, connection, join, code });
    lanes.send(usize::from(shard), Delivery { room: room.clone(), run: Run(0), said });
}

fn welcoming(welcome: &Welcome) -> Welcoming {
    let Welcome { shard, connection, join, encoding, epoch, place, .. } = *welcome;
    let StreamPlace { acked, counts_from, device, .. } = place;
    Welcoming {
        key: JoinKey { shard, connection, join },
        epoch,
        encoding,
        departure: Departure { encoding, epoch, acked, counts_from, device },
    }
}
