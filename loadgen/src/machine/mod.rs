//! The generator's machine: settings, descriptors, sockets, processor time and memory.

pub(crate) mod busy;
pub(crate) mod child;
pub(crate) mod descriptors;
pub(crate) mod environment;
pub(crate) mod sockets;
