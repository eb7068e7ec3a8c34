//! `roomcast-loadgen floor`: its arguments, checked, and its figures on stdout and in a file.

use std::path::PathBuf;

use clap::Args;

use crate::machine::descriptors::DEVICES_PER_PROCESS_MAX;
use crate::node::floor::{Floor, FloorShape};
use crate::report::output::{openable, show};
use crate::scenario::units::{Rate, Span};
use crate::wire::frame::FRAME_BYTES_MAX;

/// Rounds of a floor: some weeks.
const ROUNDS_MAX: u64 = 100_000_000;

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Plain TCP connections to send to: 1 to 19 000, because one process holds them all.
    #[arg(long, default_value_t = 10_000)]
    devices: u32,
    /// Bytes of each send.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Rounds a second, each a send to every device; up to three decimals.
    #[arg(long, default_value = "5")]
    rate: Rate,
    /// How long to send.
    #[arg(long, default_value = "8")]
    seconds: Span,
    /// Write the figures here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A checked floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FloorPlan {
    pub(crate) shape: FloorShape,
    pub(crate) json: Option<PathBuf>,
}

impl FloorArgs {
    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// One line that says what is wrong, and where.
    pub(crate) fn resolve(self) -> Result<FloorPlan, String> {
        if !(1..=DEVICES_PER_PROCESS_MAX).contains(&self.devices) {
            return Err(format!(
                "--devices: 1 to {DEVICES_PER_PROCESS_MAX}: one process holds them all, and may open about 20 000 descriptors"
            ));
        }
        if !(1..=FRAME_BYTES_MAX).contains(&self.bytes) {
            return Err(format!("--bytes: 1 to {FRAME_BYTES_MAX}"));
        }
        let rounds = u128::from(self.rate.milli()) * u128::from(self.seconds.ms());
        let rounds =
            u64::try_from(rounds.div_ceil(1_000_000)).ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds));
        let rounds = rounds.ok_or_else(|| format!("--rate × --seconds: 1 to {ROUNDS_MAX} rounds"))?;
        openable("--json", self.json.as_ref())?;
        let shape = FloorShape {
            devices: self.devices,
            frame_bytes: self.bytes,
            rate_milli: self.rate.milli(),
            rounds,
        };
        Ok(FloorPlan { shape, json: self.json })
    }
}

/// Measures the floor and says what it came to, on stdout and in the JSON file.
///
/// # Errors
/// A sentence, when it could not be measured or said.
pub(crate) fn run(plan: &FloorPlan) -> Result<(), String> {
    let floor = Floor::measure(plan.shape)?;
    show(&floor, plan.json.as_deref()).map_err(|error| format!("writing the figures: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::typed;

    fn resolve(flags: &str) -> Result<FloorPlan, String> {
        typed::<FloorArgs>(flags)?.resolve()
    }

    #[test]
    fn a_floor_fits_one_process() {
        let plan = resolve("--devices 19000 --rate 2.5 --seconds 8").unwrap();
        let shape = FloorShape { devices: 19_000, frame_bytes: 300, rate_milli: 2_500, rounds: 20 };
        assert_eq!(plan.shape, shape);
        for (flags, named) in [
            ("--devices 19001", "--devices: 1 to 19000"),
            ("--devices 0", "--devices"),
            ("--bytes 0", "--bytes"),
            ("--bytes 2000000", "--bytes"),
            ("--rate 0", "--rate"),
            ("--seconds 0", "--seconds"),
            ("--json /nowhere/at/all.json", "--json"),
        ] {
            let error = resolve(flags).unwrap_err();
            assert!(error.contains(named), "{flags}: {error}");
        }
    }
}
