//! The worker processes of a run, on this machine or on others, and the words between workers and
//! coordinator.

pub(crate) mod listen;
pub(crate) mod preflight;
pub(crate) mod processes;
pub(crate) mod remote;
pub(crate) mod words;
pub(crate) mod worker;
