//! `roomcast-loadgen plan`: the number of nodes that an audience needs, from a sweep.
//!
//! Past the measured range the plan refuses an answer, unless --extrapolate asks for the answer with its
//! distance. A room is on a single node, spread over the node's shards. A room that needs more than a node is
//! named, and the plan fails. With --cluster such a room is spread over nodes.

mod answer;
mod asked;
mod cluster;
mod links;
mod models;
mod packing;
mod page;
mod point;
mod spread;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RunError;
use crate::planning::model::usl::{Basis, Usl};
use crate::planning::model::{Features, Sweep};
use crate::planning::part;
use crate::report::Verdict;
use crate::report::html::Page;
use crate::report::output::{self, openable};

use answer::{Demand, PlanAnswer};
use asked::{AskedRooms, AskedTraffic, At, number};
use models::{Models, Resources};
use point::PointAnswer;

#[cfg(test)]
pub(crate) use models::tests::sweep as known_sweep;

/// Arguments that a point contains already, or has no use for.
const NOT_WITH_AT: [&str; 12] = [
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
    "cluster",
];

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The JSON file of a sweep. May be given several times, for example for a node with several numbers of
    /// processors.
    #[arg(long, required = true)]
    from: Vec<PathBuf>,
    /// Viewers in all: 1e6, 1_000_000 or 1M. Default: the sum over --rooms.
    #[arg(long, value_parser = number)]
    viewers: Option<f64>,
    /// Rooms by size: a list of `COUNT:VIEWERS[:RATE]` (`1:500k:50,300:1000,20k:10:0.1`). VIEWERS and RATE
    /// are the viewers and the chat messages a second of each room. Or a number of rooms of the same size.
    #[arg(long, required_unless_present = "at")]
    rooms: Option<AskedRooms>,
    #[command(flatten)]
    traffic: AskedTraffic,
    /// The resources of a node: processors, GiB of memory, network (`16c,64g,10gbit`).
    #[arg(long, required_unless_present = "at")]
    node: Option<Resources>,
    /// Part of each resource to keep free.
    #[arg(long, default_value = "0.3", value_parser = |text: &str| part(text, 0.0..=0.95))]
    headroom: f64,
    /// The universal scalability law, SIGMA,KAPPA, instead of an estimate from several numbers of processors.
    #[arg(long)]
    usl: Option<Usl>,
    /// Spread rooms that need more than a node over several nodes, and answer for the whole cluster: NATS servers,
    /// the links between nodes, the loss of a node.
    #[arg(long)]
    cluster: bool,
    /// Answer past the measured range, too.
    #[arg(long)]
    extrapolate: bool,
    /// Instead of a plan: the need of the measured node for a run of this shape
    /// (`devices=4000,rooms=4,rate=200,payload=300,messages-per-request=1`; also reliable-rate, joins,
    /// encoding).
    #[arg(long, conflicts_with_all = NOT_WITH_AT)]
    at: Option<At>,
    /// The JSON report of a run at that point, for a comparison with the prediction.
    #[arg(long, requires = "at")]
    against: Option<PathBuf>,
    /// Write the answer to this JSON file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the answer and its models to this HTML page, too.
    #[arg(long)]
    html: Option<PathBuf>,
}

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
        show(&answer, &answer.page(), args)?;
        return Ok(Verdict::Ok);
    }
    let needed = || "--rooms, --node: needed without --at".to_owned();
    let rooms = args.rooms.clone().ok_or_else(needed)?;
    let node = args.node.ok_or_else(needed)?;
    allowed_processors(&models, node, args.extrapolate)?;
    let sizes = rooms.sizes(args.viewers)?;
    let demand =
        Demand { sizes, traffic: args.traffic, node, headroom: args.headroom, is_cluster: args.cluster };
    let answer = PlanAnswer::of(models, demand)?;
    allowed(&answer.beyond, &answer.models, args.extrapolate)?;
    show(&answer, &answer.page(), args)?;
    Ok(if answer.is_possible() { Verdict::Ok } else { Verdict::ThresholdFailed })
}

