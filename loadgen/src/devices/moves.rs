//! The devices' moves over a run, counted. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What devices did besides listening, over the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moves {
    /// Joins after publishing began: stays that began, and hops. Not who came back.
    pub(crate) joins: u64,
    /// Stays that ended.
    pub(crate) leaves: u64,
    /// Devices that went to another room.
    pub(crate) hops: u64,
    /// Devices that stopped for ever.
    pub(crate) deaths: u64,
    /// Connections cut in storms.
    pub(crate) storm_cuts: u64,
    /// Connections that ended, by whatever, of devices that were to come back.
    pub(crate) absences: u64,
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return Ok(());
        }
        let Self { joins, leaves, hops, deaths, storm_cuts, absences } = self;
        writeln!(
            f,
            "moves        {joins} joins, {leaves} leaves, {hops} hops, {deaths} deaths, {storm_cuts} cuts in storms, {absences} \
             absences"
        )
    }
}

impl Moves {
    /// Adds what devices of another worker did.
    pub(crate) fn add(&mut self, other: Self) {
        self.joins += other.joins;
        self.leaves += other.leaves;
        self.hops += other.hops;
        self.deaths += other.deaths;
        self.storm_cuts += other.storm_cuts;
        self.absences += other.absences;
    }
}
