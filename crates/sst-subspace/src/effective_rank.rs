//! How many directions a spectrum really has, as two smooth counts.
//!
//! With p_i = lambda_i / sum lambda: the effective rank exp(-sum p_i ln p_i) (Roy & Vetterli 2007), and the
//! participation ratio (sum lambda)^2 / sum lambda^2 = tr(F)^2 / tr(F^2). Both are k for k equal eigenvalues.

use crate::Error;

/// exp of the entropy of the normalised spectrum, between 1 and the number of positive eigenvalues.
///
/// ```
/// assert!((sst_subspace::effective_rank(&[2.0, 2.0, 0.0])? - 2.0).abs() < 1e-15);
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::Content`] for an eigenvalue that is negative or not finite, or a spectrum of zeros.
pub fn effective_rank(spectrum: &[f64]) -> Result<f64, Error> {
    let shares = relative(spectrum)?;
    let sum: f64 = shares.iter().sum();
    let entropy: f64 = shares
        .iter()
        .filter(|x| **x > 0.0)
        .map(|x| -(x / sum) * (x / sum).ln())
        .sum();
    Ok(entropy.exp())
}

/// tr(F)^2 / tr(F^2), between 1 and the number of positive eigenvalues; at most the effective rank.
///
/// # Errors
/// As [`effective_rank`].
pub fn participation_ratio(spectrum: &[f64]) -> Result<f64, Error> {
    let shares = relative(spectrum)?;
    let (sum, squares): (f64, f64) = (shares.iter().sum(), shares.iter().map(|x| x * x).sum());
    Ok(sum * sum / squares)
}

/// The spectrum over its largest entry, so that no square leaves the range of f64.
fn relative(spectrum: &[f64]) -> Result<Vec<f64>, Error> {
    if let Some(bad) = spectrum.iter().find(|x| !(x.is_finite() && **x >= 0.0)) {
        let reason = format!("holds {bad:e}: an eigenvalue of a Fisher is finite and >= 0");
        return Err(Error::content("spectrum", reason));
    }
    let largest = spectrum.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Err(Error::content("spectrum", "has no positive eigenvalue"));
    }
    Ok(spectrum.iter().map(|x| x / largest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_eigenvalues_count_one_each_at_any_scale() {
        for scale in [1e-300, 1e-30, 1.0, 1e30, 1e300] {
            let spectrum = [scale, scale, 0.0, scale];
            assert!((effective_rank(&spectrum).unwrap() - 3.0).abs() < 1e-14, "{scale}");
            assert!((participation_ratio(&spectrum).unwrap() - 3.0).abs() < 1e-14, "{scale}");
        }
    }

    #[test]
    fn a_halving_spectrum_has_a_closed_form() {
        // p_i = 2^-i: entropy sum i 2^-i ln 2 = 2 ln 2, so 4; (sum)^2 / sum of squares = 1 / (1/3).
        let spectrum: Vec<f64> = (1..=60).map(|i| 0.5f64.powi(i)).collect();
        assert!((effective_rank(&spectrum).unwrap() - 4.0).abs() < 1e-13);
        assert!((participation_ratio(&spectrum).unwrap() - 3.0).abs() < 1e-13);
    }

    #[test]
    fn what_is_no_spectrum_is_refused() {
        for bad in [&[][..], &[0.0, 0.0], &[1.0, -1e-9], &[1.0, f64::NAN], &[f64::INFINITY]] {
            assert!(
                effective_rank(bad).is_err() && participation_ratio(bad).is_err(),
                "{bad:?}"
            );
        }
    }
}
