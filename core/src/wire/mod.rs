//! How things are spelt: the frames devices get, what devices may say, what publishers send, and why connections
//! close. Pure: bytes in, values out, and back.

pub mod close;
pub mod device;
pub mod frame;
pub mod publish;
pub mod reader;
