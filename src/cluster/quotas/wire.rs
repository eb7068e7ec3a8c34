//! Reports and shares as bytes (`proto/quota.proto`). The reader trusts nobody: a word with a mistake is dropped as a
//! whole.

use bytes::Bytes;
use prost::Message as _;

use crate::cluster::heartbeat::{Unreadable, name, term};
use roomcast_core::cluster::node::{NODE_VERSION, spoken};
use roomcast_core::cluster::quota::{
    QuotaDemand, QuotaId, QuotaLine, QuotaMark, QuotaRate, QuotaReport, QuotaShare, QuotaShares,
};
use roomcast_core::limits::{QUOTA_BYTES_MAX, QUOTA_LINES_MAX};
use roomcast_core::node_proto as pb;

/// A word about shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QuotaWord {
    /// For the divider.
    Report(QuotaReport),
    /// For the holder.
    Shares(QuotaShares),
}

/// The bytes of a report, in a version of words between nodes.
pub(super) fn encode_report(report: &QuotaReport, version: u8) -> Bytes {
    let QuotaReport { node, incarnation, sent_us, lines } = report;
    let lines = lines.iter().map(|line| pb::QuotaLine {
        quota: line.quota.0,
        limit: line.limit.permille(),
        reliable: line.demand.reliable.permille(),
        others: line.demand.others.permille(),
        rate: line.rate.permille(),
        taken: line.taken.map(mark_message),
    });
    encode(
        version,
        pb::quota_word::Word::Report(pb::QuotaReport {
            node: node.as_str().to_owned(),
            incarnation: *incarnation,
            sent_us: *sent_us,
            lines: lines.collect(),
        }),
    )
}

/// The bytes of shares, in a version of words between nodes.
pub(super) fn encode_shares(shares: &QuotaShares, version: u8) -> Bytes {
    let QuotaShares { node, incarnation, shares } = shares;
    let shares = shares.iter().map(|share| pb::QuotaShare {
        quota: share.quota.0,
        mark: Some(mark_message(share.mark)),
        sent_us: share.sent_us,
        rate: share.rate.permille(),
    });
    encode(
        version,
        pb::quota_word::Word::Shares(pb::QuotaShares {
            node: node.as_str().to_owned(),
            incarnation: *incarnation,
            shares: shares.collect(),
        }),
    )
}

fn encode(version: u8, word: pb::quota_word::Word) -> Bytes {
    pb::QuotaWord { version: version.into(), word: Some(word) }.encode_to_vec().into()
}

/// Reads a word.
///
/// # Errors
/// [`Unreadable`]: the bytes are no word, or of a version that this node does not speak.
pub(super) fn decode(bytes: &[u8]) -> Result<QuotaWord, Unreadable> {
    if bytes.len() > QUOTA_BYTES_MAX {
        return Err(Unreadable("too long"));
    }
    let word = pb::QuotaWord::decode(bytes).map_err(|_| Unreadable("not protobuf"))?;
    let version = u8::try_from(word.version).unwrap_or(u8::MAX);
    if spoken(NODE_VERSION, version) != Some(version) {
        return Err(Unreadable("another version"));
    }
    Ok(match word.word.ok_or(Unreadable("empty"))? {
        pb::quota_word::Word::Report(report) => QuotaWord::Report(QuotaReport {
            node: name(&report.node)?,
            incarnation: report.incarnation,
            sent_us: micros(report.sent_us)?,
            lines: all(&report.lines, line)?,
        }),
        pb::quota_word::Word::Shares(shares) => QuotaWord::Shares(QuotaShares {
            node: name(&shares.node)?,
            incarnation: shares.incarnation,
            shares: all(&shares.shares, share)?,
        }),
    })
}

fn all<T, U>(listed: &[T], read: fn(&T) -> Result<U, Unreadable>) -> Result<Vec<U>, Unreadable> {
    if listed.len() > QUOTA_LINES_MAX {
        return Err(Unreadable("too many limits"));
    }
    listed.iter().map(read).collect()
}

fn line(line: &pb::QuotaLine) -> Result<QuotaLine, Unreadable> {
    Ok(QuotaLine {
        quota: QuotaId(line.quota),
        limit: some_rate(line.limit)?,
        demand: QuotaDemand { reliable: rate(line.reliable)?, others: rate(line.others)? },
        rate: some_rate(line.rate)?,
        taken: line.taken.as_ref().map(mark).transpose()?,
    })
}

fn share(share: &pb::QuotaShare) -> Result<QuotaShare, Unreadable> {
    Ok(QuotaShare {
        quota: QuotaId(share.quota),
        mark: mark(share.mark.as_ref().ok_or(Unreadable("no mark"))?)?,
        sent_us: micros(share.sent_us)?,
        rate: some_rate(share.rate)?,
    })
}

fn mark_message(mark: QuotaMark) -> pb::QuotaMark {
    let QuotaMark { term, number } = mark;
    pb::QuotaMark { generation: term.generation, sequence: term.sequence, number }
}

fn mark(mark: &pb::QuotaMark) -> Result<QuotaMark, Unreadable> {
    Ok(QuotaMark { term: term(mark.generation, mark.sequence)?, number: mark.number })
}

