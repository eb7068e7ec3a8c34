//! Figures that the devices fill and the report shows: latencies, and latencies over time. Pure.

pub(crate) mod latency;
pub(crate) mod timeline;

/// `part / whole` as a double; 0 for an empty whole.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(crate) fn mib(bytes: u64) -> f64 {
    ratio(bytes, 1 << 20)
}

/// The nearest whole number; 0 for negative numbers.
pub(crate) fn rounded(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` keeps to the bounds")]
    let whole = number.round() as u64;
    whole
}
