//! Both Fishers diagonal: every coordinate is an eigenvector, the eigenvalues are ratios.
//!
//! lambda_i = (F_s,i + ridge_s) / (F_u,i + ridge_u + eps); the top k are found by selection in O(n) and then sorted.

use crate::fisher::check_setting;
use crate::{Basis, DiagonalFisher, Error, Selection, Spectrum};
use sst_adapter::ParamLayout;
use std::cmp::Ordering;

/// The eps that the study's ratio added to the denominator, on top of the estimator's own ridge.
pub const RATIO_EPS: f64 = 1e-6;

/// The k coordinates of the largest eigenvalues, ties broken by the lower index.
///
/// The ratios are taken in f64. `eps` is [`RATIO_EPS`] unless there is a reason for another.
///
/// # Errors
/// [`Error::Layout`] when the Fishers' layouts differ, [`Error::Directions`] when k is 0 or larger than phi,
/// [`Error::Setting`] for an eps that is negative or not finite, [`Error::FisherEntry`] for a bad entry,
/// [`Error::Ratio`] for a zero denominator.
pub fn diagonal(f_safety: &DiagonalFisher, f_utility: &DiagonalFisher, k: usize, eps: f64) -> Result<Basis, Error> {
    f_safety
        .layout
        .ensure_same(&f_utility.layout, ("the safety Fisher", "the utility Fisher"))?;
    check_setting("eps", eps)?;
    f_safety.check()?;
    f_utility.check()?;
    let n = f_safety.values.len();
    if k == 0 || k > n {
        return Err(Error::Directions { k, available: n });
    }
    let (ridge_safety, ridge_utility) = (f_safety.meta.ridge, f_utility.meta.ridge);
    let ratios: Vec<f64> = f_safety
        .values
        .iter()
        .zip(&f_utility.values)
        .map(|(s, u)| (f64::from(*s) + ridge_safety) / (f64::from(*u) + ridge_utility + eps))
        .collect();
    check_ratios(&f_safety.layout, &ratios)?;
    let indices = top_k(&ratios, k);
    let eigenvalues = indices.iter().map(|&i| ratios[i as usize]).collect();
    let selection = Selection::TopRatios {
        eps,
        ridge_safety,
        ridge_utility,
        share_below_ridge_safety: f_safety.share_below(ridge_safety),
        share_below_ridge_utility: f_utility.share_below(ridge_utility),
        spectrum: Spectrum::of(ratios),
    };
    Basis::new(f_safety.layout.clone(), indices, eigenvalues, selection)
}

fn check_ratios(layout: &ParamLayout, ratios: &[f64]) -> Result<(), Error> {
    let Some(i) = ratios.iter().position(|ratio| !ratio.is_finite()) else {
        return Ok(());
    };
    let (tensor, index) = layout
        .slot_of(i)
        .map_or((String::new(), i), |slot| (slot.name.clone(), i - slot.offset));
    Err(Error::Ratio {
        tensor,
        index,
        value: ratios[i],
    })
}

/// Indices of the k largest ratios, descending; requires 1 <= k <= n and no NaN.
fn top_k(ratios: &[f64], k: usize) -> Vec<u64> {
    let descending =
        |a: &u64, b: &u64| -> Ordering { ratios[*b as usize].total_cmp(&ratios[*a as usize]).then(a.cmp(b)) };
    let mut order: Vec<u64> = (0..ratios.len() as u64).collect();
    order.select_nth_unstable_by(k - 1, descending);
    order.truncate(k);
    order.sort_unstable_by(descending);
    order.shrink_to_fit();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Estimator, FisherMeta};

    fn fisher(values: Vec<f32>, ridge: f64) -> DiagonalFisher {
        let layout = ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, values.len())]).unwrap();
        DiagonalFisher::new(
            layout,
            values,
            FisherMeta {
                ridge,
                ..FisherMeta::new(Estimator::Diag, "response", 0)
            },
        )
        .unwrap()
    }

    #[test]
    fn ratios_carry_both_ridges_and_eps() {
        let (s, u) = (fisher(vec![2e-6, 0.0, 1.0], 1e-6), fisher(vec![0.0, 1e-6, 0.5], 2e-6));
        let basis = diagonal(&s, &u, 3, 1e-6).unwrap();
        assert_eq!(basis.indices(), [2, 0, 1]);
        // (1 + 1e-6) / (0.5 + 3e-6), 3e-6 / 3e-6, 1e-6 / 4e-6; the Fisher values are f32.
        for (got, want) in basis.eigenvalues().iter().zip([1.000001 / 0.500003, 1.0, 0.25]) {
            assert!((got - want).abs() < 1e-7 * want, "{got} {want}");
        }
        let Selection::TopRatios {
            share_below_ridge_safety,
            share_below_ridge_utility,
            spectrum,
            ..
        } = basis.selection()
        else {
            panic!("a GEVP selects by ratio");
        };
        assert!((share_below_ridge_safety - 1.0 / 3.0).abs() < 1e-15);
        assert!((share_below_ridge_utility - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(spectrum.head, basis.eigenvalues());
    }

    #[test]
    fn selection_agrees_with_a_full_sort_and_breaks_ties_low() {
        let n = 997;
        // Only 40 distinct values, so that nearly every rank is a tie.
        let values: Vec<f32> = (0..n).map(|i| ((i * 7919) % 40) as f32).collect();
        let (s, u) = (fisher(values.clone(), 0.0), fisher(vec![1.0; n], 0.0));
        let mut order: Vec<u64> = (0..n as u64).collect();
        order.sort_by(|a, b| values[*b as usize].total_cmp(&values[*a as usize])); // stable: low index first
        for k in [1, 2, 24, 25, 26, 500, n] {
            assert_eq!(diagonal(&s, &u, k, 0.0).unwrap().indices(), &order[..k], "k {k}");
        }
    }

    #[test]
    fn impossible_k_states_both_numbers() {
        let f = fisher(vec![1.0; 4], 0.0);
        for k in [0, 5] {
            let message = diagonal(&f, &f, k, 0.0).unwrap_err().to_string();
            assert_eq!(message, format!("k = {k} is not between 1 and 4"));
        }
    }

    #[test]
    fn a_zero_denominator_and_a_bad_eps_are_refused() {
        let (s, u) = (fisher(vec![1.0, 1.0], 0.0), fisher(vec![1.0, 0.0], 0.0));
        let message = diagonal(&s, &u, 1, 0.0).unwrap_err().to_string();
        assert!(
            message.contains("layers.0.q_proj.lora_A at flat index 1 is inf"),
            "{message}"
        );
        for eps in [f64::NAN, f64::INFINITY, -1e-6] {
            assert!(matches!(
                diagonal(&s, &u, 1, eps),
                Err(Error::Setting { name: "eps", .. })
            ));
        }
        assert!(matches!(
            diagonal(&s, &fisher(vec![1.0; 3], 0.0), 1, 1e-6),
            Err(Error::Layout(_))
        ));
    }
}
