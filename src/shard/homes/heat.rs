//! The heat of a room: the number of shards for further members. Pure.
//!
//! Heat changes placement alone. A member stays on its shard, and the room's order at its home.
//!
//! Example: 4 500 members at 2 000 a shard ask for 3 shards. The room gives the third back at 2 000 members,
//! since twice as many then fit two shards.

/// Bounds past which a room takes further shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeatRules {
    /// Number of shards.
    pub shards: usize,
    /// Members on one shard before the next shard is added.
    pub hot_members: u64,
    /// Cost of the passes on one shard before the next shard is added, in thousandths of its time.
    pub hot_permille: u64,
}

/// The heat of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heat {
    width: usize,
    width_min: usize,
}

/// The two reasons for heat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fuel {
    /// Members of the room, or the expected audience if larger.
    pub members: u64,
    /// Cost of the passes on all shards together, in thousandths of a shard's time.
    pub permille: u64,
}

impl Heat {
    /// The heat of a room whose home will do.
    pub const COLD: Self = Self { width: 1, width_min: 1 };

    /// The heat of a room in `shards.hot_rooms`: on all of `shards`, for good.
    #[must_use]
    pub fn listed(shards: usize) -> Self {
        Self { width: shards, width_min: shards }
    }

    /// Number of shards for further members; 1: the home alone.
    #[must_use]
    pub fn width(self) -> usize {
        self.width
    }

    /// Grows at once, and shrinks only once twice the fuel would fit: a room at the edge must not go to and
    /// fro. True if the width has changed.
    pub fn feed(&mut self, fuel: Fuel, rules: &HeatRules) -> bool {
        let doubled =
            Fuel { members: fuel.members.saturating_mul(2), permille: fuel.permille.saturating_mul(2) };
        let width = self.width.clamp(rules.width(fuel), rules.width(doubled)).max(self.width_min);
        std::mem::replace(&mut self.width, width) != width
    }
}

impl HeatRules {
    /// A shard for each begun `hot_members`, or for each begun `hot_permille`; the larger number counts.
    pub(crate) fn width(&self, fuel: Fuel) -> usize {
        let by_members = fuel.members.div_ceil(self.hot_members.max(1));
        let by_cost = fuel.permille.div_ceil(self.hot_permille.max(1));
        usize::try_from(by_members.max(by_cost)).unwrap_or(usize::MAX).clamp(1, self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HeatRules = HeatRules { shards: 4, hot_members: 2000, hot_permille: 300 };

    fn members(members: u64) -> Fuel {
        Fuel { members, permille: 0 }
    }

    #[test]
    fn a_room_takes_one_more_shard_for_each_further_hot_members() {
        let mut heat = Heat::COLD;
        for (count, width) in [(0, 1), (2000, 1), (2001, 2), (4000, 2), (4001, 3), (6001, 4), (1_000_000, 4)]
        {
            heat.feed(members(count), &RULES);
            assert_eq!(heat.width(), width, "{count} members");
        }
    }

    #[test]
    fn a_room_at_the_edge_does_not_go_to_and_fro() {
        let mut heat = Heat::COLD;
        assert!(heat.feed(members(2001), &RULES));
        for count in [2000, 1999, 2001, 1500, 1001] {
            assert!(!heat.feed(members(count), &RULES), "{count} members");
        }
        assert!(heat.feed(members(1000), &RULES), "half as many");
        assert_eq!(heat.width(), 1);
    }

    #[test]
    fn few_members_that_cost_much_are_as_hot_as_many() {
        let mut heat = Heat::COLD;
        assert!(heat.feed(Fuel { members: 900, permille: 310 }, &RULES));
        assert_eq!(heat.width(), 2);
        assert!(!heat.feed(Fuel { members: 900, permille: 160 }, &RULES));
        assert!(heat.feed(Fuel { members: 900, permille: 150 }, &RULES));
        assert_eq!(heat.width(), 1);
    }

    #[test]
    fn a_listed_room_stays_on_all_shards() {
        let mut heat = Heat::listed(4);
        assert!(!heat.feed(members(3), &RULES));
        assert_eq!(heat.width(), 4);
    }

    #[test]
    fn one_shard_is_all_a_node_of_one_shard_has() {
        let mut heat = Heat::COLD;
        assert!(!heat.feed(members(1_000_000), &HeatRules { shards: 1, ..RULES }));
    }
}
