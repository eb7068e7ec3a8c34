//! A worker's knowledge of the publishes: enough to identify any message, and to read any frame's account by
//! type. Pure.

use std::collections::BTreeMap;

use crate::devices::readable::Counts;
use crate::ledger::{Kind, Told};
use crate::scenario::mix::{LIMITS_MAX, Limit, Load, type_seed};
use crate::scenario::payload::{Forgery, Payloads};
use crate::wire::frame::{Batch, Message, Welcome};

/// The engine's own type, published at most once a second per room.
pub(crate) const ENGINE_TYPE: &str = "online";

#[derive(Debug)]
pub(crate) struct KnownType {
    pub(crate) load: Load,
    payloads: Payloads,
}

/// The identity of a message. `kind` is the place of the type in the mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// This run's message `number`.
    Ours { kind: u8, number: u64 },
    /// A message of another run, which may be here.
    Others { kind: u8 },
}

/// All types of the mix but the reliable class.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) types: Vec<KnownType>,
    /// Types with a limit, by place.
    limits: Vec<usize>,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
    scratch: Vec<u8>,
}

impl Known {
    /// The types of a mix, with counts for each device of the limited types. The payloads follow from the
    /// seed.
    pub(crate) fn new(loads: Vec<Load>, limits: &[Limit], seed: u64) -> Self {
        let place = |limit: &Limit| loads.iter().position(|load| load.type_name == limit.type_name);
        let limits = limits.iter().filter_map(place).take(LIMITS_MAX).collect();
        let types = loads.into_iter().map(|load| {
            let payloads = Payloads::new(load.length, type_seed(seed, &load.type_name));
            KnownType { load, payloads }
        });
        Self { types: types.collect(), limits, others: false, scratch: Vec::new() }
    }

    /// Sets the time of the first publish.
    pub(crate) fn start(&mut self, start_ns: u64) {
        self.types.iter_mut().for_each(|known| known.load.schedule.start_ns = start_ns);
    }

    pub(crate) fn load(&self, kind: u8) -> &Load {
        &self.types[usize::from(kind)].load
    }

    /// Identifies a message of `room`.
    ///
    /// # Errors
    /// The broken promise, and the difference to every published message.
    pub(crate) fn which(&mut self, room: u32, message: &Message) -> Result<Which, (Kind, Forgery)> {
        let found = (0_u8..).zip(&self.types).find(|(_, known)| known.load.type_name == message.r#type);
        // The generator publishes JSON alone.
        let Some((kind, known)) = found.filter(|_| message.json) else {
            return Err((Kind::Foreign, Forgery::Foreign));
        };
        match known.payloads.check(&known.load.schedule, &message.payload, &mut self.scratch) {
            // The payload is this run's, and so the node gave the message to the wrong room.
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

    /// The account of each type in a batch or a refresh. Types without an account are left out.
    pub(crate) fn told(&self, batch: &Batch) -> Box<[Told]> {
        let told = (0_u8..).zip(&self.types).map(|(kind, known)| {
            let name = &known.load.type_name;
            let count = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or(0);
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
        // The ledger keeps an entry for each distinct account, and most types have none in a frame.
        told.filter(|told| *told != Told { kind: told.kind, ..Told::default() }).collect()
    }

    /// Messages of the types with a limit in a batch.
    pub(crate) fn readable(&self, batch: &Batch) -> Counts {
        let mut counts = Counts::default();
        for (count, place) in counts.iter_mut().zip(&self.limits) {
            *count = u32::try_from(given(batch, &self.types[*place].load.type_name)).unwrap_or(u32::MAX);
        }
        counts
    }

    /// The total of each counter of the mix in a welcome. A counter absent there stands at 0.
    pub(crate) fn totals(&self, welcome: &Welcome) -> Box<[Told]> {
        let counters = (0_u8..).zip(&self.types).filter(|(_, known)| known.load.is_counter());
        let total = |name: &String| welcome.counters.get(name).copied().unwrap_or(0);
        counters
            .map(|(kind, known)| Told { kind, total: Some(total(&known.load.type_name)), ..Told::default() })
            .collect()
    }

    /// The counters of the mix above 0 in a welcome, by name.
    pub(crate) fn grown<'a>(&self, welcome: &'a Welcome) -> impl Iterator<Item = (&'a String, u64)> {
        let ours = |name: &&String| self.types.iter().any(|known| known.load.type_name == **name);
        let grown = welcome.counters.iter().filter(move |(name, total)| **total > 0 && ours(name));
        grown.map(|(name, total)| (name, *total))
    }
}

/// Messages of a type in a batch itself, without carried messages.
fn given(batch: &Batch, type_name: &str) -> u64 {
    let of_type = |message: &&Message| message.r#type == type_name && message.offset == 0;
    batch.messages.iter().filter(of_type).count() as u64
}
