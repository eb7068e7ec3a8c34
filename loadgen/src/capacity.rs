//! `roomcast-loadgen plan`: how many nodes an audience needs, from a sweep.

use clap::Args;

use crate::report::Verdict;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {}

pub(crate) fn run(_args: &PlanArgs) -> Result<Verdict, RunError> {
    Err(RunError::Usage("not here yet".into()))
}