fn read<T: DeserializeOwned>(flag: &str, path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| format!("{flag} {}: {error}", path.display()))
}

fn show(answer: &(impl Display + Serialize), page: &Page, args: &PlanArgs) -> Result<(), String> {
    output::show(answer, args.json.as_deref())
        .and_then(|()| output::write_text(args.html.as_deref(), || page.to_string()))
        .map_err(|error| format!("writing the answer: {error}"))
}

/// The distance of a feature from the measured range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Beyond {
    pub(crate) feature: &'static str,
    /// The value on the node with the largest value.
    pub(crate) asked: f64,
    /// The largest value of any row.
    pub(crate) measured: f64,
    /// `asked` / `measured`; past 1 the value is outside the range. `None`: never measured.
    pub(crate) times: Option<f64>,
}

/// The distances of all features that `load` has.
fn beyond(models: &Models, load: &Features) -> Vec<Beyond> {
    let columns = Features::COLUMNS.iter().zip(&models.measured_max);
    let all = columns.map(|(column, measured)| {
        let asked = (column.of)(load);
        let times = (*measured > 0.0).then(|| asked / measured);
        Beyond { feature: column.name, asked, measured: *measured, times }
    });
    all.filter(|beyond| beyond.asked > 0.0).collect()
}

/// The feature farthest outside the measured range, with its ratio. `None`: all features are inside.
fn farthest(beyond: &[Beyond]) -> Option<(&Beyond, f64)> {
    let outside = beyond.iter().filter_map(|beyond| Some((beyond, beyond.times?)));
    outside.filter(|(_, times)| *times > 1.0).max_by(|one, other| one.1.total_cmp(&other.1))
}

/// Refuses a node with more processors than measured, unless --usl gives the law or --extrapolate asks for a
/// guess.
fn allowed_processors(models: &Models, node: Resources, extrapolate: bool) -> Result<(), String> {
    let times = node.processors / models.processors;
    if times <= 1.0 || extrapolate || models.usl_basis == Basis::Given {
        return Ok(());
    }
    Err(format!(
        "--node: {} processors are {times:.1} times the most measured ({}); sweep a node with as many, or give \
         --usl or --extrapolate",
        node.processors, models.processors
    ))
}

/// Refuses an answer outside the measured range without --extrapolate, and always for a feature that was
/// never measured.
fn allowed(beyond: &[Beyond], models: &Models, extrapolate: bool) -> Result<(), String> {
    // Without a row there is no coefficient, and so not even a guess.
    if let Some(never) = beyond.iter().find(|beyond| beyond.times.is_none()) {
        return Err(format!(
            "{}: {:.2} are needed, but no row of the sweep has any, so their cost is not known",
            never.feature, never.asked
        ));
    }
    let Some((farthest, most_times)) = farthest(beyond).filter(|_| !extrapolate) else { return Ok(()) };
    let times = |name: &str| {
        let named = beyond.iter().find(|beyond| beyond.feature == name);
        named.and_then(|beyond| beyond.times).unwrap_or(0.0).max(1.0)
    };
    // Frames grow with devices, so devices alone may not reach the frames.
    let devices = models.measured_max[0] * times("connections").max(times("frames/s"));
    Err(format!(
        "{}: a node would have {:.0}, {most_times:.1} times the largest measured ({:.0}); sweep with \
         --devices-max {:.0} and {:.1} times the --rate-max, or give --extrapolate",
        farthest.feature,
        farthest.asked,
        farthest.measured,
        devices.ceil(),
        times("messages/s").max(times("publishes/s")).max(times("deliveries/s") / times("connections"))
    ))
}

/// [`farthest`], in words.
fn past(beyond: &[Beyond]) -> Option<String> {
    farthest(beyond).map(|(beyond, times)| format!("{} {times:.1} × the largest measured", beyond.feature))
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
                "--cluster" => "",
                _ => "2",
            };
            let refused = with(&format!("{flag} {value}")).unwrap_err();
            assert!(refused.contains("--at") && refused.contains(&flag), "{refused}");
        }
    }
}
