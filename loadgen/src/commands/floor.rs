//! `roomcast-loadgen floor`: checks the arguments, measures, and shows the figures on stdout and in a JSON
//! file.

use std::path::PathBuf;

use clap::Args;

use crate::machine::descriptors::DEVICES_PER_PROCESS_MAX;
use crate::node::floor::{Floor, FloorShape};
use crate::report::output::{openable, show};
use crate::scenario::units::{Rate, Span};
use crate::wire::frame::FRAME_BYTES_MAX;

/// Bounds the time of a floor; at 1 000 rounds a second this is 28 hours.
const ROUNDS_MAX: u64 = 100_000_000;

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Plain TCP connections to send to: 1 to 19 000, because a single process holds them all.
    #[arg(long, default_value_t = 10_000)]
    devices: u32,
    /// Bytes of each send.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Rounds a second, each a send to every device; up to three decimals.
    #[arg(long, default_value = "5")]
    rate: Rate,
    /// Time of sending.
    #[arg(long, default_value = "8")]
    seconds: Span,
    /// Write the figures to this JSON file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl FloorArgs {
    /// Checks everything that can be checked without a connection. The error names the flag.
    fn resolve(&self) -> Result<FloorShape, String> {
        if !(1..=DEVICES_PER_PROCESS_MAX).contains(&self.devices) {
            return Err(format!(
                "--devices: must be 1 to {DEVICES_PER_PROCESS_MAX}; a process can open about 20 000 descriptors"
            ));
        }
        // A longer send would not compare with any frame of a node.
        if !(1..=FRAME_BYTES_MAX).contains(&self.bytes) {
            return Err(format!("--bytes: must be 1 to {FRAME_BYTES_MAX}"));
        }
        // Thousandths of a round times milliseconds: the product can exceed 64 bits.
        let rounds = u128::from(self.rate.milli()) * u128::from(self.seconds.ms());
        let rounds =
            u64::try_from(rounds.div_ceil(1_000_000)).ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds));
        let rounds = rounds.ok_or_else(|| format!("--rate × --seconds: must be 1 to {ROUNDS_MAX} rounds"))?;
        openable("--json", self.json.as_ref())?;
        Ok(FloorShape {
            devices: self.devices,
            frame_bytes: self.bytes,
            rate_milli: self.rate.milli(),
            rounds,
        })
    }
}

pub(crate) fn run(args: &FloorArgs) -> Result<(), String> {
    let floor = Floor::measure(args.resolve()?)?;
    show(&floor, args.json.as_deref()).map_err(|error| format!("writing the figures: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::typed;

    fn resolve(flags: &str) -> Result<FloorShape, String> {
        typed::<FloorArgs>(flags)?.resolve()
    }

    #[test]
    fn a_floor_fits_one_process() {
        let shape = FloorShape { devices: 19_000, frame_bytes: 300, rate_milli: 2_500, rounds: 20 };
        assert_eq!(resolve("--devices 19000 --rate 2.5 --seconds 8"), Ok(shape));
        for (flags, named) in [
            ("--devices 19001", "--devices: must be 1 to 19000"),
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
