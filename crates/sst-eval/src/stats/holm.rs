//! Holm's correction of a family of tests.

/// Holm's step-down correction of a family of p-values, in their order.
///
/// The i-th smallest of m becomes max over j <= i of (m - j + 1) p_j, at most 1. It bounds the chance of any false
/// discovery in the family, however the tests depend on each other. Source: S. Holm (1979), "A simple sequentially
/// rejective multiple test procedure", Scandinavian Journal of Statistics 6.
///
/// ```
/// assert_eq!(sst_eval::holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&i, &j| p_values[i].total_cmp(&p_values[j]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max(((order.len() - rank) as f64 * p_values[i]).min(1.0));
        corrected[i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        holm: Vec<(Vec<f64>, Vec<f64>)>,
    }

    #[test]
    fn equals_statsmodels() {
        let golden: Golden = serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap();
        for (p_values, expected) in golden.holm {
            for (ours, expected) in holm(&p_values).iter().zip(&expected) {
                assert!((ours - expected).abs() <= 1e-14, "{p_values:?}: {ours} not {expected}");
            }
        }
    }
}
