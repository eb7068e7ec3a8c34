//! Many nodes: the thread that speaks with the other nodes over NATS, and decides which slots this node holds.

pub(crate) mod calls;
pub(crate) mod exchange;
mod wire;
