//! `roomcast-loadgen compare`: whether a report is worse than an older one, or only different by noise.

use clap::Args;

use crate::report::Verdict;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {}

pub(crate) fn run(_args: &CompareArgs) -> Result<Verdict, RunError> {
    Err(RunError::Usage("not here yet".into()))
}
