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
    accounts: BTreeMap<NodeName, Account>,
    /// The number of the last share.
    number: u64,
    divided_at: Instant,
    next_division: Instant,
    /// The moment at which larger shares are told, whether all smaller ones were taken or not. `None`: they were told.
    raise_at: Option<Instant>,
}

/// A node with a part of the limit.
#[derive(Debug)]
struct Account {
    incarnation: u64,
    /// The time of sending of the last report, as the holder counts.
    sent_us: u64,
    heard_at: Instant,
    limit: QuotaRate,
    demand: QuotaDemand,
    /// The rate in force at the last report.
    reported: QuotaRate,
    /// Shares that no report has confirmed yet, the largest and oldest first. A share goes when a later one is as large.
    on_their_way: VecDeque<Unconfirmed>,
    /// The part of the last division.
    target: QuotaRate,
}

/// A share that the node has, or will have, or never gets.
#[derive(Debug, Clone, Copy)]
struct Unconfirmed {
    number: u64,
    rate: QuotaRate,
}

impl Account {
    /// The most that the node may hold.
    fn holds(&self) -> QuotaRate {
        self.on_their_way.front().map_or(self.reported, |share| share.rate.max(self.reported))
    }

    /// Takes the number of the last share that the node took.
    fn confirm(&mut self, number: u64) {
        while self.on_their_way.pop_front_if(|share| share.number <= number).is_some() {}
    }

    fn send(&mut self, number: u64, rate: QuotaRate) {
        while self.on_their_way.pop_back_if(|share| share.rate <= rate).is_some() {}
        if self.on_their_way.len() < QUOTA_UNCONFIRMED_MAX {
            self.on_their_way.push_back(Unconfirmed { number, rate });
        } else if let Some(last) = self.on_their_way.back_mut() {
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
                // Without the right, the parts in force end by themselves.
                if has_right {
                    ledger.lower(&mut self.waiting, now);
                }
            }
            let is_time = ledger.raise_at.is_some_and(|at| now >= at || !ledger.awaits_smaller());
            if is_time && has_right {
                ledger.raise(&mut self.waiting, now);
            } else if is_time {
                ledger.raise_at = None;
            }
        }
        self.ledgers.retain(|_, ledger| !ledger.accounts.is_empty());
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
            accounts: BTreeMap::new(),
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
        let known = self.accounts.get(node);
        let is_late =
            known.is_some_and(|account| (*incarnation, *sent_us) <= (account.incarnation, account.sent_us));
        let is_known = known.is_some_and(|account| account.incarnation == *incarnation);
        // This node has an account beside the `NODES_MAX` others.
        if is_late || known.is_none() && self.accounts.len() > NODES_MAX {
            return false;
        }
        if !is_known {
            self.meet(report, line, now);
        }
        let account = self.accounts.get_mut(node).expect("the node was met");
        account.sent_us = *sent_us;
        account.heard_at = now;
        account.limit = line.limit;
        account.demand = line.demand;
        account.reported = line.rate;
        if let Some(taken) = line.taken.filter(|taken| taken.term == self.term) {
            account.confirm(taken.number);
        }
        true
    }

    /// Opens an account for a node, or for its next life.
    fn meet(&mut self, report: &QuotaReport, line: &QuotaLine, now: Instant) {
        self.met += line.rate.0;
        let account = Account {
            incarnation: report.incarnation,
            sent_us: report.sent_us,
            heard_at: now,
            limit: line.limit,
            demand: line.demand,
            reported: line.rate,
            on_their_way: VecDeque::new(),
            target: line.rate,
        };
        self.accounts.insert(report.node.clone(), account);
        // The others still have the whole limit. The pause is for nodes that come together.
        self.next_division = self.next_division.min(self.divided_at + QUOTA_DIVISION_PAUSE);
    }

    /// The places a second that this ledger has to give.
    fn budget(&self, now: Instant) -> QuotaRate {
        // Nodes with different configurations: during a roll-out, the smaller limit counts.
        let limit = self.accounts.values().map(|account| account.limit).min().unwrap_or_default();
        // A share of the divider before may be in force at a node that is not heard.
        let is_settled = now.saturating_duration_since(self.began) >= QUOTA_RESERVED_AGE;
        if is_settled { limit } else { limit.min(QuotaRate(self.met)) }
    }

    fn free(&self, now: Instant) -> u64 {
        let held: u64 = self.accounts.values().map(|account| account.holds().0).sum();
        self.budget(now).0.saturating_sub(held)
    }

    fn divide(&mut self, now: Instant) {
        self.divided_at = now;
        self.next_division = now + QUOTA_DIVISION_INTERVAL;
        self.accounts
            .retain(|_, account| now.saturating_duration_since(account.heard_at) < QUOTA_RESERVED_AGE);
        let demands: Vec<QuotaDemand> = self.accounts.values().map(|account| account.demand).collect();
        let parts = divide(self.budget(now), &demands);
        for (account, part) in self.accounts.values_mut().zip(parts) {
            account.target = part;
        }
        self.raise_at = Some(now + QUOTA_RAISE_PAUSE);
    }

    /// True while a node may hold more than its part.
    fn awaits_smaller(&self) -> bool {
        self.accounts.values().any(|account| account.holds() > account.target)
    }

    /// Tells the smaller shares of a division.
    fn lower(&mut self, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        for node in self.nodes(|account| account.target < account.holds()) {
            self.tell(&node, waiting, now);
        }
    }

    /// Tells the larger shares of a division, as far as there is something free.
    fn raise(&mut self, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        self.raise_at = None;
        for node in self.nodes(|account| account.target > account.holds()) {
            self.tell(&node, waiting, now);
        }
    }

    fn nodes(&self, is_meant: impl Fn(&Account) -> bool) -> Vec<NodeName> {
        let meant = self.accounts.iter().filter(|(_, account)| is_meant(account));
        meant.map(|(node, _)| node.clone()).collect()
    }

    /// Tells a node its part, or as much of it as is free.
    fn tell(&mut self, node: &NodeName, waiting: &mut BTreeMap<NodeName, QuotaShares>, now: Instant) {
        let free = self.free(now);
        let Some(account) = self.accounts.get_mut(node) else { return };
        let rate = account.target.min(QuotaRate(account.holds().0 + free));
        self.number += 1;
        account.send(self.number, rate);
        let share = QuotaShare {
            quota: self.quota,
            mark: QuotaMark { term: self.term, number: self.number },
            sent_us: account.sent_us,
            rate,
        };
        let incarnation = account.incarnation;
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
