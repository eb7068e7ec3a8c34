//! The divider's ledger: the part of each limit that each node may hold, and the shares on their way.
//!
//! A part counts as held from the sending of a share on. It is free again once a report says that the holder has taken
//! a smaller one, or [`QUOTA_RESERVED_AGE`] after the last report, when the share must have ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::division::divide;
use super::{QuotaDemand, QuotaId, QuotaLine, QuotaMark, QuotaRate, QuotaReport, QuotaShare, QuotaShares};
use crate::cluster::Term;
use crate::cluster::node::NodeName;
use crate::limits::{
    NODES_MAX, QUOTA_DIVISION_INTERVAL, QUOTA_DIVISION_PAUSE, QUOTA_RAISE_PAUSE, QUOTA_RESERVED_AGE,
    QUOTA_UNCONFIRMED_MAX, QUOTAS_DIVIDED_MAX,
};

/// The limits that this node divides.
#[derive(Debug, Default)]
pub struct QuotaDivider {
    ledgers: BTreeMap<QuotaId, Ledger>,
    /// Node -> shares that have not left.
    waiting: BTreeMap<NodeName, QuotaShares>,
}

/// The division of one limit under one claim of its slot.
#[derive(Debug)]
struct Ledger {
    quota: QuotaId,
    term: Term,
    began: Instant,
    /// The sum of the rates with which nodes came to this ledger.
    met: u64,
    parts: BTreeMap<NodeName, NodePart>,
    /// The number of the last share.
    number: u64,
    divided_at: Instant,
    next_division: Instant,
    /// The moment at which larger shares are told, whether all smaller ones were taken or not. `None`: they were told.
    raise_at: Option<Instant>,
}

/// The part of a node in the limit.
#[derive(Debug)]
struct NodePart {
    incarnation: u64,
    /// The time of sending of the last report, as the holder counts.
    sent_us: u64,
    heard_at: Instant,
    limit: QuotaRate,
    demand: QuotaDemand,
    /// The rate in force at the last report.
    reported: QuotaRate,
    /// Shares that no report has confirmed yet, the largest and oldest first. A later share that is as large replaces
    /// them.
    on_their_way: VecDeque<Unconfirmed>,
    /// The share that the last division has for the node.
    target: QuotaRate,
}

/// A share that the node has, or will have, or never gets.
#[derive(Debug, Clone, Copy)]
struct Unconfirmed {
    number: u64,
    rate: QuotaRate,
}

impl NodePart {
    /// The most that the node may hold.
    fn holds(&self) -> QuotaRate {
        self.on_their_way.front().map_or(self.reported, |share| share.rate.max(self.reported))
    }

    /// Takes the number of the last share that the node took.
    fn confirm(&mut self, number: u64) {
        while self.on_their_way.pop_front_if(|share| share.number <= number).is_some() {}
    }

    /// Notes a share that is sent.
    fn send(&mut self, number: u64, rate: QuotaRate) {
        while self.on_their_way.pop_back_if(|share| share.rate <= rate).is_some() {}
        if self.on_their_way.len() < QUOTA_UNCONFIRMED_MAX {
            self.on_their_way.push_back(Unconfirmed { number, rate });
        } else if let Some(last) = self.on_their_way.back_mut() {
            // The larger rate counts until this share is confirmed.
            last.number = number;
        }
    }
}

impl QuotaDivider {
    /// Takes a report, and answers each limit that this node divides. `term_of` tells the claim with which this node
    /// has the right to order the limit's slot.
    pub fn hear(&mut self, report: &QuotaReport, term_of: impl Fn(QuotaId) -> Option<Term>, now: Instant) {
        for line in &report.lines {
            let Some(term) = term_of(line.quota) else { continue };
            let is_known = self.ledgers.contains_key(&line.quota);
            // Above: the nodes keep to limit ÷ known nodes.
            if !is_known && self.ledgers.len() >= QUOTAS_DIVIDED_MAX {
                continue;
            }
            let ledger = self.ledgers.entry(line.quota).or_insert_with(|| Ledger::new(line.quota, term, now));
            // Another node may have divided meanwhile.
            if ledger.term != term {
                *ledger = Ledger::new(line.quota, term, now);
            }
            if ledger.hear(report, line, now) {
                ledger.tell(&report.node, &mut self.waiting, now);
                if ledger.raise_at.is_some() && !ledger.awaits_smaller() {
                    ledger.raise(&mut self.waiting, now);
                }
            }
        }
    }

    /// Divides the limits that are due. `term_of`: as for [`QuotaDivider::hear`].
    pub fn due(&mut self, term_of: impl Fn(QuotaId) -> Option<Term>, now: Instant) {
        for (quota, ledger) in &mut self.ledgers {
            let has_right = term_of(*quota) == Some(ledger.term);
            if now >= ledger.next_division {
                ledger.divide(now);
                if has_right {
                    ledger.lower(&mut self.waiting, now);
                }
            }
            // Without the right, the shares in force end by themselves.
            if !has_right {
                ledger.raise_at = None;
            } else if ledger.raise_at.is_some_and(|at| now >= at || !ledger.awaits_smaller()) {
                ledger.raise(&mut self.waiting, now);
            }
        }
        self.ledgers.retain(|_, ledger| !ledger.parts.is_empty());
    }

    /// The next shares for a node.
    pub fn poll_shares(&mut self) -> Option<QuotaShares> {
        self.waiting.pop_first().map(|(_, shares)| shares)
    }

