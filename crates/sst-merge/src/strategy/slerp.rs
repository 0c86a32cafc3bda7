//! SLERP and NuSLERP: go from U to S along the arc between them instead of along the chord.
//!
//! Shoemake 1985, "Animating Rotation with Quaternion Curves": with theta the angle between U and S,
//!
//! ```text
//! M = sin((1 - t) theta) / sin(theta) U + sin(t theta) / sin(theta) S
//! ```
//!
//! Both as mergekit defines them (angle of the normalised vectors, coefficients on the vectors as they are), here per
//! module on the changes dW. Coefficients are scalars, or one per row or column, so that M is exactly of rank r_u + r_s
//! and is never dense; angles come from the Gram matrices of the factors.
//!
//! | | `slerp` | `nuslerp` |
//! | --- | --- | --- |
//! | t | a setting | w_s / (w_u + w_s) of the adapters' weights; 1/2 for a sum below 1e-6 |
//! | vectors | the whole matrix | the whole matrix, its rows or its columns |
//! | straight line where | \|cos theta\| > 0.9995 | 1 - cos^2 theta <= 1e-12 |
//!
//! A vector of norm 0 has no angle: there M = (1 - t) U + t S, where mergekit takes a right angle. mergekit's bound for
//! NuSLERP is 1e-16 in f32, which rounding lets opposite vectors slip past, to coefficients of 1e4.
//! Its `nuslerp_flatten` is `tensor` here, its `nuslerp_row_wise`, which takes norms along axis 0, `column`.
//! Several utility adapters: U is their weighted mean and w_u the sum of their weights.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `t` (slerp) | 0.5 | 0 is U, 1 is S |
//! | `granularity` (nuslerp) | tensor | one angle per matrix, per `row` or per `column` |
//! | `rank` | none | rank of the output |

use super::parts::by_module;
use super::{MergeStrategy, check_rank, check_share};
use crate::{Error, MergeInputs, Merged};
use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};
use sst_adapter::LowRank;

const NAME: &str = "slerp";
const NU_NAME: &str = "nuslerp";
/// Largest |cos theta| that is not treated as a straight line.
const SLERP_COS_MAX: f64 = 0.9995;
/// sqrt(1 - 1e-12), to first order.
const NUSLERP_COS_MAX: f64 = 1.0 - 5e-13;
/// mergekit's bound below which a sum of weights does not divide.
const WEIGHT_SUM_MIN: f64 = 1e-6;

/// What one angle is taken between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Granularity {
    /// The whole matrix.
    #[default]
    Tensor,
    /// A row: the weights of one output.
    Row,
    /// A column: the weights of one input.
    Column,
}

/// Settings of [`Slerp`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlerpConfig {
    /// Where on the arc: 0 is U, 1 is S.
    pub t: f64,
    /// Rank of the output; none: the sum of the ranks.
    pub rank: Option<usize>,
}

impl Default for SlerpConfig {
    fn default() -> Self {
        Self { t: 0.5, rank: None }
    }
}

impl SlerpConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a t outside [0, 1] or a rank of 0.
    pub fn check(self) -> Result<Slerp, Error> {
        check_share(NAME, "t", self.t)?;
        check_rank(NAME, self.rank)?;
        Ok(Slerp { config: self })
    }
}

/// The arc between whole matrices, at a given t.
#[derive(Debug, Clone, PartialEq)]
pub struct Slerp {
    config: SlerpConfig,
}

impl MergeStrategy for Slerp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Slerp(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        merge(
            inputs,
            self.config.rank,
            |_, _| self.config.t,
            Granularity::Tensor,
            SLERP_COS_MAX,
        )
    }
}

/// Settings of [`Nuslerp`], not yet checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NuslerpConfig {
    /// What one angle is taken between.
    pub granularity: Granularity,
    /// Rank of the output; none: the sum of the ranks.
    pub rank: Option<usize>,
}

impl NuslerpConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a rank of 0.
    pub fn check(self) -> Result<Nuslerp, Error> {
        check_rank(NU_NAME, self.rank)?;
        Ok(Nuslerp { config: self })
    }
}

/// The arc between matrices, rows or columns, at the share of the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Nuslerp {
    config: NuslerpConfig,
}

impl MergeStrategy for Nuslerp {
    fn name(&self) -> &'static str {
        NU_NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Nuslerp(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        let share = |w_u: f64, w_s: f64| match w_u + w_s {
            sum if sum.abs() < WEIGHT_SUM_MIN => 0.5,
            sum => w_s / sum,
        };
        merge(
            inputs,
            self.config.rank,
            share,
            self.config.granularity,
            NUSLERP_COS_MAX,
        )
    }
}

