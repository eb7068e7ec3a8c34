//! Meters: the limits of the cluster at this node, between the doors that ask for places and the cluster's thread that
//! learns the rates.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use roomcast_core::cluster::quota::{QuotaAsked, QuotaId, QuotaRate};
use roomcast_core::room::id::NameKey;

/// A limit of the cluster at this node. The doors count what is asked of them, and follow the rate.
#[derive(Debug)]
pub(crate) struct QuotaMeter {
    quota: QuotaId,
    sharers: Sharers,
    limit: AtomicU64,
    /// Thousandths of a place a second.
    rate: AtomicU64,
    has_share: AtomicBool,
    reliable: AtomicU64,
    others: AtomicU64,
}

/// The nodes that share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharers {
    All,
    /// The nodes of this node's region.
    Region,
}

/// The number of the known nodes, this one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownNodes {
    pub(super) all: usize,
    /// The known nodes in this node's region.
    pub(super) region: usize,
}

impl KnownNodes {
    fn among(self, sharers: Sharers) -> usize {
        match sharers {
            Sharers::All => self.all,
            Sharers::Region => self.region,
        }
    }
}

/// The meters of a node.
#[derive(Debug)]
pub(crate) struct QuotaMeters {
    key: NameKey,
    region: String,
    known: Mutex<KnownNodes>,
    /// Locked for a look at some meters at a time. A meter goes with its last user.
    meters: Mutex<BTreeMap<QuotaId, Weak<QuotaMeter>>>,
}

impl QuotaMeter {
    /// Counts places that are asked for, whether they are given or not.
    pub(crate) fn ask(&self, reliable: usize, others: usize) {
        self.reliable.fetch_add(reliable as u64, Ordering::Relaxed);
        self.others.fetch_add(others as u64, Ordering::Relaxed);
    }

    /// The rate in force at this node.
    pub(crate) fn rate(&self) -> QuotaRate {
        QuotaRate::of_permille(self.rate.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// True while the rate is a share of the limit's divider.
    pub(crate) fn has_share(&self) -> bool {
        self.has_share.load(Ordering::Relaxed)
    }

    fn set_limit(&self, limit: QuotaRate, known: KnownNodes) {
        if self.limit.swap(limit.permille(), Ordering::Relaxed) != limit.permille() {
            // Until the thread looks again.
            self.rate.store(limit.among(known.among(self.sharers)).permille(), Ordering::Relaxed);
        }
    }
}

impl QuotaMeters {
    /// No meters. `key` is that of the cluster's slots.
    pub(crate) fn new(key: NameKey, region: &str) -> Self {
        let known = Mutex::new(KnownNodes { all: 1, region: 1 });
        Self { key, region: region.to_owned(), known, meters: Mutex::default() }
    }

    /// The meter of a publisher key, by the bytes of its hash; none: of an open door. Only a hash of the hash travels.
    pub(crate) fn of_key(&self, key: &[u8], messages_per_second: u32) -> Arc<QuotaMeter> {
        self.meter(&[b"key:", key].concat(), Sharers::All, messages_per_second)
    }

    /// The meter of joins, which the nodes of a region share.
    pub(crate) fn of_joins(&self, joins_per_second: u32) -> Arc<QuotaMeter> {
        let name = [b"joins:", self.region.as_bytes()].concat();
        self.meter(&name, Sharers::Region, joins_per_second)
    }

    fn meter(&self, name: &[u8], sharers: Sharers, per_second: u32) -> Arc<QuotaMeter> {
        let quota = QuotaId::of(name, self.key);
        let known = *self.known.lock();
        let mut meters = self.meters.lock();
        let meter = meters.get(&quota).and_then(Weak::upgrade).unwrap_or_else(|| {
            let meter = Arc::new(QuotaMeter {
                quota,
                sharers,
                limit: AtomicU64::new(0),
                rate: AtomicU64::new(0),
                has_share: AtomicBool::new(false),
                reliable: AtomicU64::new(0),
                others: AtomicU64::new(0),
            });
            meters.insert(quota, Arc::downgrade(&meter));
            meter
        });
        meter.set_limit(QuotaRate::per_second(per_second.into()), known);
        meter
    }

    /// The number of limits without a share from their divider.
    pub(crate) fn without_share(&self) -> usize {
        self.living().iter().filter(|meter| !meter.has_share()).count()
    }

    /// The limits for the holder, among this many nodes.
    pub(super) fn asked(&self, known: KnownNodes) -> Vec<QuotaAsked> {
        *self.known.lock() = known;
        let asked = |meter: Arc<QuotaMeter>| QuotaAsked {
            quota: meter.quota,
            limit: QuotaRate::of_permille(meter.limit.load(Ordering::Relaxed)).unwrap_or_default(),
            nodes: known.among(meter.sharers),
            reliable: meter.reliable.load(Ordering::Relaxed),
            others: meter.others.load(Ordering::Relaxed),
        };
        self.living().into_iter().map(asked).collect()
    }

    /// Sets the rates in force. `share` is true for a share of the divider.
    pub(super) fn set_rates(
        &self,
        rate: impl Fn(QuotaId) -> Option<QuotaRate>,
        share: impl Fn(QuotaId) -> bool,
    ) {
        for meter in self.living() {
            let Some(rate) = rate(meter.quota) else { continue };
            meter.rate.store(rate.permille(), Ordering::Relaxed);
            meter.has_share.store(share(meter.quota), Ordering::Relaxed);
        }
    }

    fn living(&self) -> Vec<Arc<QuotaMeter>> {
        let mut meters = self.meters.lock();
        meters.retain(|_, meter| meter.strong_count() > 0);
        meters.values().filter_map(Weak::upgrade).collect()
    }
}
