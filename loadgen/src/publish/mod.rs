//! The publisher: requests at their time, attempts, and the answers of the publisher door.

pub(crate) mod answer;
pub(crate) mod attempts;
pub(crate) mod publisher;
pub(crate) mod request;