/// Walks every module; `t` is a function of the weights of U and S.
fn merge(
    inputs: &MergeInputs<'_>,
    rank: Option<usize>,
    t: impl Fn(f64, f64) -> f64 + Sync,
    granularity: Granularity,
    cos_max: f64,
) -> Result<Merged, Error> {
    inputs.check_delta()?;
    let merged = by_module(inputs, |path| {
        let count = inputs.utilities.len();
        let weights: Vec<f64> = (0..count).map(|i| inputs.weight(i, path)).collect();
        let sum: f64 = weights.iter().sum();
        let mut changes = inputs.module(path);
        let s = changes.pop().flatten();
        let share = |w: &f64| match sum {
            _ if sum.abs() < WEIGHT_SUM_MIN => 1.0 / count as f64,
            sum => w / sum,
        };
        let parts: Vec<(f64, &LowRank)> = weights
            .iter()
            .zip(&changes)
            .filter_map(|(w, change)| Some((share(w), change.as_ref()?)))
            .collect();
        let t = t(sum, inputs.weight(count, path));
        Ok(match (parts.is_empty(), s) {
            (true, Some(s)) => s.scaled(t),
            (_, None) => LowRank::stack(&parts)?.scaled(1.0 - t),
            (false, Some(s)) => arc(LowRank::stack(&parts)?, s, t, granularity, cos_max)?,
        })
    })?;
    Merged::from_low_rank(inputs, merged, rank)
}

/// The point at t on the arc from u to s.
fn arc(mut u: LowRank, mut s: LowRank, t: f64, granularity: Granularity, cos_max: f64) -> Result<LowRank, Error> {
    let products = |x: &LowRank, y: &LowRank| match granularity {
        Granularity::Tensor => vec![x.inner(y)],
        Granularity::Row => rows(x.b.view(), y.b.view(), &gram(x.a.view(), y.a.view())),
        Granularity::Column => rows(x.a.t(), y.a.t(), &gram(x.b.t(), y.b.t())),
    };
    let (uu, us, ss) = (products(&u, &u), products(&u, &s), products(&s, &s));
    let coefficients: Vec<[f64; 2]> = (0..us.len())
        .map(|i| coefficients(t, uu[i].max(0.0), us[i], ss[i].max(0.0), cos_max))
        .collect();
    for (side, change) in [&mut u, &mut s].into_iter().enumerate() {
        let (factor, axis) = match granularity {
            Granularity::Tensor | Granularity::Row => (&mut change.b, Axis(0)),
            Granularity::Column => (&mut change.a, Axis(1)),
        };
        for (i, mut lane) in factor.axis_iter_mut(axis).enumerate() {
            let coefficient = coefficients[if granularity == Granularity::Tensor { 0 } else { i }][side];
            lane.mapv_inplace(|x| (coefficient * f64::from(x)) as f32);
        }
    }
    Ok(LowRank::stack(&[(1.0, &u), (1.0, &s)])?)
}

/// The coefficients of u and s from their inner products.
fn coefficients(t: f64, uu: f64, us: f64, ss: f64, cos_max: f64) -> [f64; 2] {
    let norms = uu.sqrt() * ss.sqrt();
    // Not a number where a norm is 0.
    let cos = (us / norms).clamp(-1.0, 1.0);
    if cos.is_nan() || cos.abs() > cos_max {
        return [1.0 - t, t];
    }
    let theta = cos.acos();
    [((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin()]
}

/// x y^T of `[r, n]` and `[r', n]`.
fn gram(x: ArrayView2<'_, f32>, y: ArrayView2<'_, f32>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), y.nrows()), |(k, l)| {
        x.row(k)
            .iter()
            .zip(y.row(l))
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    })
}

/// diag(x g y^T) of x `[n, r]`, g `[r, r']`, y `[n, r']`.
fn rows(x: ArrayView2<'_, f32>, y: ArrayView2<'_, f32>, g: &Array2<f64>) -> Vec<f64> {
    x.rows()
        .into_iter()
        .zip(y.rows())
        .map(|(x, y)| {
            g.indexed_iter()
                .map(|((k, l), g)| f64::from(x[k]) * g * f64::from(y[l]))
                .sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_lie_on_the_arc() {
        // A right angle, and 60 degrees: sin 30 / sin 60 = 1 / sqrt 3.
        let half = std::f64::consts::FRAC_1_SQRT_2;
        for (us, want) in [(0.0, half), (3.0, 1.0 / 3f64.sqrt())] {
            for got in coefficients(0.5, 4.0, us, 9.0, SLERP_COS_MAX) {
                assert!((got - want).abs() <= 4.0 * f64::EPSILON, "{got} {want}");
            }
        }
        for t in [0.0, 0.3, 1.0] {
            for (uu, us, ss) in [(4.0, 6.0, 9.0), (4.0, -6.0, 9.0), (0.0, 0.0, 9.0), (4.0, 0.0, 0.0)] {
                for cos_max in [SLERP_COS_MAX, NUSLERP_COS_MAX] {
                    assert_eq!(coefficients(t, uu, us, ss, cos_max), [1.0 - t, t]);
                }
            }
        }
    }

    #[test]
    fn bad_settings_are_named() {
        for t in [f64::NAN, -0.1, 1.1] {
            let message = SlerpConfig { t, rank: None }.check().unwrap_err().to_string();
            assert!(message.contains("slerp: `t`"), "{message}");
        }
        let message = NuslerpConfig {
            rank: Some(0),
            ..NuslerpConfig::default()
        }
        .check()
        .unwrap_err()
        .to_string();
        assert!(message.contains("nuslerp: `rank`"), "{message}");
    }
}
