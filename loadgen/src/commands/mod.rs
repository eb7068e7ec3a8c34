//! The command line: all subcommands, and the code of the small ones (`floor`, `selftest`, `source`).

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
    /// Connect devices, publish messages by a schedule, check the stream of every device.
    Run(Box<RunArgs>),
    /// Measure the least processor time that a send to many devices costs on this machine.
    Floor(FloorArgs),
    /// Find the highest value along an axis at which a set of conditions still holds.
    FindMax(Box<FindMaxArgs>),
    /// Measure the node at many points, for `plan`.
    Sweep(Box<SweepArgs>),
    /// Compute the number of nodes that an audience needs, from a sweep.
    Plan(Box<PlanArgs>),
    /// Judge whether a report is worse than an older report, beyond the noise of both runs.
    Compare(CompareArgs),
    /// Measure the load that this machine can generate and check.
    Selftest(SelftestArgs),
    /// Hold a part of a run's devices: started by `run`, or by hand on another machine with --listen.
    Worker(WorkerArgs),
    /// Serve the doors of a selftest; started by `selftest`.
    #[command(hide = true)]
    Source,
    /// Hold the other ends of a floor's connections; started by `floor`.
    #[command(hide = true)]
    Receivers {
        /// Address on which the sender listens.
        sender: SocketAddr,
        /// Number of connections to open.
        receivers: usize,
    },
}
