//! A run before it runs: the scenario as a file says it (`file`), and the checked plan that comes of it (`plan`). Pure.
//!
//! Everything in a plan is drawn from its seed, so a run can be repeated.

pub(crate) mod audience;
pub(crate) mod file;
pub(crate) mod habits;
pub(crate) mod mix;
pub(crate) mod payload;
pub(crate) mod plan;
mod resolve;
pub(crate) mod schedule;
pub(crate) mod seating;
pub(crate) mod shape;
pub(crate) mod thresholds;
pub(crate) mod units;
