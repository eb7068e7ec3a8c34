//! Counts of the devices' moves over a run. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ledger::add_fields;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moves {
    /// Joins after publishing began: beginnings of stays, and hops. Returns do not count.
    pub(crate) joins: u64,
    /// Ends of stays.
    pub(crate) leaves: u64,
    /// Moves to another room.
    pub(crate) hops: u64,
    /// Devices silent for ever.
    pub(crate) deaths: u64,
    /// Connections cut in storms.
    pub(crate) storm_cuts: u64,
    /// Ends of connections with a planned return.
    pub(crate) absences: u64,
    /// Closes that name another door. The device comes back there.
    #[serde(default)]
    pub(crate) sent_elsewhere: u64,
    /// Welcomes on a connection with a welcome before: another node took the room over.
    #[serde(default)]
    pub(crate) rewelcomes: u64,
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A run whose devices only listen needs no line.
        if *self == Self::default() {
            return Ok(());
        }
        let Self { joins, leaves, hops, deaths, storm_cuts, absences, sent_elsewhere, rewelcomes } = self;
        write!(
            f,
            "moves        {joins} joins, {leaves} leaves, {hops} hops, {deaths} deaths, \
             {storm_cuts} cuts in storms, {absences} absences"
        )?;
        // Only several nodes send devices to each other, or take rooms over.
        if sent_elsewhere + rewelcomes > 0 {
            write!(f, ", {sent_elsewhere} sent elsewhere, {rewelcomes} re-welcomes")?;
        }
        writeln!(f)
    }
}

impl Moves {
    /// Adds the moves of another worker's devices.
    pub(crate) fn add(&mut self, other: Self) {
        add_fields!(self, other; joins, leaves, hops, deaths, storm_cuts, absences, sent_elsewhere, rewelcomes);
    }
}
