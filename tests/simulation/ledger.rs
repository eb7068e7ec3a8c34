//! The publishers' knowledge: each offered message, its verdict, and the facts that must follow.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast::store::Store;
use roomcast::store::time::{Stamp, StoreNow};
use roomcast_core::room::message::{Published, ShedReason, Unavailable, Verdict};

use crate::device::Told;
use crate::disk::{Disk, Written};
use crate::keeps::at;
use crate::oracle::Record;
use crate::world::CLOSING;

/// The age up to which an id counts.
const ID_AGE: Duration = Duration::from_secs(300);

/// One message of a request.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) class: &'static str,
    pub(crate) type_name: String,
    pub(crate) count: u64,
    /// The payload, unique to the message and its retries.
    pub(crate) payload: String,
    pub(crate) id: Option<String>,
    pub(crate) ttl_ms: u64,
}

/// A request and its outcome.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) room: String,
    pub(crate) marks: Vec<Mark>,
    /// The numbers of the sending and of the answer in the world's order. `None`: no answer yet, or lost in a
    /// crash.
    pub(crate) sent: u64,
    pub(crate) answered: Option<u64>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// The possible outcomes of a reliable message over all its tries.
#[derive(Debug, Default, Clone)]
struct Fate {
    /// Tries that may have been stored.
    open: u64,
    /// Room, epoch, offset.
    durable: Option<(String, u64, u64)>,
    /// True: a verdict said that the message was not stored, or perhaps not.
    was_unavailable: bool,
}

/// Everything published.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Ticket -> request, for this life of the node.
    pub(crate) requests: BTreeMap<u64, Request>,
    /// Payload -> fate, over all lives of the node.
    fates: BTreeMap<String, Fate>,
    moment: u64,
}

impl Ledger {
    pub(crate) fn offer(&mut self, ticket: u64, room: &str, marks: Vec<Mark>) {
        self.moment += 1;
        for mark in marks.iter().filter(|mark| mark.class == "reliable") {
            self.fates.entry(mark.payload.clone()).or_default().open += 1;
        }
        let request =
            Request { room: room.to_owned(), marks, sent: self.moment, answered: None, verdicts: Vec::new() };
        self.requests.insert(ticket, request);
    }

    /// Takes in the answer to a publish, and checks its verdicts.
    pub(crate) fn answer(&mut self, ticket: u64, published: Published, disk: &mut Disk) {
        self.moment += 1;
        let request = self.requests.get_mut(&ticket).expect("an answer to a publish");
        assert!(request.answered.replace(self.moment).is_none(), "each publish is answered once");
        let Published::Taken(verdicts) = published else {
            for mark in request.marks.iter().filter(|mark| mark.class == "reliable") {
                self.fates.get_mut(&mark.payload).expect("it was offered").open -= 1;
            }
            return;
        };
        assert_eq!(verdicts.len(), request.marks.len(), "one verdict per message");
        let room = request.room.clone();
        for (mark, verdict) in request.marks.iter().zip(&verdicts) {
            if mark.class != "reliable" {
                // A message behind a coupon is shed if its room is closed before the coupon is stored.
                let was_closed = room == CLOSING && *verdict == Verdict::Shed(ShedReason::RoomClosed);
                let is_taken = matches!(verdict, Verdict::Accepted | Verdict::Merged);
                assert!(is_taken || was_closed, "{mark:?}: {verdict:?}");
                continue;
            }
            let fate = self.fates.get_mut(&mark.payload).expect("it was offered");
            match verdict {
                Verdict::Durable { offset } | Verdict::Duplicate { offset: Some(offset) } => {
                    fate.durable = Some(stands(&room, mark, *offset, disk));
                }
                Verdict::Unavailable(Unavailable::StoreFailing) => fate.was_unavailable = true,
                Verdict::Unavailable(_) => fate.open -= 1,
                other => panic!("{mark:?}: {other:?}"),
            }
        }
        request.verdicts = verdicts;
    }

    /// True if a publish or an answer came after this request was sent.
    pub(crate) fn has_waited(&self, ticket: u64) -> bool {
        self.moment > self.requests[&ticket].sent
    }

