//! A run before it runs: `file` holds the scenario as written, `plan` the checked plan made from it. Pure.
//!
//! The seed fixes every random draw of a plan, so a run can be repeated.

pub(crate) mod audience;
pub(crate) mod faults;
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
