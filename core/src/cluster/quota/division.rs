//! The division of a limit by demand, in four steps. Each step takes from the rest of the step before.
//!
//! 1. Each node gets a place a second, or an even part of a limit with fewer places than nodes.
//! 2. Demand for reliable messages.
//! 3. All other demand.
//! 4. An even part of the rest for each node, so that a node that wakes up finds places.
//!
//! Steps 2 and 3 are max-min fair (Bertsekas and Gallager, Data Networks, 1992, §6.5.2): the smallest wishes are met
//! whole, and the others get an equal level. Example: of 100 places for wishes of 10, 60 and 80, the nodes get 10, 45
//! and 45.

use super::{QuotaDemand, QuotaRate};

/// A place a second.
const ONE: u64 = 1000;

/// Divides a limit among nodes with these demands. The sum of the parts is at most the limit, and short of it by less
/// than a thousandth of a place for each node.
pub(super) fn divide(limit: QuotaRate, demands: &[QuotaDemand]) -> Vec<QuotaRate> {
    let nodes = demands.len().max(1) as u64;
    let least = ONE.min(limit.0 / nodes);
    let mut parts = vec![least; demands.len()];
    let mut rest = limit.0 - least * demands.len() as u64;
    let reliable: Vec<u64> = demands.iter().map(|demand| demand.reliable.0).collect();
    rest -= fill(&mut parts, &reliable, rest);
    let all: Vec<u64> = demands.iter().map(|demand| demand.reliable.0 + demand.others.0).collect();
    rest -= fill(&mut parts, &all, rest);
    let even = rest / nodes;
    parts.into_iter().map(|part| QuotaRate(part + even)).collect()
}

/// Raises parts towards `wanted`, by at most `rest` in sum and by an equal level where that does not suffice. Returns
/// the sum of the raises.
fn fill(parts: &mut [u64], wanted: &[u64], rest: u64) -> u64 {
    let mut lacking: Vec<(u64, usize)> =
        parts.iter().zip(wanted).map(|(part, wanted)| wanted.saturating_sub(*part)).zip(0..).collect();
    lacking.sort_unstable();
    let mut given = 0;
    let mut waiting = lacking.len() as u64;
    for (lack, at) in lacking {
        let raise = lack.min((rest - given) / waiting);
        parts[at] += raise;
        given += raise;
        waiting -= 1;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(places: u64) -> QuotaRate {
        QuotaRate::per_second(places)
    }

    /// Parts in whole places, for demands of (reliable, others).
    fn parts(limit: u64, demands: &[(u64, u64)]) -> Vec<u64> {
        let demands: Vec<QuotaDemand> = demands
            .iter()
            .map(|(reliable, others)| QuotaDemand { reliable: rate(*reliable), others: rate(*others) })
            .collect();
        divide(rate(limit), &demands).into_iter().map(|part| part.0 / ONE).collect()
    }

    #[test]
    fn small_wishes_are_met_and_the_others_get_an_equal_level() {
        assert_eq!(parts(100, &[(0, 10), (0, 60), (0, 80)]), [10, 45, 45]);
    }

    #[test]
    fn reliable_demand_is_met_before_all_other_demand() {
        assert_eq!(parts(100, &[(70, 0), (0, 500), (0, 500)]), [70, 15, 15]);
        assert_eq!(parts(100, &[(70, 900), (20, 0), (0, 500)]), [74, 20, 5], "and the rest is shared alike");
        assert_eq!(parts(100, &[(500, 0), (500, 0), (0, 500)]), [49, 49, 1], "each node keeps a place");
    }

    #[test]
    fn what_nobody_wants_is_divided_evenly() {
        assert_eq!(parts(100, &[(0, 0), (0, 40)]), [30, 69]);
        assert_eq!(parts(100, &[(0, 0); 4]), [25; 4]);
    }

    #[test]
    fn fewer_places_than_nodes_are_shared_alike() {
        let demands = [QuotaDemand { others: rate(50), ..QuotaDemand::default() }; 10];
        assert_eq!(divide(rate(2), &demands), [QuotaRate(200); 10]);
    }

    #[test]
    fn the_parts_of_any_demand_add_up_to_the_limit() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let limit = random.u64(1..3000);
            let nodes = random.usize(1..66);
            let mut demand = || rate(random.u64(0..4) * random.u64(0..500));
            let demands: Vec<QuotaDemand> =
                (0..nodes).map(|_| QuotaDemand { reliable: demand(), others: demand() }).collect();
            let parts = divide(rate(limit), &demands);
            let sum: u64 = parts.iter().map(|part| part.0).sum();
            let whole = limit * ONE;
            assert!(sum <= whole && sum + 2 * nodes as u64 > whole, "seed {seed}: {sum} of {whole}");
            let least = ONE.min(whole / nodes as u64);
            assert!(parts.iter().all(|part| part.0 >= least), "seed {seed}");
        }
    }

    #[test]
    fn no_demand_no_node_and_the_largest_numbers_are_no_trouble() {
        assert_eq!(divide(rate(5), &[]), []);
        let most = QuotaDemand { reliable: rate(u64::MAX), others: rate(u64::MAX) };
        let parts = divide(rate(u64::MAX), &[most; 65]);
        assert!(parts.iter().all(|part| part.0.abs_diff(parts[0].0) <= 1), "{parts:?}");
    }
}
