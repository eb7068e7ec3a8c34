//! The machine that the generator runs on: its settings, descriptors and sockets, and the time of its processors.

pub(crate) mod busy;
pub(crate) mod descriptors;
pub(crate) mod environment;
pub(crate) mod sockets;
