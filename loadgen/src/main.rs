//! `roomcast-loadgen`: loads a roomcast node as a live room does, and checks every device's stream.
//!
//! A schedule says every publish and its time. The ledger compares the published messages with the messages
//! that each device received. The report gives the result. `run` publishes and judges; `worker` processes
//! hold the devices.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | the node kept every promise |
//! | 1 | bad input |
//! | 2 | the target can't be reached, or is not roomcast |
//! | 3 | the generator was the limit: the figures describe this machine, not the node |
//! | 99 | a promise was broken, a threshold failed, the node accepted no message, or no room could be judged |
//! | 130 | Ctrl-C: the figures are partial, and no promise was broken so far |

mod clock;
mod commands;
mod devices;
mod error;
mod figures;
mod fleet;
mod ledger;
mod machine;
mod node;
mod planning;
mod publish;
mod report;
mod run;
mod scenario;
mod stop;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use commands::{Command, CommandLine, floor, selftest, source};
use error::RunError;
use fleet::listen;
use node::receivers;
use planning::{capacity, compare, find_max, sweep};
use report::Verdict;
use stop::EXIT_STOPPED;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_USAGE: u8 = 1;
const EXIT_TARGET: u8 = 2;
const EXIT_GENERATOR: u8 = 3;
const EXIT_FAILED: u8 = 99;

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        // `--help` and `--version` reach this place as errors for stdout.
        Err(error) if !error.use_stderr() => {
            drop(write!(std::io::stdout(), "{error}"));
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(EXIT_USAGE, &in_one_line(&error.to_string())),
    };
    match execute(command) {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::GeneratorLimited) => ExitCode::from(EXIT_GENERATOR),
        Ok(
            Verdict::Violations
            | Verdict::NothingPublished
            | Verdict::NothingJudged
            | Verdict::ThresholdFailed,
        ) => ExitCode::from(EXIT_FAILED),
        Err(error @ RunError::Usage(_)) => fail(EXIT_USAGE, &error),
        Ok(Verdict::Partial) => ExitCode::from(EXIT_STOPPED),
        Err(error @ RunError::Target(_)) => fail(EXIT_TARGET, &error),
        Err(error @ RunError::Stopped(_)) => fail(EXIT_STOPPED, &error),
    }
}

fn execute(command: Command) -> Result<Verdict, RunError> {
    let target = |error: std::io::Error| RunError::Target(error.to_string());
    // The other commands have no figures so far, and a signal ends them at once.
    if matches!(command, Command::Run(_) | Command::FindMax(_) | Command::Sweep(_)) {
        stop::watch().map_err(|error| RunError::Usage(format!("taking signals: {error}")))?;
    }
    match command {
        Command::Worker(args) => listen::run(&args).map(|()| Verdict::Ok),
        Command::Receivers { sender, receivers } => {
            receivers::run(sender, receivers).map_err(target).map(|()| Verdict::Ok)
        }
        Command::Source => source::run().map_err(target).map(|()| Verdict::Ok),
        Command::Floor(args) => floor::run(&args).map_err(RunError::Usage).map(|()| Verdict::Ok),
        Command::Run(args) => args.resolve().map_err(RunError::Usage).and_then(|plan| run::run(&plan)),
        Command::FindMax(args) => find_max::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Plan(args) => capacity::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Selftest(args) => selftest::run(&args),
    }
}

/// Joins the first paragraph of a clap error into a single line. Its later lines name the missing arguments.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

fn fail(code: u8, reason: &(impl std::fmt::Display + ?Sized)) -> ExitCode {
    drop(writeln!(std::io::stderr(), "roomcast-loadgen: {reason}"));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_flags_of_a_command_have_one_name() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_is_missing_is_named_in_the_one_line() {
        for (line, said) in [
            ("find-max", "the following required arguments were not provided: --axis <AXIS>"),
            ("find-max --axis speed", "[possible values: devices, rate, rooms, payload-bytes]"),
            ("run --speed 3", "unexpected argument '--speed' found"),
        ] {
            let words = ["roomcast-loadgen"].into_iter().chain(line.split_whitespace());
            let told = in_one_line(&CommandLine::try_parse_from(words).unwrap_err().to_string());
            assert!(told.ends_with(said) && told.lines().count() == 1, "{line}: {told}");
        }
    }
}
