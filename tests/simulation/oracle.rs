//! The oracle. Each room has a *witness* that misses nothing and so fixes the content of each batch. Every
//! other device's story is checked against the witness's story.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Content, Counts, Device, Heard, Past, Told};

/// Type and key -> the newest value.
type Values = BTreeMap<(String, String), Told>;

/// The batches that the witness of one room heard, by seq from 1.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) run: String,
    /// `None`: the witness was away, because it had been told to come back.
    batches: Vec<Option<Content>>,
}

impl Record {
    /// Reads the story of the witnesses. A witness joins first and hears every batch in order. If the room's
    /// stream becomes known or changes, the witness has to come back.
    pub(crate) fn of(witnesses: &[&Device], room: &str) -> Vec<Self> {
        let mut records: Vec<Self> = Vec::new();
        for heard in witnesses.iter().flat_map(|witness| story(witness, room)) {
            match heard {
                Heard::Welcome { run, seq, .. } => {
                    // A room without a publisher ends with its last member, even if the member returns at
                    // once.
                    if records.last().is_none_or(|record| record.run != *run) {
                        records.push(Self { run: run.clone(), batches: Vec::new() });
                    }
                    records.last_mut().expect("pushed").miss(*seq);
                }
                Heard::Batch { run, .. } => {
                    let record = records.last_mut().expect("the welcome comes first");
                    assert_eq!(*run, record.run);
                    record.hear(heard, room);
                }
                Heard::History { .. } => {}
                Heard::Left | Heard::Closed => panic!("a witness stays"),
            }
        }
        records
    }

    fn hear(&mut self, heard: &Heard, room: &str) {
        let Heard::Batch { seq, skipped, latest, content, part, .. } = heard else { return };
        let next = self.batches.len() as u64 + 1;
        let brings_no_batch = part.is_some() && content.messages.is_empty() && *seq == next;
        if !skipped.is_empty() || !latest.is_empty() || *seq > next || brings_no_batch {
            self.miss(*seq);
        } else if *seq == next {
            self.batches.push(Some(content.clone()));
        } else {
            let repeats = *seq + 1 == next && content.messages.is_empty();
            assert!(repeats, "{room}: a frame at the present seq brings no messages");
        }
    }

    fn miss(&mut self, through: u64) {
        let known = self.batches.len().max(usize::try_from(through).unwrap());
        self.batches.resize(known, None);
    }