    /// The number of publishes without an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.values().filter(|request| request.answered.is_none()).count()
    }

    /// Checks the store: each stored message was published once and not refused, and each durable message is
    /// stored. Returns the number of messages reported unavailable and stored all the same.
    pub(crate) fn check_disk(&self, disk: &mut Disk) -> u64 {
        let mut turned_out = 0;
        for ((room, epoch), written) in &disk.written {
            let mut where_at: BTreeMap<&str, u64> = BTreeMap::new();
            for stored in written.iter().filter(|stored| stored.message.recall == 0) {
                let payload = std::str::from_utf8(stored.message.payload.bytes()).unwrap();
                let fate = self.fates.get(payload).unwrap_or_else(|| panic!("nobody published {payload}"));
                assert!(fate.open > 0, "{payload} was refused and is stored");
                let here = fate.durable.as_ref().is_none_or(|durable| durable.0 == *room);
                assert!(here, "{payload} is in {room}: {fate:?}");
                turned_out += u64::from(fate.was_unavailable && fate.durable.is_none());
                if let Some(first) = where_at.insert(payload, stored.message.offset) {
                    let first = at(written, first);
                    let is_old = disk.may_be_older_than(first, stored.accepted, ID_AGE);
                    assert!(stored.message.id.is_some() && is_old, "{payload} is stored twice in {epoch}");
                }
            }
            check_ids(written, disk);
        }
        let held: Vec<_> =
            self.fates.iter().filter_map(|(payload, fate)| Some((payload, fate.durable.as_ref()?))).collect();
        for (payload, (room, epoch, offset)) in held {
            let Some(written) = disk.written.get(&(room.clone(), *epoch)) else { continue };
            let stored = at(written, *offset);
            let is_forgotten = disk.forgotten.contains(&(room.clone(), *epoch));
            if disk.may_be_older_than(stored, disk.now.instant, stored.message.ttl) || is_forgotten {
                continue;
            }
            let room = roomcast_core::room::id::RoomName::parse(room).unwrap();
            let now =
                StoreNow { instant: disk.now.instant, stamp: Stamp::default(), noted: Stamp::default() };
            let loaded = disk.memory.load(&room, 0, now).unwrap();
            let there = loaded.is_some_and(|loaded| {
                loaded.epoch.0 == *epoch && loaded.records.iter().any(|record| record.offset == *offset)
            });
            assert!(there, "{payload} is durable in {room} at {offset}, and gone");
        }
        turned_out
    }

    /// Forgets every durable message after the disk was emptied.
    pub(crate) fn forget_durable(&mut self) {
        for fate in self.fates.values_mut() {
            *fate = Fate { open: fate.open, ..Fate::default() };
        }
    }

    /// Checks the witness's normal messages against the published messages. Each comes once. No message comes
    /// before a message whose answer preceded its request. Messages of one request keep their order.
    pub(crate) fn check_order(&self, records: &[Record], room: &str, is_whole: bool) {
        let of_room = || self.requests.values().filter(|request| request.room == room);
        let mut offered: BTreeMap<&str, &Request> = BTreeMap::new();
        for request in of_room() {
            let normal = request.marks.iter().filter(|mark| mark.class == "normal");
            offered.extend(normal.map(|mark| (mark.payload.as_str(), request)));
        }
        let heard: Vec<&Told> =
            records.iter().flat_map(Record::known).flat_map(|batch| &batch.messages).collect();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut newest = 0;
        for (place, told) in heard.iter().enumerate() {
            if told.key.is_empty() && told.offset == 0 && told.type_name != "whisper" {
                let request = offered.get(told.payload.as_str());
                let request = request.unwrap_or_else(|| panic!("{room}: nobody published {told:?}"));
                let overtaken = request.answered.is_some_and(|answered| answered < newest);
                assert!(!overtaken, "{room}: {told:?} came behind what was published after it");
                newest = newest.max(request.sent);
            }
            if told.key.is_empty() && told.recall == 0 {
                let twin = places.insert(told.payload.as_str(), place);
                assert!(twin.is_none() || told.offset > 0, "{room}: {told:?} arrives once");
            }
        }
        for request in of_room() {
            // A full room takes reliable messages before others. No message passes an earlier reliable
            // message of its request.
            let mut last = 0;
            let mut last_reliable = 0;
            for (mark, verdict) in request.marks.iter().zip(&request.verdicts) {
                let is_ordered =
                    matches!((mark.class, verdict), ("normal", _) | ("reliable", Verdict::Durable { .. }));
                let place = places.get(mark.payload.as_str()).copied();
                let is_missed = is_ordered && mark.class == "normal" && place.is_none();
                assert!(!is_missed || !is_whole, "{room}: {mark:?} never left");
                let Some(place) = place.filter(|_| is_ordered && mark.id.is_none()) else { continue };
                let is_reliable = mark.class == "reliable";
                let before = if is_reliable { last_reliable } else { last.max(last_reliable) };
                assert!(place >= before, "{room}: {mark:?} is out of the order of its request");
                *if is_reliable { &mut last_reliable } else { &mut last } = place;
            }
        }
    }

    /// Accepted messages of a keyed type, and accepted increments.
    pub(crate) fn accepted(&self, room: &str, type_name: &str) -> (u64, u64) {
        let marks =
            self.requests.values().filter(|request| request.room == room && request.answered.is_some());
        let marks = marks.flat_map(|request| request.marks.iter().take(request.verdicts.len()));
        let of_type = marks.filter(|mark| mark.type_name == type_name);
        of_type.fold((0, 0), |(messages, count), mark| (messages + 1, count + mark.count))
    }
}

/// Checks that a durable message is stored at its reported offset.
fn stands(room: &str, mark: &Mark, offset: u64, disk: &mut Disk) -> (String, u64, u64) {
    let name = roomcast_core::room::id::RoomName::parse(room).unwrap();
    let present = disk.epoch(&name).map(|epoch| epoch.0);
    let is_there = |epoch: u64| {
        let Some(written) = disk.of(room, epoch).get(usize::try_from(offset - 1).unwrap()) else {
            return false;
        };
        let payload = std::str::from_utf8(written.message.payload.bytes()).unwrap();
        let id = written.message.id.as_ref().map(|id| id.as_str());
        (payload, id) == (mark.payload.as_str(), mark.id.as_deref())
    };
    // The stream may have been ended since.
    let ended = disk.forgotten.iter().filter(|(of, _)| of == room).map(|(_, epoch)| *epoch);
    let epoch = present.into_iter().chain(ended).find(|epoch| is_there(*epoch));
    (room.to_owned(), epoch.unwrap_or_else(|| panic!("{room}: {mark:?} is not at {offset}")), offset)
}

/// Checks that an id is stored once in five minutes.
fn check_ids(written: &[Written], disk: &Disk) {
    let mut known: BTreeMap<&str, &Written> = BTreeMap::new();
    for stored in written {
        let Some(id) = &stored.message.id else { continue };
        if let Some(first) = known.insert(id.as_str(), stored) {
            let is_old = disk.may_be_older_than(first, stored.accepted, ID_AGE);
            assert!(is_old, "{id} is stored twice within its time");
        }
    }
}
