//! Commands that learn from several runs: the most that holds, a node's model, the nodes an audience needs, a comparison.

pub(crate) mod capacity;
pub(crate) mod compare;
pub(crate) mod find_max;
pub(crate) mod model;
pub(crate) mod sweep;