    /// The known batches.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Content> {
        self.batches.iter().flatten()
    }

    /// True if no batch is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.batches.iter().all(Option::is_some)
    }

    /// The number of messages of a type.
    pub(crate) fn count(&self, type_name: &str) -> u64 {
        self.known().flat_map(|batch| &batch.messages).filter(|told| told.type_name == type_name).count()
            as u64
    }

    /// The number of merged messages of a type.
    pub(crate) fn merged(&self, type_name: &str) -> u64 {
        self.known().map(|batch| batch.merged.get(type_name).copied().unwrap_or(0)).sum()
    }

    /// The batches in (since, seq]. `None` if one of the batches is unknown.
    fn between(&self, since: u64, seq: u64) -> Option<Vec<&Content>> {
        let since = usize::try_from(since).unwrap();
        let seq = usize::try_from(seq).unwrap();
        self.batches.get(since..seq)?.iter().map(Option::as_ref).collect()
    }

    /// The newest value of each key among these batches.
    fn latest(between: &[&Content]) -> Values {
        let mut latest = Values::new();
        for batch in between {
            for told in
                batch.messages.iter().filter(|told| told.type_name == "price" || told.type_name == "online")
            {
                latest.insert((told.type_name.clone(), told.key.clone()), told.clone());
            }
        }
        latest
    }

    /// Checks the frames of this run in one device's story of this room. Returns the number of welcomes without
    /// room for all latest values, and of frames with the rest alone.
    pub(crate) fn check(&self, device: &Device, room: &str) -> u64 {
        let mut followed = 0;
        let mut last = None;
        let mut shown: BTreeSet<&Told> = BTreeSet::new();
        let mut lacks = Values::new();
        let is_of_run = |heard: &&Heard| match heard {
            Heard::Welcome { run, .. } | Heard::Batch { run, .. } | Heard::History { run, .. } => {
                *run == self.run
            }
            Heard::Left | Heard::Closed => true,
        };
        for heard in story(device, room).filter(is_of_run) {
            match heard {
                Heard::Welcome { seq, history, latest, totals, .. } => {
                    assert!(last.is_none(), "one welcome per join");
                    self.check_welcome(*seq, history, totals);
                    lacks = Values::new();
                    self.check_latest(0, *seq, latest, &mut lacks);
                    // The rest may come with newer batches, and the device misses those.
                    followed += u64::from(!lacks.is_empty());
                    last = Some(*seq);
                    shown = history.iter().collect();
                }
                Heard::Batch { seq, skipped, latest, content, part, .. } => {
                    let before = last.expect("the welcome comes first");
                    assert!(*seq >= before, "{room}: after {before} came {seq}");
                    let says = *seq > before || part.is_some() || !latest.is_empty();
                    assert!(says, "{room}: {heard:?} says nothing");
                    self.check_batch(before, *seq, skipped, latest, content);
                    followed += u64::from(*seq == before && !latest.is_empty());
                    if content.messages.is_empty() {
                        self.check_latest(before, *seq, latest, &mut lacks);
                    }
                    assert!(
                        content.messages.is_empty() || lacks.is_empty(),
                        "{room}: a batch before {lacks:?}"
                    );
                    let excused = !device.healthy || before + 1 == *seq;
                    assert!(
                        excused || !skipped.is_empty() || content.messages.is_empty(),
                        "{room}: a jump unexplained"
                    );
                    last = Some(*seq);
                    shown.extend(&content.messages);
                }
                Heard::History { history, .. } => {
                    let now_at = last.expect("the welcome comes first");
                    assert!(history.is_sorted_by_key(|past| past.seq), "{room}: oldest first");
                    for past in history {
                        assert!(past.seq <= now_at, "{room}: {past:?} is told to a device at {now_at}");
                        self.check_past(past, room);
                        assert!(shown.insert(&past.told), "{room}: {past:?} was shown before");
                    }
                }
                Heard::Left | Heard::Closed => last = None,
            }
        }
        // Whoever stands at the end of the room has all values: the rest of them was not forgotten.
        let is_at_end = last.is_some_and(|last| last == self.batches.len() as u64);
        assert!(!is_at_end || lacks.is_empty() || !device.healthy, "{room}: at the end without {lacks:?}");
        followed
    }

    /// Checks that a message of a piece of history was in its batch.
    fn check_past(&self, past: &Past, room: &str) {
        let batch = usize::try_from(past.seq - 1).ok().and_then(|index| self.batches.get(index));
        if let Some(Some(batch)) = batch {
            assert!(batch.messages.contains(&past.told), "{room}: {past:?} was not in {batch:?}");
        }
    }

    /// Checks the latest values of a welcome or a refresh, and notes the values that the device lacks: a frame
    /// need not have room for all.
    fn check_latest(&self, before: u64, seq: u64, latest: &[Told], lacks: &mut Values) {
        lacks.extend(self.between(before, seq).iter().flat_map(|between| Self::latest(between)));
        for told in latest {
            let key = (told.type_name.clone(), told.key.clone());
            lacks.remove(&key);
            if let Some(all) = self.between(0, seq) {
                assert_eq!(Some(told), Self::latest(&all).get(&key), "the newest value as of {seq}");
            }
        }
        let keys: BTreeSet<_> = latest.iter().map(|told| (&told.type_name, &told.key)).collect();
        assert_eq!(keys.len(), latest.len(), "one value per key");
    }

    fn check_welcome(&self, seq: u64, history: &[Told], totals: &Counts) {
        let Some(before) = self.between(0, seq) else { return };
        for (counter, total) in totals {
            let told = before.iter().map(|batch| batch.counters.get(counter).map_or(0, |change| change.0));
            assert_eq!(*total, told.sum::<u64>(), "the total of {counter} as of {seq}");
        }
        let of_all = before.iter().flat_map(|batch| &batch.messages);
        let normal: Vec<&Told> = of_all
            .filter(|told| told.key.is_empty() && told.offset == 0 && told.type_name != "whisper")
            .collect();
        let tail = &normal[normal.len() - history.len()..];
        assert!(
            history.iter().eq(tail.iter().copied()),
            "the history as of {seq} is the end of what there was"
        );
    }

    /// Checks a frame that takes a device from `before` to `seq` and must account for every message between.
    fn check_batch(&self, before: u64, seq: u64, skipped: &Counts, latest: &[Told], content: &Content) {
        let Some(between) = self.between(before, seq) else { return };
        if between.len() == 1 && *content == *between[0] && skipped.is_empty() && latest.is_empty() {
            return;
        }
        assert!(
            content.messages.is_empty(),
            "batch {seq} is the same for everybody, and a refresh brings no messages: {content:?} {between:?}"
        );
        let mut accounted = Content::default();
        let mut held = Counts::new();
        for batch in &between {
            // Reliable messages are never missed: `carried` brings them.
            for told in batch.messages.iter().filter(|told| told.offset == 0) {
                *held.entry(told.type_name.clone()).or_default() += 1;
            }
            for (type_name, count) in &batch.merged {
                *accounted.merged.entry(type_name.clone()).or_default() += count;
            }
            for (counter, (add, total)) in &batch.counters {
                let change = accounted.counters.entry(counter.clone()).or_default();
                *change = (change.0 + add, *total);
            }
        }
        assert_eq!(*skipped, held, "what ({before}, {seq}] held");
        assert_eq!((&content.merged, &content.counters), (&accounted.merged, &accounted.counters));
    }
}

/// Checks that each life of a room begins with a welcome, rises, and ends for good.
pub(crate) fn check_lives(device: &Device, room: &str) {
    let mut life: Option<(&String, u64)> = None;
    for heard in story(device, room) {
        life = match (heard, life) {
            (Heard::Welcome { run, seq, .. }, None) => Some((run, *seq)),
            (Heard::Batch { run, seq, .. }, Some((of, before))) => {
                assert!(run == of && *seq >= before, "{room}: {before} of {of}, then {seq} of {run}");
                Some((run, *seq))
            }
            (Heard::History { run, .. }, Some((of, before))) => {
                assert_eq!(run, of, "{room}: a piece of another run");
                Some((of, before))
            }
            (Heard::Left | Heard::Closed, _) => None,
            (heard, life) => panic!("{room}: {heard:?} in {life:?}"),
        };
    }
}

/// The seq that a device has in a room. `None` if the device is not a member.
pub(crate) fn stands_at(device: &Device, room: &str) -> Option<u64> {
    story(device, room).fold(None, |at, heard| match heard {
        Heard::Welcome { seq, .. } | Heard::Batch { seq, .. } => Some(*seq),
        Heard::History { .. } => at,
        Heard::Left | Heard::Closed => None,
    })
}

fn story<'a>(device: &'a Device, room: &'a str) -> impl Iterator<Item = &'a Heard> {
    device.heard.iter().filter(move |(of, _)| of == room).map(|(_, heard)| heard)
}
