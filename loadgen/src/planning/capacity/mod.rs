//! `roomcast-loadgen plan`: how many nodes an audience needs, from a sweep.
//!
//! Nothing is told past what was measured unless that is asked for, and then the answer says how far past it is. A room is
//! on one node, spread over its shards; one that needs more than a node is said to, and the plan fails.

mod answer;
mod asked;
mod models;
mod packing;
mod page;
mod point;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RunError;
use crate::planning::model::usl::{Basis, Usl};
use crate::planning::model::{Features, Sweep};
use crate::report::Verdict;
use crate::report::html::Page;
use crate::report::output::{self, openable};
use crate::wire::frame::Encoding;

use answer::{Demand, PlanAnswer};
use asked::{AskedRooms, At, Node, number};
use models::Models;
use point::PointAnswer;

#[cfg(test)]
pub(crate) use models::tests::sweep as known_sweep;

/// What a point says itself, or has none of.
const NOT_WITH_AT: [&str; 11] = [
    "viewers",
    "rooms",
    "chat_rate",
    "reliable_rate",
    "payload_bytes",
    "messages_per_request",
    "encoding",
    "joins_per_second",
    "node",
    "headroom",
    "usl",
];

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A sweep's JSON file, as often as there are sweeps: of one node with several numbers of processors, say.
    #[arg(long, required = true)]
    from: Vec<PathBuf>,
    /// Viewers in all: 1e6, 1_000_000 or 1M. Without it: what --rooms come to.
    #[arg(long, value_parser = number)]
    viewers: Option<f64>,
    /// AskedRooms by size, `COUNT:VIEWERS[:RATE]` each, the viewers and chat messages a second of each room
    /// (`1:500k:50,300:1000,20k:10:0.1`); or a number of rooms that are alike.
    #[arg(long, required_unless_present = "at")]
    rooms: Option<AskedRooms>,
    /// Chat messages a second of each room that --rooms gives no rate. People write by chance: arrivals are Poisson's.
    #[arg(long, default_value = "1", value_parser = number)]
    chat_rate: f64,
    /// Reliable messages a second of each room.
    #[arg(long, default_value = "0", value_parser = number)]
    reliable_rate: f64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 300)]
    payload_bytes: usize,
    /// Messages of one publish request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    messages_per_request: u32,
    /// How devices' frames are spelt.
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// Devices that join in a second, over all nodes, to rooms as large rooms have devices.
    #[arg(long, default_value = "0", value_parser = number)]
    joins_per_second: f64,
    /// What one node has: processors, GiB of memory, network (`16c,64g,10gbit`).
    #[arg(long, required_unless_present = "at")]
    node: Option<Node>,
    /// The part of each resource that is to stay free.
    #[arg(long, default_value = "0.3", value_parser = free)]
    headroom: f64,
    /// The universal scalability law, SIGMA,KAPPA, instead of what sweeps with several numbers of processors say.
    #[arg(long)]
    usl: Option<Usl>,
    /// PlanAnswer past what was measured, too.
    #[arg(long)]
    extrapolate: bool,
    /// Instead of a plan: what one node as it was measured needs for a run of this shape
    /// (`devices=4000,rooms=4,rate=200,payload=300,messages-per-request=1`; also reliable-rate, joins, encoding).
    #[arg(long, conflicts_with_all = NOT_WITH_AT)]
    at: Option<At>,
    /// The JSON report of a run at that point, to be held against what is told.
    #[arg(long, requires = "at")]
    against: Option<PathBuf>,
    /// Write the answer here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the answer and its models here as a page for people, too.
    #[arg(long)]
    html: Option<PathBuf>,
}

/// A part from 0 to 0.95.
fn free(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=0.95).contains(part));
    part.ok_or_else(|| format!("{text:?} is not between 0 and 0.95"))
}

/// Answers on stdout, and in the JSON file.
///
/// # Errors
/// [`RunError`], when a file can't be read, the rows can't tell, or nobody measured so far.
pub(crate) fn run(args: &PlanArgs) -> Result<Verdict, RunError> {
    answer(args).map_err(RunError::Usage)
}

fn answer(args: &PlanArgs) -> Result<Verdict, String> {
    openable("--json", args.json.as_ref())?;
    openable("--html", args.html.as_ref())?;
    let sweeps: Result<Vec<(String, Sweep)>, String> =
        args.from.iter().map(|path| Ok((path.display().to_string(), read("--from", path)?))).collect();
    let models = Models::fit(&sweeps?, args.usl).map_err(|reason| format!("--from: {reason}"))?;
    if let Some(at) = args.at {
        let report = args.against.as_ref().map(|path| read("--against", path)).transpose()?;
        let answer = PointAnswer::of(models, at, report.as_ref())?;
        allowed(&answer.beyond, &answer.models, args.extrapolate)?;
        show(&answer, || answer.page(), args)?;
        return Ok(Verdict::Ok);
    }
    let needed = || "--rooms, --node: needed".to_owned();
    let rooms = args.rooms.clone().ok_or_else(needed)?;
    let node = args.node.ok_or_else(needed)?;
    allowed_processors(&models, node, args.extrapolate)?;
    let demand = Demand {
        sizes: rooms.sizes(args.viewers)?,
        chat_rate: args.chat_rate,
        reliable_rate: args.reliable_rate,
        payload_bytes: args.payload_bytes,
        messages_per_request: args.messages_per_request,
        encoding: args.encoding,
        joins_per_s: args.joins_per_second,
        node,
        headroom: args.headroom,
    };
    let answer = PlanAnswer::of(models, demand)?;
    allowed(&answer.beyond, &answer.models, args.extrapolate)?;
    show(&answer, || answer.page(), args)?;
    Ok(if answer.too_large.is_empty() { Verdict::Ok } else { Verdict::ThresholdFailed })
}

