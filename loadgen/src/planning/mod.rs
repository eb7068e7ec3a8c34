//! Commands that learn from several runs: `find-max`, `sweep`, `plan` and `compare`.

pub(crate) mod capacity;
pub(crate) mod compare;
pub(crate) mod find_max;
pub(crate) mod model;
pub(crate) mod sweep;

/// Parses a part of a whole, as `5%` or `0.05`.
pub(crate) fn part(text: &str, allowed: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let part = number.trim().parse().ok().map(|number: f64| number * scale);
    part.filter(|part| allowed.contains(part)).ok_or_else(|| {
        format!("{text:?} must be a part from {} to {}, like 5% or 0.05", allowed.start(), allowed.end())
    })
}

/// A figure with a fixed number of places; a dash for an unknown figure.
pub(crate) fn places(figure: Option<f64>, places: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_share_or_a_percentage() {
        let share = |text| part(text, 0.0..=0.5);
        assert_eq!((share("5%"), share("0.1"), share("0.5 %")), (Ok(0.05), Ok(0.1), Ok(0.005)));
        for wrong in ["", "%", "-1%", "x", "NaN", "60%", "5"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
