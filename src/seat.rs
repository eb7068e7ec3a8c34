//! The node's places for connections: as many as its file descriptors allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The node's places for connections. A clone counts the same places.
#[derive(Debug, Clone)]
pub struct Seats {
    taken: Arc<AtomicU64>,
    seats_max: u64,
}

/// A taken place. Dropping the seat frees the place.
#[derive(Debug)]
pub struct Seat(Arc<AtomicU64>);

impl Seats {
    /// `seats_max` places, all free.
    #[must_use]
    pub fn new(seats_max: u64) -> Self {
        Self { taken: Arc::default(), seats_max }
    }

    /// Takes a place. `None` if every place is taken.
    #[must_use]
    pub fn take(&self) -> Option<Seat> {
        // Added first and given back past the limit: two doors that ask at once cannot both take the last
        // place.
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&self.taken));
        (before < self.seats_max).then_some(seat)
    }

    /// The number of taken places. It may exceed the limit for a moment, while a refused caller gives its
    /// place back.
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
