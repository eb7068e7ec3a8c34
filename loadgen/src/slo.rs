//! What a run is held to: `p99<300ms`, `loss=0`, `gift.p99<1s`. Pure.

use serde::{Deserialize, Serialize};

use crate::report::{Report, Verdict};

/// One condition, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) condition: String,
    /// What the run came to, in the condition's unit.
    pub(crate) found: f64,
    pub(crate) holds: bool,
}

/// `p99<…ms` or `loss=0`; the other branch has the whole language.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    P99Below { ms: f64 },
    NoLoss,
}

/// Reads a list of conditions, separated by commas.
///
/// # Errors
/// One line that names the condition that is wrong.
pub(crate) fn parse_all(text: &str) -> Result<Vec<Condition>, String> {
    let condition =
        |text: &str| match text.trim().strip_prefix("p99<").and_then(|value| value.strip_suffix("ms")) {
            Some(ms) => {
                ms.parse().map(|ms| Condition::P99Below { ms }).map_err(|_| format!("{text:?}: no number"))
            }
            None if text.trim() == "loss=0" => Ok(Condition::NoLoss),
            None => Err(format!("{text:?} is no condition like p99<300ms or loss=0")),
        };
    text.split(',').map(condition).collect()
}

impl Condition {
    /// Holds it against what a run found.
    #[must_use]
    pub(crate) fn judge(&self, report: &Report) -> Judged {
        match self {
            Self::P99Below { ms } => Judged {
                condition: format!("p99<{ms}ms"),
                found: report.latency.p99_ms,
                holds: report.latency.count > 0 && report.latency.p99_ms < *ms,
            },
            Self::NoLoss => {
                let holds = report.verdict != Verdict::Violations;
                Judged { condition: "loss=0".into(), found: f64::from(u8::from(!holds)), holds }
            }
        }
    }
}
