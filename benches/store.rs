//! What it costs to make messages durable, and how long a store takes to open after its process was killed.
fn main() {}
