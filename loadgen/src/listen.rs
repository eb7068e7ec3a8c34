//! `roomcast-loadgen worker --listen`: workers for coordinators on other machines.

use std::net::SocketAddr;

use clap::Args;

use crate::worker;

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Take coordinators of other machines here, each connection a worker process. Without it: orders come on stdin.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

pub(crate) fn run(args: &WorkerArgs) -> std::io::Result<()> {
    match args.listen {
        None => worker::run(),
        Some(_) => Err(std::io::Error::other("not here yet")),
    }
}
