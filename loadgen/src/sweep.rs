//! `roomcast-loadgen sweep`: measures the node at many points, for `plan`.

use clap::Args;

use crate::args::RunArgs;
use crate::report::Verdict;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

pub(crate) fn run(_args: SweepArgs) -> Result<Verdict, RunError> {
    Err(RunError::Usage("not here yet".into()))
}
