//! The node's places for connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The node's places for connections: as many as its descriptors allow.
#[derive(Debug, Clone)]
pub struct Seats {
    taken: Arc<AtomicU64>,
    seats_max: u64,
}

/// One taken place; dropping it gives it back.
#[derive(Debug)]
pub struct Seat(Arc<AtomicU64>);

impl Seats {
    /// `seats_max` places, all free.
    #[must_use]
    pub fn new(seats_max: u64) -> Self {
        Self { taken: Arc::default(), seats_max }
    }

    /// Takes a place, unless all are taken.
    #[must_use]
    pub fn take(&self) -> Option<Seat> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&self.taken));
        (before < self.seats_max).then_some(seat)
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
