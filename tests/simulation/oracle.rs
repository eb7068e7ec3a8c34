//! What must hold, told by somebody who knows: a *witness* per room that misses nothing fixes what each batch held;
//! every other device's story is checked against that.

use std::collections::BTreeMap;

use crate::device::{Content, Counts, Device, Heard, Told};

/// What the witness of one room saw, by seq from 1.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) run: String,
    pub(crate) batches: Vec<Content>,
}

impl Record {
    /// The witness's story: it joined first and is given every batch, one after the other.
    pub(crate) fn of(witness: &Device, room: &str) -> Self {
        let mut record = Self::default();
        for heard in story(witness, room) {
            match heard {
                Heard::Welcome { run, seq, .. } => {
                    assert_eq!(*seq, 0, "the witness of {room} joins first");
                    record.run.clone_from(run);
                }
                Heard::Batch { run, seq, skipped, latest, content } => {
                    assert_eq!(*run, record.run);
                    assert!(
                        skipped.is_empty() && latest.is_empty(),
                        "{room}: a witness misses nothing: {heard:?}"
                    );
                    assert_eq!(*seq, record.batches.len() as u64 + 1, "{room}: seqs grow by one");
                    record.batches.push(content.clone());
                }
                Heard::Left | Heard::Closed => panic!("a witness stays"),
            }
        }
        record
    }

    /// All messages of a type, in room order.
    pub(crate) fn payloads(&self, type_name: &str) -> Vec<&str> {
        let messages = self.batches.iter().flat_map(|batch| &batch.messages);
        messages.filter(|told| told.0 == type_name).map(|told| told.1.as_str()).collect()
    }

    /// Merged away of a type.
    pub(crate) fn merged(&self, type_name: &str) -> u64 {
        self.batches.iter().map(|batch| batch.merged.get(type_name).copied().unwrap_or(0)).sum()
    }

    /// The total of a counter after a batch.
    fn total(&self, counter: &str, seq: u64) -> u64 {
        self.upto(seq).iter().map(|batch| batch.counters.get(counter).map_or(0, |change| change.0)).sum()
    }

    fn upto(&self, seq: u64) -> &[Content] {
        &self.batches[..usize::try_from(seq).unwrap()]
    }

    /// The newest value of each key after `seq`, of those told after `since`.
    fn latest(&self, since: u64, seq: u64) -> Vec<Told> {
        let mut latest = BTreeMap::new();
        for batch in &self.upto(seq)[usize::try_from(since).unwrap()..] {
            for told in batch.messages.iter().filter(|told| !told.2.is_empty() && told.0 != "enter") {
                latest.insert((told.0.clone(), told.2.clone()), told.clone());
            }
        }
        latest.into_values().collect()
    }

    /// Checks one device's story of this room.
    pub(crate) fn check(&self, device: &Device, room: &str) {
        let mut last = None;
        for heard in story(device, room) {
            match heard {
                Heard::Welcome { run, seq, history, latest, totals } => {
                    assert!(last.is_none(), "one welcome per join");
                    assert_eq!(*run, self.run);
                    self.check_welcome(*seq, history, latest, totals);
                    last = Some(*seq);
                }
                Heard::Batch { run, seq, skipped, latest, content } => {
                    assert_eq!(*run, self.run);
                    let before = last.expect("the welcome comes first");
                    assert!(*seq > before, "{room}: after {before} came {seq}");
                    self.check_batch(before, *seq, skipped, latest, content);
                    let excused = !device.healthy || before + 1 == *seq;
                    assert!(
                        excused || !skipped.is_empty() || content.messages.is_empty(),
                        "{room}: a jump unexplained"
                    );
                    last = Some(*seq);
                }
                Heard::Left | Heard::Closed => last = None,
            }
        }
    }

    fn check_welcome(&self, seq: u64, history: &[Told], latest: &[Told], totals: &Counts) {
        for (counter, total) in totals {
            assert_eq!(*total, self.total(counter, seq), "the total of {counter} as of {seq}");
        }
        assert_eq!(sorted(latest), self.latest(0, seq), "the latest values as of {seq}");
        let normal: Vec<&Told> = self
            .upto(seq)
            .iter()
            .flat_map(|batch| &batch.messages)
            .filter(|told| told.2.is_empty())
            .collect();
        let tail = &normal[normal.len() - history.len()..];
        assert!(
            history.iter().eq(tail.iter().copied()),
            "the history as of {seq} is the end of what there was"
        );
    }

    /// One frame takes a device from `before` to `seq`, and accounts for everything between.
    fn check_batch(&self, before: u64, seq: u64, skipped: &Counts, latest: &[Told], content: &Content) {
        let between = &self.upto(seq)[usize::try_from(before).unwrap()..];
        if skipped.is_empty() && between.len() == 1 && latest.is_empty() {
            assert_eq!(*content, between[0], "batch {seq} is the same for everybody");
            return;
        }
        assert!(content.messages.is_empty(), "a refresh brings no messages");
        let mut accounted = Content::default();
        let mut held = Counts::new();
        for batch in between {
            for told in &batch.messages {
                *held.entry(told.0.clone()).or_default() += 1;
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
        assert_eq!(sorted(latest), self.latest(before, seq), "the newest values of ({before}, {seq}]");
    }
}

/// In a room that has several lives, each begins with a welcome, rises, and ends for good.
pub(crate) fn check_lives(device: &Device, room: &str) {
    let mut life: Option<(&String, u64)> = None;
    for heard in story(device, room) {
        life = match (heard, life) {
            (Heard::Welcome { run, seq, .. }, None) => Some((run, *seq)),
            (Heard::Batch { run, seq, .. }, Some((of, before))) => {
                assert!(run == of && *seq > before, "{room}: {before} of {of}, then {seq} of {run}");
                Some((run, *seq))
            }
            (Heard::Left | Heard::Closed, _) => None,
            (heard, life) => panic!("{room}: {heard:?} in {life:?}"),
        };
    }
}

/// Where a device stands in a room: the seq it has, unless it is not a member.
pub(crate) fn stands_at(device: &Device, room: &str) -> Option<u64> {
    story(device, room).fold(None, |_, heard| match heard {
        Heard::Welcome { seq, .. } | Heard::Batch { seq, .. } => Some(*seq),
        Heard::Left | Heard::Closed => None,
    })
}

fn story<'a>(device: &'a Device, room: &'a str) -> impl Iterator<Item = &'a Heard> {
    device.heard.iter().filter(move |(of, _)| of == room).map(|(_, heard)| heard)
}

fn sorted(latest: &[Told]) -> Vec<Told> {
    let by_key: BTreeMap<_, _> =
        latest.iter().map(|told| ((told.0.clone(), told.2.clone()), told.clone())).collect();
    assert_eq!(by_key.len(), latest.len(), "one value per key");
    by_key.into_values().collect()
}