fn read<T: DeserializeOwned>(flag: &str, path: &Path) -> Result<T, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{flag} {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{flag} {}: {error}", path.display()))
}

fn show(
    answer: &(impl Display + Serialize),
    page: impl FnOnce() -> Page,
    args: &PlanArgs,
) -> Result<(), String> {
    output::show(answer, args.json.as_deref())
        .and_then(|()| output::write_text(args.html.as_deref(), || page().to_string()))
        .map_err(|error| format!("writing the answer: {error}"))
}

/// How far one feature goes past what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Beyond {
    pub(crate) feature: &'static str,
    /// What was asked, of the node that is asked most.
    pub(crate) asked: f64,
    /// The most that was measured.
    pub(crate) measured: f64,
    /// The one over the other; `None` where it was never measured at all.
    pub(crate) times: Option<f64>,
}

/// What of `load` is how far past what was measured, every feature that is asked for.
fn beyond(models: &Models, load: &Features) -> Vec<Beyond> {
    let columns = Features::COLUMNS.iter().zip(&models.measured_max);
    let all = columns.map(|(column, measured)| {
        let asked = (column.of)(load);
        let times = (*measured > 0.0).then(|| asked / measured);
        Beyond { feature: column.name, asked, measured: *measured, times }
    });
    all.filter(|beyond| beyond.asked > 0.0).collect()
}

/// A node with more processors than were measured is past the measured range, too, unless the law over them was given.
fn allowed_processors(models: &Models, node: Node, extrapolate: bool) -> Result<(), String> {
    let times = node.processors / models.processors;
    if times <= 1.0 || extrapolate || models.usl_basis == Basis::Given {
        return Ok(());
    }
    Err(format!(
        "--node: {times:.1} × beyond the most processors measured ({} a node, {} measured); a sweep of a node with as many \
         would cover it, or say --usl or --extrapolate",
        node.processors, models.processors
    ))
}

/// Past the measured range an answer has to be asked for; of what was never measured there is none.
fn allowed(beyond: &[Beyond], models: &Models, extrapolate: bool) -> Result<(), String> {
    if let Some(never) = beyond.iter().find(|beyond| beyond.times.is_none()) {
        return Err(format!(
            "{}: {:.2} asked, and no row of the sweep has any: nothing is known of what they cost",
            never.feature, never.asked
        ));
    }
    let far = beyond.iter().filter(|beyond| beyond.times.is_some_and(|times| times > 1.0));
    let farthest = far.max_by(|one, other| one.times.unwrap_or(0.0).total_cmp(&other.times.unwrap_or(0.0)));
    let Some(farthest) = farthest.filter(|_| !extrapolate) else { return Ok(()) };
    let times = |name: &str| {
        let named = beyond.iter().find(|beyond| beyond.feature == name);
        named.and_then(|beyond| beyond.times).unwrap_or(0.0).max(1.0)
    };
    let place = |name: &str| Features::COLUMNS.iter().position(|column| column.name == name).unwrap_or(0);
    let most = |name: &str| models.measured_max[place(name)];
    let devices = most("connections") * times("connections").max(times("frames/s"));
    Err(format!(
        "{}: {:.1} × beyond the largest measured ({:.0} a node, {:.0} measured); a sweep with --devices-max {:.0} and {:.1} × \
         its --rate-max would cover it, or say --extrapolate",
        farthest.feature,
        farthest.times.unwrap_or(0.0),
        farthest.asked,
        farthest.measured,
        devices.ceil(),
        times("messages/s").max(times("publishes/s")).max(times("deliveries/s") / times("connections"))
    ))
}

/// How far past what was measured the farthest of these is, in words; `None`: all are within it.
fn past(beyond: &[Beyond]) -> Option<String> {
    let far = beyond.iter().filter_map(|beyond| Some((beyond.feature, beyond.times?)));
    let farthest = far.filter(|(_, times)| *times > 1.0).max_by(|one, other| one.1.total_cmp(&other.1));
    farthest.map(|(feature, times)| format!("{feature} {times:.1} × the largest measured"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::typed;

    #[test]
    fn a_point_is_not_asked_with_flags_that_say_it_again() {
        let with =
            |more: &str| typed::<PlanArgs>(&format!("--from s.json --at devices=1,rate=1 {more}")).map(drop);
        with("--extrapolate").unwrap();
        for flag in NOT_WITH_AT {
            let flag = format!("--{}", flag.replace('_', "-"));
            let value = match &*flag {
                "--encoding" => "proto",
                "--node" => "1c,1g,1gbit",
                "--usl" => "0,0",
                "--headroom" => "0.1",
                _ => "2",
            };
            let refused = with(&format!("{flag} {value}")).unwrap_err();
            assert!(refused.contains("--at") && refused.contains(&flag), "{refused}");
        }
    }
}
