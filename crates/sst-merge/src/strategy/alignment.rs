//! The alignment subspace of SafeLoRA and SafeMERGE.
//!
//! V `[d_out, d_in]` is what alignment changed in a module's weight: V = W_aligned - W_base. A change dW is projected onto
//! the directions that V writes to (Hsu et al. 2024, "Safe LoRA"):
//!
//! | projection | C | |
//! | --- | --- | --- |
//! | `approximate` | V V^T / \|\|V\|\|_F | the published one; no projection, it stretches by sigma_i(V)^2 / \|\|V\|\|_F |
//! | `exact` | U_k U_k^T, from V = U S Z^T of rank k | the orthogonal projection that it stands for |
//!
//! and cos(C dW, dW), in the Frobenius inner product, says how well dW keeps to them. C dW = (C b) a is as thin as dW.
//!
//! V comes from two models (`alignment = "weights"`) or is the safety adapter's change (`"adapter"`), so that no model is
//! needed. Of an aligned model V has full rank and C = I exactly, so `exact` is for adapters only.

use super::matrix::{gram_times, numerical_rank, times_f64};
use super::parts::{by_module, utility_and_safety};
use crate::{Error, MergeInputs, Needs};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use sst_adapter::{LowRank, ModulePath};
use std::collections::BTreeMap;

/// Where V comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Alignment {
    /// The safety adapter's change.
    #[default]
    Adapter,
    /// [`MergeInputs::alignment`].
    Weights,
}

/// Which C projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AlignmentProjection {
    /// V V^T / ||V||.
    #[default]
    Approximate,
    /// The orthogonal projection onto the column space of V.
    Exact,
}

/// How well U keeps to the alignment subspace, and where it was changed for not doing so.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AlignmentReport {
    /// Modules that were projected or merged.
    pub changed: usize,
    /// cos(C U, U) by module; absent where U or V is 0.
    pub cosines: BTreeMap<ModulePath, f64>,
}

/// One module: U, S, and U projected.
#[derive(Debug)]
pub(super) struct Aligned {
    pub utility: LowRank,
    pub safety: LowRank,
    /// C U; none where V is 0.
    pub projected: Option<LowRank>,
    /// cos(C U, U); none where U or V is 0, and nothing is known.
    pub cosine: Option<f64>,
}

impl Alignment {
    pub(super) fn needs(self) -> Needs {
        Needs {
            base: self == Alignment::Weights,
            ..Needs::default()
        }
    }

    /// Projects every module's U.
    pub(super) fn project(
        self,
        strategy: &'static str,
        inputs: &MergeInputs<'_>,
        projection: AlignmentProjection,
    ) -> Result<BTreeMap<ModulePath, Aligned>, Error> {
        let source = match self {
            Alignment::Adapter => None,
            Alignment::Weights => Some(inputs.alignment.ok_or(Error::NoAlignment { strategy })?),
        };
        by_module(inputs, |path| {
            let [utility, safety] = utility_and_safety(inputs, path)?;
            let projected = match source {
                None => onto_adapter(&utility, &safety, projection)?,
                Some(source) => {
                    let v = source.change(path)?;
                    let expected = utility.shape();
                    if v.dim() != (expected[0], expected[1]) {
                        return Err(Error::AlignmentShape {
                            module: path.to_string(),
                            expected,
                            got: [v.nrows(), v.ncols()],
                        });
                    }
                    let (b, norm) = gram_times(v.view(), utility.b.view()); // V V^T b
                    if !norm.is_finite() {
                        let module = path.to_string();
                        return Err(Error::AlignmentNotFinite { module });
                    }
                    (norm > 0.0).then(|| with_outputs(&utility, b / norm))
                }
            };
            let cosine = projected.as_ref().and_then(|projected| cosine(projected, &utility));
            Ok(Aligned {
                utility,
                safety,
                projected,
                cosine,
            })
        })
    }
}

/// C U of V = S; none where S = 0.
fn onto_adapter(
    utility: &LowRank,
    safety: &LowRank,
    projection: AlignmentProjection,
) -> Result<Option<LowRank>, Error> {
    let svd = safety.svd()?;
    let k = numerical_rank(&svd.s);
    if k == 0 {
        return Ok(None);
    }
    let u = svd.u.slice(s![.., ..k]);
    let mut inner = times_f64(u.t(), utility.b.mapv(f64::from).view()); // [k, r_u]
    if projection == AlignmentProjection::Approximate {
        // V V^T = U S^2 U^T
        let norm = svd.s.dot(&svd.s).sqrt();
        for (mut row, s) in inner.rows_mut().into_iter().zip(&svd.s) {
            row *= s * s / norm;
        }
    }
    Ok(Some(with_outputs(utility, times_f64(u, inner.view()))))
}

/// The change with another b.
fn with_outputs(change: &LowRank, b: Array2<f64>) -> LowRank {
    LowRank {
        a: change.a.clone(),
        b: b.mapv(|x| x as f32),
    }
}

/// The cosine of the angle to a change; none where that is 0, and 0 where nothing of it is left.
fn cosine(projected: &LowRank, change: &LowRank) -> Option<f64> {
    let (left, size) = (projected.norm(), change.norm());
    let of_rest = || projected.inner(change) / (left * size);
    (size > 0.0).then(|| if left > 0.0 { of_rest() } else { 0.0 })
}

/// The cosines of all modules that have one.
pub(super) fn cosines(aligned: &BTreeMap<ModulePath, Aligned>) -> BTreeMap<ModulePath, f64> {
    let known = aligned
        .iter()
        .filter_map(|(path, module)| Some((path.clone(), module.cosine?)));
    known.collect()
}
