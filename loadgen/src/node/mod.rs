//! The node under load: samples, memory, processor time beside the floor, and faults against the node.

pub(crate) mod cpu;
pub(crate) mod faults;
pub(crate) mod floor;
pub(crate) mod memory;
pub(crate) mod receivers;
pub(crate) mod samples;
