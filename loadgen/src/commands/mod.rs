//! The command line: the subcommands, and those of them that no other command needs.

pub(crate) mod floor;
pub(crate) mod selftest;
pub(crate) mod source;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::commands::floor::FloorArgs;
use crate::commands::selftest::SelftestArgs;
use crate::fleet::listen::WorkerArgs;
use crate::planning::capacity::PlanArgs;
use crate::planning::compare::CompareArgs;
use crate::planning::find_max::FindMaxArgs;
use crate::planning::sweep::SweepArgs;
use crate::run::args::RunArgs;

/// Loads a roomcast node as a live room does, and checks every device's stream.
#[derive(Debug, Parser)]
#[command(name = "roomcast-loadgen", version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect devices, publish at a steady rate, check what every device got.
    Run(Box<RunArgs>),
    /// Measure the least processor time that a send to many devices costs on this machine.
    Floor(FloorArgs),
    /// Find the most that holds an objective, along one axis.
    FindMax(Box<FindMaxArgs>),
    /// Measure the node at many points, for `plan`.
    Sweep(Box<SweepArgs>),
    /// Say how many nodes an audience needs, from a sweep.
    Plan(Box<PlanArgs>),
    /// Say whether a report is worse than an older one, or only different by noise.
    Compare(CompareArgs),
    /// Measure what this machine can generate and check.
    Selftest(SelftestArgs),
    /// Hold some of a run's devices: started by `run`, or on another machine with --listen.
    Worker(WorkerArgs),
    /// Be the doors of a selftest; started by `selftest`.
    #[command(hide = true)]
    Source,
    /// Hold the other ends of a floor's connections; started by `floor`.
    #[command(hide = true)]
    Receivers {
        /// Where the sender listens.
        sender: SocketAddr,
        /// How many.
        receivers: usize,
    },
}
