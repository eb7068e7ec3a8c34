//! What a worker knows of what is published: enough to tell of any message which it is, and of any frame what it says of
//! each type. Pure.

use crate::devices::readable::Counts;
use crate::ledger::{Kind, Told};
use crate::scenario::mix::{LIMITS_MAX, Limit, Load, type_seed};
use crate::scenario::payload::{Forgery, Payloads};
use crate::wire::frame::{Batch, HeardMessage, Welcome};

/// The type the engine itself publishes, at most once a second per room.
pub(crate) const ENGINE_TYPE: &str = "online";

/// One type of the mix.
#[derive(Debug)]
pub(crate) struct KnownType {
    pub(crate) load: Load,
    payloads: Payloads,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// This one of ours.
    Ours {
        /// Its type's place in the mix.
        kind: u8,
        number: u64,
    },
    /// One of another run, which may be here.
    Others { kind: u8 },
}

/// All types of the mix but reliable ones.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) types: Vec<KnownType>,
    /// The types that are watched for how many a device is to show, by their places.
    limits: Vec<usize>,
    /// Another run publishes to the same rooms.
    others: bool,
    scratch: Vec<u8>,
}

impl Known {
    /// The types of a mix, whose payloads follow from the seed.
    #[must_use]
    pub(crate) fn new(loads: Vec<Load>, seed: u64) -> Self {
        let types = loads.into_iter().map(|load| {
            let payloads = Payloads::new(load.length, type_seed(seed, &load.type_name));
            KnownType { load, payloads }
        });
        Self { types: types.collect(), limits: Vec::new(), others: false, scratch: Vec::new() }
    }

    /// Watches these types for how many a device is to show.
    #[must_use]
    pub(crate) fn with_limits(mut self, limits: &[Limit]) -> Self {
        let place =
            |limit: &Limit| self.types.iter().position(|known| known.load.type_name == limit.type_name);
        self.limits = limits.iter().filter_map(place).take(LIMITS_MAX).collect();
        self
    }

    /// Takes messages of another run for what they are.
    #[must_use]
    pub(crate) fn with_others(mut self, others: bool) -> Self {
        self.others = others;
        self
    }

    /// The first publish is due at this time.
    pub(crate) fn start(&mut self, start_ns: u64) {
        self.types.iter_mut().for_each(|known| known.load.schedule.start_ns = start_ns);
    }

    /// The load at a place of the mix.
    #[must_use]
    pub(crate) fn load(&self, kind: u8) -> &Load {
        &self.types[usize::from(kind)].load
    }

    /// What a message of `room` is.
    ///
    /// # Errors
    /// The promise it breaks, and why it is none of ours.
    pub(crate) fn which(&mut self, room: u32, message: &HeardMessage) -> Result<Which, (Kind, Forgery)> {
        let place = self.types.iter().position(|known| known.load.type_name == message.type_name);
        let known = place.and_then(|place| Some((u8::try_from(place).ok()?, &self.types[place])));
        let Some((kind, known)) = known.filter(|_| message.json) else {
            return Err((Kind::Foreign, Forgery::Foreign));
        };
        match known.payloads.check(&known.load.schedule, &message.payload, &mut self.scratch) {
            Ok(number) if known.load.schedule.room_of(number) != room => {
                Err((Kind::Foreign, Forgery::Foreign))
            }
            Ok(number) if message.key != known.load.key(number).unwrap_or_default() => {
                Err((Kind::Altered, Forgery::Altered { number }))
            }
            Ok(number) => Ok(Which::Ours { kind, number }),
            Err(Forgery::OtherRun) if self.others => Ok(Which::Others { kind }),
            Err(forgery @ Forgery::Altered { .. }) => Err((Kind::Altered, forgery)),
            Err(forgery) => Err((Kind::Foreign, forgery)),
        }
    }

    /// What a batch or a refresh says of each type of which it says anything.
    #[must_use]
    pub(crate) fn told(&self, batch: &Batch) -> Box<[Told]> {
        let told = (0_u8..).zip(&self.types).map(|(kind, known)| {
            let name = &known.load.type_name;
            let count =
                |counts: &std::collections::BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
            let growth = batch.counters.get(name).copied();
            Told {
                kind,
                messages: given(batch, name),
                skipped: count(&batch.skipped),
                merged: count(&batch.merged),
                add: growth.map_or(0, |growth| growth.add),
                total: growth.map(|growth| growth.total),
            }
        });
        told.filter(|told| *told != Told { kind: told.kind, ..Told::default() }).collect()
    }

    /// Messages of the watched types in a batch.
    #[must_use]
    pub(crate) fn readable(&self, batch: &Batch) -> Counts {
        let mut counts = Counts::default();
        for (count, place) in counts.iter_mut().zip(&self.limits) {
            *count = u32::try_from(given(batch, &self.types[*place].load.type_name)).unwrap_or(u32::MAX);
        }
        counts
    }

    /// Where each counter of the mix stands by a welcome.
    #[must_use]
    pub(crate) fn totals(&self, welcome: &Welcome) -> Box<[Told]> {
        let counters = (0_u8..).zip(&self.types).filter(|(_, known)| known.load.is_counter());
        let total = |name: &String| welcome.counters.get(name).copied().unwrap_or(0);
        counters
            .map(|(kind, known)| Told { kind, total: Some(total(&known.load.type_name)), ..Told::default() })
            .collect()
    }

    /// Counters of the mix that stand at something in a welcome, by name.
    pub(crate) fn grown<'a>(&self, welcome: &'a Welcome) -> impl Iterator<Item = (&'a String, u64)> {
        let ours = |name: &&String| self.types.iter().any(|known| known.load.type_name == **name);
        let grown = welcome.counters.iter().filter(move |(name, total)| **total > 0 && ours(name));
        grown.map(|(name, total)| (name, *total))
    }
}

/// Messages of a type in a batch itself.
fn given(batch: &Batch, type_name: &str) -> u64 {
    let of_type = |message: &&HeardMessage| message.type_name == type_name && message.offset == 0;
    batch.messages.iter().filter(of_type).count() as u64
}
