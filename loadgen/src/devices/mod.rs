//! The devices of a worker: their sockets and habits (`viewer`), and the judgement of every frame
//! (`watch`).

pub(crate) mod assignment;
pub(crate) mod copies;
mod doors;
pub(crate) mod errands;
pub(crate) mod known;
pub(crate) mod moves;
pub(crate) mod pulls;
pub(crate) mod readable;
pub(crate) mod streams;
mod track;
pub(crate) mod type_figures;
pub(crate) mod viewer;
pub(crate) mod watch;
