//! A run with faults or several nodes over time: the faults and their wake, and a text table of the nodes on one axis
//! of time. Pure.

use std::fmt;

use crate::figures::timeline::Moment;
use crate::figures::{ratio, rounded};
use crate::node::faults::FaultDone;
use crate::node::samples::NodeSample;
use crate::report::Report;

/// Most rows of the table: a screen.
const ROWS_MAX: u64 = 24;
/// Seconds of a row.
const ROW_SECONDS: [u64; 10] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
/// Nodes of the table: a terminal has no columns for more. JSON and page have all.
const NODES_SHOWN_MAX: usize = 6;
/// The length of a moment of the timelines.
const MOMENT_MS: u64 = 250;
/// Messages due so long before a fault may be on their way when it happens: rooms gather for a part of it.
const UNDER_WAY_MS: u64 = MOMENT_MS;

/// A fault, and the run from there until the next fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wake<'a> {
    /// Counted from 1, by time.
    pub(crate) number: usize,
    pub(crate) fault: &'a FaultDone,
    /// Messages that were refused or are unknown.
    pub(crate) failed: u64,
    /// The longest latency of a message due meanwhile, reliable messages included. `None`: no message was due.
    pub(crate) longest_ms: Option<f64>,
}

impl Report {
    /// Each fault with its wake.
    pub(crate) fn wakes(&self) -> impl Iterator<Item = Wake<'_>> {
        let nexts = self.faults.iter().skip(1).map(|fault| fault.at_ms).chain([u64::MAX]);
        self.faults.iter().zip(nexts).enumerate().map(|(place, (fault, next_ms))| Wake {
            number: place + 1,
            fault,
            failed: self.failed_in(fault.at_ms, next_ms),
            longest_ms: self.longest_ms_in(
                fault.at_ms.saturating_sub(UNDER_WAY_MS),
                next_ms.saturating_sub(UNDER_WAY_MS),
            ),
        })
    }

    /// Messages that were refused or are unknown. A second belongs to the time of its last millisecond.
    fn failed_in(&self, from_ms: u64, to_ms: u64) -> u64 {
        let is_in = |second: u64| (from_ms..to_ms).contains(&(second * 1_000 + 999));
        self.failed_by_second.iter().filter(|(second, _)| is_in(**second)).map(|(_, failed)| failed).sum()
    }

    /// A moment belongs to the time of its last millisecond.
    fn longest_ms_in(&self, from_ms: u64, to_ms: u64) -> Option<f64> {
        let is_in = |moment: &&Moment| (from_ms..to_ms).contains(&(moment.at_ms + MOMENT_MS - 1));
        let of_types = self.types.rows().iter().flat_map(|row| &row.latency_over_time);
        let of_reliable = self.reliable.iter().flat_map(|reliable| &reliable.apply_over_time);
        of_types.chain(of_reliable).filter(is_in).map(|moment| moment.max_ms).max_by(f64::total_cmp)
    }

    /// The samples of each node, or of the only node.
    fn lanes(&self) -> Vec<(&str, Vec<NodeSample>)> {
        if self.nodes.is_empty() {
            let only = self.server.iter().map(|sample| NodeSample {
                at_ms: sample.at_ms,
                cpu: sample.cpu,
                connections: sample.connections,
                ..NodeSample::default()
            });
            return vec![("node", only.collect())];
        }
        let shown = self.nodes.iter().take(NODES_SHOWN_MAX);
        shown.map(|node| (&*node.name, node.samples.clone())).collect()
    }
}

/// The faults of a report and its table over time; nothing for a lone node without a fault.
pub(super) struct OverTime<'a>(pub(super) &'a Report);

impl fmt::Display for OverTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        for wake in report.wakes() {
            writeln!(f, "{wake}")?;
        }
        if (report.nodes.is_empty() && report.faults.is_empty()) || report.server.is_empty() {
            return Ok(());
        }
        let lanes = report.lanes();
        writeln!(
            f,
            "over time    of each node: connections, processors; failed: messages refused or unknown; \
             latency: the longest, in ms"
        )?;
        write!(f, "{:>13}", "seconds")?;
        lanes.iter().try_for_each(|(name, _)| write!(f, " {name:>14}"))?;
        writeln!(f, " {:>8} {:>8}  faults", "failed", "latency")?;
        let seconds = rounded(report.seconds.ceil()).max(1);
        let step = ROW_SECONDS.into_iter().find(|step| seconds.div_ceil(*step) <= ROWS_MAX);
        let step = step.unwrap_or_else(|| seconds.div_ceil(ROWS_MAX));
        for from in (0..seconds).step_by(usize::try_from(step).unwrap_or(1)) {
            self.write_row(f, &lanes, from, from + step)?;
        }
        if report.nodes.len() > NODES_SHOWN_MAX {
            writeln!(f, "  {} further nodes: --json, --html", report.nodes.len() - NODES_SHOWN_MAX)?;
        }
        Ok(())
    }
}

