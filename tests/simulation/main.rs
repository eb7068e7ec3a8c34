//! The simulated world: the engine's own shards under thousands of drawn schedules, with a virtual clock.
//! Devices stall, leave and join in the middle of a pass.
//!
//! Each seed is one life of a small node. A failing seed is printed with the end of its trace.
//! `ROOMCAST_SEED=n` replays seed n alone, with the whole trace. `ROOMCAST_SEEDS=n` draws n seeds,
//! `ROOMCAST_FROM=n` begins at seed n.

#![expect(clippy::unwrap_used, reason = "a test may fail at any line")]
#![expect(clippy::cast_possible_truncation, reason = "lengths of test frames fit")]

mod behind;
mod budget;
mod crowd;
mod device;
mod disk;
mod elsewhere;
mod flow;
mod hours;
mod keeps;
mod ledger;
mod node;
mod oracle;
mod promotion;
mod publisher;
mod quiet;
mod receipts;
mod regressions;
mod scatter;
mod slow;
mod socket;
mod storm;
mod tokens;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Coverage, World};

/// The least number of times that each rare branch is reached.
const REACHED_MIN: u64 = 50;
const SEEDS: u64 = 1000;
const BRANCHES: [&str; 43] = [
    "latest values that follow",
    "history piece",
    "slow link",
    "partial write",
    "remainder",
    "behind",
    "refresh",
    "lane full",
    "join during a pass",
    "leave during a pass",
    "urgent flush during a pass",
    "forgotten room",
    "drain",
    "carry",
    "catching up",
    "read from store",
    "reset: epoch_changed",
    "reset: ahead",
    "recall",
    "expiry hole",
    "store error in flight",
    "durable after an error",
    "duplicate in flight",
    "welcome without epoch",
    "close stream_changed",
    "crash",
    "clock jump",
    "bad page",
    "room aside",
    "parked join",
    "parked publish",
    "read beside the writer",
    "late ack for an earlier segment",
    "device on two connections",
    "forgotten stream",
    "applied",
    "promoted",
    "demoted",
    "member on a scattered shard",
    "window widened",
    "window narrowed",
    "stretched",
    "counts add up",
];

fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    if number("ROOMCAST_SEED").is_some() {
        world.trace_max = usize::MAX;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        print(&format!("seed {seed} failed; the end of its trace:"));
        world.trace.iter().for_each(|line| print(line));
        print(&format!("replay it with ROOMCAST_SEED={seed}"));
        resume_unwind(panic);
    }
    world
}

fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn the_contract_holds_under_every_schedule_and_each_rare_branch_is_reached() {
    if let Some(seed) = number("ROOMCAST_SEED") {
        let world = live(seed);
        world.trace.iter().for_each(|line| print(line));
        return;
    }
    let seeds = number("ROOMCAST_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    let from = number("ROOMCAST_FROM").unwrap_or(0);
    for seed in from..from + seeds {
        for (branch, times) in live(seed).coverage.0 {
            *coverage.0.entry(branch).or_default() += times;
        }
    }
    print(&format!("{seeds} seeds; how often each rare branch was reached:"));
    for branch in BRANCHES {
        let times = coverage.0.get(branch).copied().unwrap_or(0);
        print(&format!("  {branch:<28}{times:>9}"));
        assert!(times >= REACHED_MIN || seeds < SEEDS, "{branch} was reached {times} times");
    }
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        assert_eq!(live(seed).digest, live(seed).digest, "seed {seed}");
    }
}