    /// The moment of the next [`QuotaDivider::due`]. `None`: this node divides nothing.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.ledgers.values().flat_map(|ledger| [Some(ledger.next_division), ledger.raise_at]).flatten().min()
    }
}

impl Ledger {
    fn new(quota: QuotaId, term: Term, now: Instant) -> Self {
        Self {
            quota,
            term,
            began: now,
            met: 0,
            parts: BTreeMap::new(),
            number: 0,
            divided_at: now,
            // The other nodes report as soon as they hear of the claim.
            next_division: now + QUOTA_DIVISION_PAUSE,
            raise_at: None,
        }
    }

    /// Takes a line of a report. False: the line is late, or has no place.
    fn hear(&mut self, report: &QuotaReport, line: &QuotaLine, now: Instant) -> bool {
        let QuotaReport { node, incarnation, sent_us, .. } = report;
        let known = self.parts.get(node);
        let is_late = known.is_some_and(|part| (*incarnation, *sent_us) <= (part.incarnation, part.sent_us));
        let is_known = known.is_some_and(|part| part.incarnation == *incarnation);
        // This node has a part beside the `NODES_MAX` others.
        if is_late || known.is_none() && self.parts.len() > NODES_MAX {
            return false;
        }
        if !is_known {
            self.meet(report, line, now);
        }
        let part = self.parts.get_mut(node).expect("the node was met");
        part.sent_us = *sent_us;
        part.heard_at = now;
        part.limit = line.limit;
        part.demand = line.demand;
        part.reported = line.rate;
        if let Some(taken) = line.taken.filter(|taken| taken.term == self.term) {
            part.confirm(taken.number);
        }
        true
    }

    /// Opens a part for a node, or for its next life.
    fn meet(&mut self, report: &QuotaReport, line: &QuotaLine, now: Instant) {
        self.met += line.rate.0;
        let part = NodePart {
            incarnation: report.incarnation,
            sent_us: report.sent_us,
            heard_at: now,
            limit: line.limit,
            demand: line.demand,
            reported: line.rate,
            on_their_way: VecDeque::new(),
            target: line.rate,
        };
        self.parts.insert(report.node.clone(), part);
        // The others still have the whole limit. The pause is for nodes that come together.
        self.next_division = self.next_division.min(self.divided_at + QUOTA_DIVISION_PAUSE);
    }

    /// The places a second that this ledger has to give.
    fn budget(&self, now: Instant) -> QuotaRate {
        // Nodes with different configurations: during a roll-out, the smaller limit counts.
        let limit = self.parts.values().map(|part| part.limit).min().unwrap_or_default();
        // A share of the divider before may be in force at a node that is not heard.
        let is_settled = now.saturating_duration_since(self.began) >= QUOTA_RESERVED_AGE;
        if is_settled { limit } else { limit.min(QuotaRate(self.met)) }
    }

    fn free(&self, now: Instant) -> u64 {
        let held: u64 = self.parts.values().map(|part| part.holds().0).sum();
        self.budget(now).0.saturating_sub(held)
    }

    fn divide(&mut self, now: Instant) {
        self.divided_at = now;
        self.next_division = now + QUOTA_DIVISION_INTERVAL;
        self.parts.retain(|_, part| now.saturating_duration_since(part.heard_at) < QUOTA_RESERVED_AGE);
        let demands: Vec<QuotaDemand> = self.parts.values().map(|part| part.demand).collect();
        let targets = divide(self.budget(now), &demands);
        for (part, target) in self.parts.values_mut().zip(targets) {
            part.target = target;
        }
        self.raise_at = Some(now + QUOTA_RAISE_PAUSE);
    }

    /// True while a node may hold more than its target.
    fn awaits_smaller(&self) -> bool {
        self.parts.values().any(|part| part.holds() > part.target)
    }

    /// Tells the smaller shares of a division.
    fn lower(&mut self, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        for node in self.nodes(|part| part.target < part.holds()) {
            self.tell(&node, waiting, now);
        }
    }

    /// Tells the larger shares of a division, as far as there is something free.
    fn raise(&mut self, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        self.raise_at = None;
        for node in self.nodes(|part| part.target > part.holds()) {
            self.tell(&node, waiting, now);
        }
    }

    fn nodes(&self, is_meant: impl Fn(&NodePart) -> bool) -> Vec<NodeName> {
        let meant = self.parts.iter().filter(|(_, part)| is_meant(part));
        meant.map(|(node, _)| node.clone()).collect()
    }

    /// Tells a node its target, or as much of it as is free.
    fn tell(&mut self, node: &NodeName, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        let free = self.free(now);
        let Some(part) = self.parts.get_mut(node) else { return };
        let rate = part.target.min(QuotaRate(part.holds().0 + free));
        self.number += 1;
        part.send(self.number, rate);
        let share = QuotaShare {
            quota: self.quota,
            mark: QuotaMark { term: self.term, number: self.number },
            sent_us: part.sent_us,
            rate,
        };
        let incarnation = part.incarnation;
        let shares = waiting.entry(node.clone()).or_insert_with(|| QuotaShares {
            node: node.clone(),
            incarnation,
            shares: Vec::new(),
        });
        if shares.incarnation != incarnation {
            shares.incarnation = incarnation;
            shares.shares.clear();
        }
        // The later share of a limit replaces the one before it.
        shares.shares.retain(|waiting| waiting.quota != share.quota);
        shares.shares.push(share);
    }
}
