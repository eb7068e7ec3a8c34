//! Bytes in, values out, and back: frames to devices, frames from devices, publish requests, and the close
//! table.
//!
//! Pure: no socket, no clock, no state of a room.

pub mod close;
pub mod device;
pub mod frame;
pub mod ijson;
pub mod publish;
pub mod reader;