impl OverTime<'_> {
    /// The row of the seconds from `from` to `to`.
    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        lanes: &[(&str, Vec<NodeSample>)],
        from: u64,
        to: u64,
    ) -> fmt::Result {
        let Self(report) = self;
        let ms = |second: u64| i64::try_from(second * 1_000).unwrap_or(i64::MAX);
        // A sample tells of the second before it.
        let is_in = |at_ms: i64| ms(from) < at_ms && at_ms <= ms(to);
        write!(f, "{from:>5} – {to:>5}")?;
        for (_, samples) in lanes {
            let of_row: Vec<_> = samples.iter().filter(|sample| is_in(sample.at_ms)).collect();
            match of_row.last() {
                Some(NodeSample { connections, .. }) => {
                    let cpu: f64 = of_row.iter().map(|sample| sample.cpu).sum();
                    write!(f, " {connections:>9} {:>4.2}", cpu / ratio(of_row.len() as u64, 1))?;
                }
                None => write!(f, " {:>14}", "silent")?,
            }
        }
        let longest_ms = report.longest_ms_in(from * 1_000, to * 1_000);
        let longest = longest_ms.map_or_else(|| "–".to_owned(), |longest_ms| format!("{longest_ms:.0}"));
        write!(f, " {:>8} {longest:>8}", report.failed_in(from * 1_000, to * 1_000))?;
        for Wake { number, fault, .. } in report.wakes().filter(|wake| wake.fault.took_ms.is_some()) {
            if (from * 1_000..to * 1_000).contains(&fault.at_ms) {
                write!(f, "  {number} {}", fault.title())?;
            }
        }
        writeln!(f)
    }
}

impl fmt::Display for Wake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, fault, failed, longest_ms } = self;
        write!(f, "fault {number:<6} {fault}")?;
        if fault.took_ms.is_none() {
            return Ok(());
        }
        write!(f, "; until the next {failed} messages refused or unknown")?;
        longest_ms.map_or(Ok(()), |longest_ms| write!(f, ", latency at most {longest_ms:.0} ms"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::node::samples::{NodeFigures, Sample};
    use crate::report::tests::made_up;

    fn fault(at_ms: u64, name: &str) -> FaultDone {
        let ended = "exit status: 0".to_owned();
        FaultDone { at_ms, took_ms: Some(40), name: Some(name.into()), run: "c".into(), ended, holds: true }
    }

    /// The made-up run of 12 s with two nodes: the second is silent from 4 to 8 s.
    pub(in crate::report) fn with_faults() -> Report {
        let mut report = made_up();
        report.server =
            (0..=12).map(|second| Sample { at_ms: second * 1_000, ..Sample::default() }).collect();
        let node = |name: &str, silent: std::ops::RangeInclusive<i64>| NodeFigures {
            name: name.into(),
            door: "http://127.0.0.1:1".into(),
            samples: (0..=12)
                .filter(|second| !silent.contains(second))
                .map(|second| NodeSample {
                    at_ms: second * 1_000,
                    cpu: 0.5,
                    connections: 500,
                    slots: Some(128),
                    ..NodeSample::default()
                })
                .collect(),
        };
        report.nodes = vec![node("node-1", 99..=99), node("node-2", 4..=8)];
        report.faults = vec![fault(3_500, "kill node-2"), fault(7_200, "start node-2")];
        report.failed_by_second = [(2, 1), (3, 20), (4, 9), (8, 2)].into();
        report
    }

    #[test]
    fn a_fault_answers_for_what_follows_until_the_next() {
        let report = with_faults();
        let wakes: Vec<_> = report.wakes().map(|wake| (wake.failed, wake.longest_ms)).collect();
        assert_eq!(wakes, [(29, Some(146.52)), (2, Some(151.06))]);
        let said = report.to_string();
        assert!(
            said.contains(
                "fault 1      after 3500 ms: kill node-2: exit status: 0, took 40 ms; until the next 29 messages \
                 refused or unknown, latency at most 147 ms\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn the_nodes_stand_on_one_axis_of_time_beside_the_faults() {
        let said = with_faults().to_string();
        let rows: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("over time")).collect();
        assert_eq!(rows[1].split_whitespace().last(), Some("faults"));
        assert_eq!(
            rows[5], "    3 –     4       500 0.50         silent       20      127  1 kill node-2",
            "{said}"
        );
        assert_eq!(rows[4], "    2 –     3       500 0.50       500 0.50        1      149", "{said}");
        assert!(rows[9].ends_with("2 start node-2"), "{said}");
        assert!(!made_up().to_string().contains("over time"));
    }

    #[test]
    fn a_long_run_of_many_nodes_fits_a_screen() {
        let mut report = with_faults();
        report.seconds = 3_600.0;
        report.nodes = vec![report.nodes[0].clone(); 9];
        let said = report.to_string();
        let table = said.lines().skip_while(|line| !line.starts_with("over time")).skip(2);
        assert_eq!(table.take_while(|line| !line.contains("3 further nodes")).count(), 12);
        assert!(said.lines().all(|line| line.chars().count() < 160), "{said}");
    }
}
