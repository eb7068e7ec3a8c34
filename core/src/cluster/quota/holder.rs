//! The shares of one node: its demand goes to the dividers, and each share is in force until it ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::{QuotaDemand, QuotaId, QuotaLine, QuotaMark, QuotaRate, QuotaReport, QuotaShares};
use crate::cluster::Term;
use crate::cluster::node::NodeName;
use crate::limits::{QUOTA_REPORT_INTERVAL, QUOTA_SHARE_AGE_MAX};

/// Readings of a limit's counters: two intervals make up the second of its demand.
const READINGS: usize = 3;

/// The limits of a node, and its shares of them.
#[derive(Debug)]
pub struct QuotaHolder {
    node: NodeName,
    incarnation: u64,
    /// The begin of the count of microseconds in reports.
    began: Instant,
    /// The time of sending of the last report. Each has a time of its own.
    sent_us: u64,
    held: BTreeMap<QuotaId, HeldQuota>,
    next_report: Instant,
    /// Limits with a report that has not left.
    unreported: BTreeSet<QuotaId>,
}

/// A limit of this node, as its doors know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaAsked {
    /// The limit.
    pub quota: QuotaId,
    /// Places a second of the whole cluster.
    pub limit: QuotaRate,
    /// Nodes among which the limit is divided evenly for want of a share, this one included.
    pub nodes: usize,
    /// Places asked for since the begin, for reliable messages.
    pub reliable: u64,
    /// Places asked for since the begin, for all else.
    pub others: u64,
}

/// A limit, and the share in force.
#[derive(Debug)]
struct HeldQuota {
    limit: QuotaRate,
    nodes: usize,
    demand: QuotaDemand,
    /// The oldest first.
    readings: VecDeque<Reading>,
    share: Option<HeldShare>,
    taken: Option<QuotaMark>,
}

/// Counters of a limit at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    reliable: u64,
    others: u64,
}

#[derive(Debug, Clone, Copy)]
struct HeldShare {
    rate: QuotaRate,
    until: Instant,
}

impl HeldQuota {
    fn share(&self, now: Instant) -> Option<QuotaRate> {
        self.share.filter(|share| share.until > now).map(|share| share.rate)
    }

    fn rate(&self, now: Instant) -> QuotaRate {
        // A reload may have lowered the limit below the share.
        self.share(now).map_or_else(|| self.limit.among(self.nodes), |share| share.min(self.limit))
    }

    fn read(&mut self, asked: QuotaAsked, now: Instant) {
        let QuotaAsked { reliable, others, .. } = asked;
        if self.readings.len() == READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading { at: now, reliable, others });
        let oldest = self.readings[0];
        let within = now.saturating_duration_since(oldest.at);
        let rate = |count: u64, before: u64| demand_of(count.saturating_sub(before), within);
        self.demand =
            QuotaDemand { reliable: rate(reliable, oldest.reliable), others: rate(others, oldest.others) };
    }
}

/// The rate of `places` in this time, up to the largest rate. Zero for no time.
fn demand_of(places: u64, within: Duration) -> QuotaRate {
    let permille = (u128::from(places) * 1_000_000_000).checked_div(within.as_micros()).unwrap_or(0);
    let rate = u64::try_from(permille).ok().and_then(QuotaRate::of_permille);
    rate.unwrap_or_else(|| QuotaRate::per_second(u64::MAX))
}

impl QuotaHolder {
    /// A holder without limits.
    #[must_use]
    pub fn new(node: NodeName, incarnation: u64, now: Instant) -> Self {
        Self {
            node,
            incarnation,
            began: now,
            sent_us: 0,
            held: BTreeMap::new(),
            next_report: now,
            unreported: BTreeSet::new(),
        }
    }

    /// Takes the node's limits in place of those before, and notes the demand once in
    /// [`QUOTA_REPORT_INTERVAL`]. Then a report of each limit is due. A limit without a share is reported at each look.
    pub fn look(&mut self, asked: &[QuotaAsked], now: Instant) {
        self.held.retain(|quota, _| asked.iter().any(|asked| asked.quota == *quota));
        let is_due = now >= self.next_report;
        if is_due {
            self.next_report = now + QUOTA_REPORT_INTERVAL;
        }
        for asked in asked {
            let is_new = !self.held.contains_key(&asked.quota);
            let held = self.held.entry(asked.quota).or_insert_with(|| HeldQuota {
                limit: asked.limit,
                nodes: asked.nodes,
                demand: QuotaDemand::default(),
                readings: VecDeque::with_capacity(READINGS),
                share: None,
                taken: None,
            });
            held.limit = asked.limit;
            held.nodes = asked.nodes;
            if is_due || is_new {
                held.read(*asked, now);
            }
            if is_due || held.share(now).is_none() {
                self.unreported.insert(asked.quota);
            }
        }
    }

    /// Takes shares. `heard` tells the highest term that this node has heard of a limit's slot: a former divider is
    /// heard no more.
    pub fn take(&mut self, shares: &QuotaShares, heard: impl Fn(QuotaId) -> Term, now: Instant) {
        if shares.node != self.node || shares.incarnation != self.incarnation {
            return;
        }
        for share in &shares.shares {
            let Some(held) = self.held.get_mut(&share.quota) else { continue };
            let is_former = share.mark.term < heard(share.quota) || held.taken >= Some(share.mark);
            if is_former || share.sent_us > self.sent_us {
                continue;
            }
            // The time of sending of the report counts: NATS may have kept the share for long.
            let until = self.began + Duration::from_micros(share.sent_us) + QUOTA_SHARE_AGE_MAX;
            if until <= now {
                continue;
            }
            let before = held.rate(now);
            held.taken = Some(share.mark);
            held.share = Some(HeldShare { rate: share.rate, until });
            // The others wait for the difference.
            if held.rate(now) < before {
                self.unreported.insert(share.quota);
            }
        }
    }

    /// Ends all shares: the clock has stood still, and they are older than they seem.
    pub fn forget_shares(&mut self) {
        self.held.values_mut().for_each(|held| held.share = None);
    }

    /// The next report that is due, and the divider that it is for. A limit without a divider is not reported.
    pub fn poll_report(
        &mut self,
        divider: impl Fn(QuotaId) -> Option<NodeName>,
        now: Instant,
    ) -> Option<(NodeName, QuotaReport)> {
        let to = loop {
            let first = *self.unreported.first()?;
            match divider(first) {
                Some(to) => break to,
                None => self.unreported.remove(&first),
            };
        };
        let mut lines = Vec::new();
        self.unreported.retain(|quota| {
            let is_other = divider(*quota).as_ref() != Some(&to);
            if let Some(held) = self.held.get(quota).filter(|_| !is_other) {
                let HeldQuota { limit, demand, taken, .. } = *held;
                lines.push(QuotaLine { quota: *quota, limit, demand, rate: held.rate(now), taken });
            }
            is_other
        });
        let since = now.saturating_duration_since(self.began);
        self.sent_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(self.sent_us + 1);
        let report = QuotaReport {
            node: self.node.clone(),
            incarnation: self.incarnation,
            sent_us: self.sent_us,
            lines,
        };
        Some((to, report))
    }

    /// The rate in force for a limit; `None`: the node has no such limit.
    #[must_use]
    pub fn rate(&self, quota: QuotaId, now: Instant) -> Option<QuotaRate> {
        self.held.get(&quota).map(|held| held.rate(now))
    }

    /// True while the node has a share of the limit from its divider.
    #[must_use]
    pub fn has_share(&self, quota: QuotaId, now: Instant) -> bool {
        self.held.get(&quota).is_some_and(|held| held.share(now).is_some())
    }
}
