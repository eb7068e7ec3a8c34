//! `roomcast-loadgen find-max`: the most that holds an objective, along one axis.

use clap::Args;

use crate::args::RunArgs;
use crate::report::Verdict;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

pub(crate) fn run(_args: FindMaxArgs) -> Result<Verdict, RunError> {
    Err(RunError::Usage("not here yet".into()))
}
