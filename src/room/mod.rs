//! The pure core: a room's order, buffer, history and accounts.
pub mod id;
pub mod message;
pub mod pace;
pub mod view;
