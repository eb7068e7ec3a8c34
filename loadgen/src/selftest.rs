//! `roomcast-loadgen selftest`: what this machine can generate and check.

use clap::Args;

use crate::report::Verdict;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {}

pub(crate) fn run(_args: &SelftestArgs) -> Result<Verdict, RunError> {
    Err(RunError::Usage("not here yet".into()))
}
