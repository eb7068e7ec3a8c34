//! The universal scalability law: the throughput of n processors. Pure.
//!
//! C(n) = n / (1 + σ(n − 1) + κn(n − 1)), Gunther, Guerrilla Capacity Planning (2007), chapter 4. σ is the
//! part of the work done by a single processor at a time, κ the cost of keeping processors in agreement. With
//! σ = 0.05 and κ = 0, 8 processors do the work of 8 / 1.35 = 5.9.

use serde::{Deserialize, Serialize};

use super::nnls;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usl {
    pub(crate) sigma: f64,
    pub(crate) kappa: f64,
}

/// The source of σ and κ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Basis {
    /// Sweeps with three or more numbers of processors.
    Fitted,
    /// Sweeps with two numbers of processors: κ is assumed to be 0.
    FittedWithoutKappa,
    /// The flag --usl.
    Given,
    /// Sweeps with a single number of processors: each further processor is assumed to do as much as the
    /// first.
    AssumedLinear,
}

impl Usl {
    /// Processor time of some work on n processors over its time on a single processor: n / C(n).
    pub(crate) fn inflation(&self, processors: f64) -> f64 {
        1.0 + self.sigma * (processors - 1.0) + self.kappa * processors * (processors - 1.0)
    }

    /// Fits the law to pairs of processors and the cost of the same work there, in any unit. `None` for fewer
    /// than two different numbers of processors.
    ///
    /// The cost is linear in 1, n − 1 and n(n − 1), so this is a least squares problem with relative errors.
    pub(crate) fn fit(costs: &[(f64, f64)]) -> Option<(Self, Basis)> {
        let mut counts: Vec<f64> = costs.iter().map(|(processors, _)| *processors).collect();
        counts.sort_by(f64::total_cmp);
        counts.dedup();
        let basis = match counts.len() {
            0 | 1 => return None,
            2 => Basis::FittedWithoutKappa,
            _ => Basis::Fitted,
        };
        // Three unknowns need three different n. With two, a column of zeros keeps κ at 0.
        let with_kappa = f64::from(u8::from(basis == Basis::Fitted));
        let row =
            |(n, cost): &(f64, f64)| vec![1.0 / cost, (n - 1.0) / cost, with_kappa * n * (n - 1.0) / cost];
        let found = nnls::solve(&costs.iter().map(row).collect::<Vec<_>>(), &vec![1.0; costs.len()]);
        (found[0] > 0.0).then(|| (Self { sigma: found[1] / found[0], kappa: found[2] / found[0] }, basis))
    }
}

impl std::str::FromStr for Usl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} must be SIGMA,KAPPA, each from 0 to 1");
        let (sigma, kappa) = text.split_once(',').ok_or_else(wrong)?;
        let part = |text: &str| text.trim().parse().ok().filter(|part| (0.0..=1.0).contains(part));
        Ok(Self { sigma: part(sigma).ok_or_else(wrong)?, kappa: part(kappa).ok_or_else(wrong)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_is_found_again_from_three_numbers_of_processors() {
        let law = Usl { sigma: 0.03, kappa: 0.0005 };
        let costs: Vec<(f64, f64)> =
            [1.0, 4.0, 16.0].into_iter().map(|n| (n, 0.7 * law.inflation(n))).collect();
        let (found, basis) = Usl::fit(&costs).unwrap();
        assert!(
            (found.sigma - law.sigma).abs() < 1e-9 && (found.kappa - law.kappa).abs() < 1e-9,
            "{found:?}"
        );
        assert_eq!(basis, Basis::Fitted);
        // Gunther's knee: the most is done at √((1 − σ) / κ) processors.
        let knee = ((1.0 - law.sigma) / law.kappa).sqrt();
        let done = |n: f64| n / law.inflation(n);
        assert!(done(knee) > done(knee * 1.1) && done(knee) > done(knee * 0.9));
    }

    #[test]
    fn two_numbers_say_nothing_of_kappa_and_one_says_nothing() {
        let (found, basis) = Usl::fit(&[(1.0, 2.0), (3.0, 2.4)]).unwrap();
        assert!((found.sigma - 0.1).abs() < 1e-9 && found.kappa == 0.0, "{found:?}");
        assert_eq!(basis, Basis::FittedWithoutKappa);
        assert_eq!(Usl::fit(&[(2.0, 1.0), (2.0, 1.1)]), None);
        let (better, _) = Usl::fit(&[(1.0, 2.0), (2.0, 1.9)]).unwrap();
        assert_eq!(better, Usl::default(), "nothing gets cheaper by more processors");
    }

    #[test]
    fn the_law_can_be_given() {
        assert_eq!("0.02,0.0001".parse(), Ok(Usl { sigma: 0.02, kappa: 0.0001 }));
        for wrong in ["", "0.1", "-1,0", "a,b", "2,0"] {
            assert!(wrong.parse::<Usl>().is_err(), "{wrong}");
        }
    }
}
