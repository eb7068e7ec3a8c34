//! The node under load: its samples, its memory, its processor time beside the floor, and the faults that are done to it.

pub(crate) mod cpu;
pub(crate) mod faults;
pub(crate) mod floor;
pub(crate) mod memory;
pub(crate) mod receivers;
pub(crate) mod samples;