fn rate(permille: u64) -> Result<QuotaRate, Unreadable> {
    QuotaRate::of_permille(permille).ok_or(Unreadable("a rate is out of bounds"))
}

/// A limit or a share, which is never zero: a limit of zero is none, and no node has a part of it.
fn some_rate(permille: u64) -> Result<QuotaRate, Unreadable> {
    if permille == 0 { Err(Unreadable("a rate of zero")) } else { rate(permille) }
}

/// A time of some years: more would not fit a moment.
fn micros(micros: u64) -> Result<u64, Unreadable> {
    const YEARS: u64 = 100 * 366 * 24 * 3600 * 1_000_000;
    if micros <= YEARS { Ok(micros) } else { Err(Unreadable("a time is out of bounds")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::cluster::Term;
    use roomcast_core::cluster::node::NodeName;
    use roomcast_core::limits::{NODE_NAME_MAX, QUOTA_PLACES_MAX, TERM_PART_MAX};

    fn longest() -> NodeName {
        NodeName::parse(&"n".repeat(NODE_NAME_MAX)).unwrap()
    }

    fn highest() -> QuotaMark {
        let term = Term { generation: TERM_PART_MAX, sequence: TERM_PART_MAX };
        QuotaMark { term, number: u64::MAX }
    }

    fn full_report() -> QuotaReport {
        let most = QuotaRate::per_second(QUOTA_PLACES_MAX);
        let line = QuotaLine {
            quota: QuotaId(u64::MAX),
            limit: most,
            demand: QuotaDemand { reliable: most, others: most },
            rate: most,
            taken: Some(highest()),
        };
        QuotaReport {
            node: longest(),
            incarnation: u64::MAX,
            sent_us: 1 << 50,
            lines: vec![line; QUOTA_LINES_MAX],
        }
    }

    fn full_shares() -> QuotaShares {
        let rate = QuotaRate::of_permille(1).unwrap();
        let share = QuotaShare { quota: QuotaId(1), mark: highest(), sent_us: 0, rate };
        QuotaShares { node: longest(), incarnation: 0, shares: vec![share; QUOTA_LINES_MAX] }
    }

    #[test]
    fn the_longest_words_fit_and_come_back() {
        let report = encode_report(&full_report(), NODE_VERSION);
        assert!(report.len() <= QUOTA_BYTES_MAX, "{}", report.len());
        assert_eq!(decode(&report), Ok(QuotaWord::Report(full_report())));
        assert_eq!(
            decode(&encode_shares(&full_shares(), NODE_VERSION)),
            Ok(QuotaWord::Shares(full_shares()))
        );
        let first =
            QuotaReport { lines: vec![QuotaLine { taken: None, ..full_report().lines[0] }], ..full_report() };
        assert_eq!(decode(&encode_report(&first, NODE_VERSION)), Ok(QuotaWord::Report(first)));
    }

    #[test]
    fn a_word_with_a_mistake_is_dropped() {
        let of = |version, word| decode(&pb::QuotaWord { version, word }.encode_to_vec());
        let spoilt = |spoil: fn(&mut pb::QuotaReport)| {
            let Ok(pb::QuotaWord { word: Some(pb::quota_word::Word::Report(mut report)), .. }) =
                pb::QuotaWord::decode(encode_report(&full_report(), NODE_VERSION))
            else {
                panic!("it is a report")
            };
            spoil(&mut report);
            of(NODE_VERSION.into(), Some(pb::quota_word::Word::Report(report)))
        };
        assert!(spoilt(|_| ()).is_ok());
        for (mistake, read) in [
            ("another version", of(u32::from(NODE_VERSION) + 1, None)),
            ("empty", of(NODE_VERSION.into(), None)),
            ("too long", decode(&[0; QUOTA_BYTES_MAX + 1])),
            ("no name", spoilt(|report| report.node = "a.b".to_owned())),
            ("a time past all times", spoilt(|report| report.sent_us = u64::MAX)),
            ("too many lines", spoilt(|report| report.lines.push(report.lines[0]))),
            ("no limit", spoilt(|report| report.lines[0].limit = 0)),
            ("no rate", spoilt(|report| report.lines[0].rate = 0)),
            ("too fast", spoilt(|report| report.lines[0].rate += 1)),
            ("no term", spoilt(|report| report.lines[0].taken = Some(pb::QuotaMark::default()))),
        ] {
            assert!(read.is_err(), "{mistake}");
        }
        let share = pb::QuotaShare { mark: None, ..pb::QuotaShare::default() };
        let shares = pb::QuotaShares { node: "a".to_owned(), incarnation: 1, shares: vec![share] };
        assert!(of(NODE_VERSION.into(), Some(pb::quota_word::Word::Shares(shares))).is_err(), "no mark");
    }

    #[test]
    fn strange_bytes_are_no_word_and_no_panic() {
        let mut rng = fastrand::Rng::with_seed(16);
        let good = encode_report(&full_report(), NODE_VERSION);
        for _ in 0..2000 {
            let mut bytes = good[..rng.usize(0..good.len())].to_vec();
            for _ in 0..rng.usize(0..4) {
                if let Some(byte) = rng.choice(bytes.iter_mut()) {
                    *byte = rng.u8(..);
                }
            }
            drop(decode(&bytes));
        }
    }
}
