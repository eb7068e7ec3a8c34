//! The node's doors as a device and a publisher speak with them: addresses, handshakes, frames, pages. No
//! judgement.

pub(crate) mod doors;
pub(crate) mod exchange;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod http;
pub(crate) mod page;
pub(crate) mod route;
