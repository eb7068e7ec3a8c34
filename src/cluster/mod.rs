//! Many nodes: the thread that speaks with the other nodes over NATS, and decides which slots this node holds.

mod bus;
pub(crate) mod calls;
pub(crate) mod exchange;
mod hand_over;
mod heartbeat;
pub(crate) mod quotas;
pub(crate) mod shown;
mod tenure;
pub(crate) mod thread;
mod wire;
