//! RegMean: the change whose outputs are nearest to every adapter's on that adapter's own inputs.
//!
//! M minimises sum_t w_t tr((M - dW_t) A_t (M - dW_t)^T), the squared distance of the outputs over inputs of covariance A_t
//! (Jin et al. 2023, "Dataless knowledge fusion by merging weights of language models"). The base
//! model's weights drop out, and
//!
//! M = (sum_t w_t dW_t A_t) (sum_t w_t A_t)^-1, with b_t a_t for dW_t: B stays, and a_t becomes w_t a_t A_t (sum A)^-1.
//!
//! So the merge is exactly a LoRA of the sum of the ranks, and costs one Cholesky factor of d_in per distinct input.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `alpha` | 0.9 | factor of the entries of A_t off the diagonal, in [0, 1]; 0.9 is the paper's |
//! | `ridge` | 1e-6 | share of the mean diagonal entry of A_t that is added to its diagonal |
//! | `rank` | none | cuts every module to this rank; the sum of the ranks when absent |
//!
//! A_t are means over tokens here, as in the authors' code, so that adapters with more data do not weigh more. The ridge is
//! ours: it is part of A_t on both sides of the equation, so that one adapter comes back as it was, and inputs that no
//! adapter ever saw are averaged. An adapter without the module and without statistics of it takes no part there; one that
//! has the module must have its statistics.
//!
//! Memory: three matrices `[d_in, d_in]` of f64.

use super::matrix::{array, cholesky, matrix, times_f64};
use super::parts::{Part, parts, shape};
use super::{MergeStrategy, Needs, check_not_negative, check_rank, check_share};
use crate::{Error, MergeInputs, Merged, Statistics};
use faer::linalg::solvers::Solve;
use ndarray::{Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};
use sst_adapter::{LowRank, ModulePath};
use sst_subspace::KroneckerFisher;
use std::collections::BTreeMap;

const NAME: &str = "regmean";

/// Settings of [`RegMean`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegMeanConfig {
    /// Factor of covariances off the diagonal.
    pub alpha: f64,
    /// Share of the mean diagonal entry that is added to the diagonal.
    pub ridge: f64,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for RegMeanConfig {
    fn default() -> Self {
        Self {
            alpha: 0.9,
            ridge: 1e-6,
            rank: None,
        }
    }
}

impl RegMeanConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for an alpha outside [0, 1], a ridge that is NaN, infinite or negative, or rank 0.
    pub fn check(self) -> Result<RegMean, Error> {
        check_share(NAME, "alpha", self.alpha)?;
        check_not_negative(NAME, "ridge", self.ridge)?;
        check_rank(NAME, self.rank)?;
        Ok(RegMean { config: self })
    }
}

/// M = (sum_t w_t dW_t A_t) (sum_t w_t A_t)^-1.
#[derive(Debug, Clone, PartialEq)]
pub struct RegMean {
    config: RegMeanConfig,
}

/// The covariances that a module's adapters are weighed by: adapter, weight's bits, and the layer that holds A.
type Inputs = Vec<(usize, u64, ModulePath)>;

impl MergeStrategy for RegMean {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::RegMean(self.config.clone()))
    }

    fn needs(&self) -> Needs {
        Needs {
            statistics: true,
            ..Needs::default()
        }
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let statistics = inputs.statistics.ok_or(Error::NoStatistics { strategy: NAME })?;
        let (expected, got) = (inputs.utilities.len(), statistics.utility.len());
        if expected != got {
            return Err(Error::StatisticsCount { expected, got });
        }
        // q, k and v read the same input: one factor for all of them.
        let mut groups: BTreeMap<Inputs, Vec<(ModulePath, Vec<Part>)>> = BTreeMap::new();
        let mut merged = BTreeMap::new();
        for path in inputs.modules() {
            let (parts, covariances) = weighed(inputs, statistics, &path)?;
            if parts.is_empty() {
                merged.insert(path.clone(), LowRank::zero(shape(inputs, &path)));
            } else {
                groups.entry(covariances).or_default().push((path, parts));
            }
        }
        for (covariances, modules) in groups {
            merged.extend(self.merge_group(statistics, &covariances, modules)?);
        }
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }
}

impl RegMean {
    /// The modules that read one input; every module has one part per covariance.
    fn merge_group(
        &self,
        statistics: &Statistics<'_>,
        covariances: &Inputs,
        modules: Vec<(ModulePath, Vec<Part>)>,
    ) -> Result<Vec<(ModulePath, LowRank)>, Error> {
        let first = &modules[0].0;
        let mut sum: Option<Array2<f64>> = None;
        let mut rows: Vec<Vec<Array2<f64>>> = vec![Vec::new(); modules.len()]; // w_t a_t A_t, [r_t, d_in]
        for (t, (adapter, bits, owner)) in covariances.iter().enumerate() {
            let covariance = self.covariance(fisher(statistics, *adapter), owner, f64::from_bits(*bits))?;
            for ((path, parts), rows) in modules.iter().zip(&mut rows) {
                let a = parts[t].change.a.mapv(f64::from);
                if a.ncols() != covariance.nrows() {
                    return Err(Error::StatisticsShape {
                        module: path.to_string(),
                        expected: a.ncols(),
                        got: covariance.nrows(),
                    });
                }
                rows.push(times_f64(a.view(), covariance.view()));
            }
            sum = Some(match sum {
                None => covariance,
                Some(sum) => sum + &covariance,
            });
        }
        let singular = || Error::SingularStatistics {
            module: first.to_string(),
        };
        let sum = sum.ok_or_else(singular)?;
        let factor = cholesky(sum.view()).ok_or_else(singular)?;
        drop(sum);
        let solved = modules.into_iter().zip(rows).map(|((path, parts), rows)| {
            let views: Vec<_> = rows.iter().map(|rows| rows.view()).collect();
            let rows = concatenate(Axis(0), &views).expect("widths are checked");
            let a = factor.solve(matrix(rows.t()).as_ref()); // [d_in, sum of ranks]
            let beside: Vec<_> = parts.iter().map(|part| part.change.b.view()).collect();
            let change = LowRank {
                a: array(a.transpose()).mapv(|x| x as f32),
                b: concatenate(Axis(1), &beside).expect("heights are the module's"),
            };
            Ok((path, change))
        });
        solved.collect()
    }

    /// w (alpha A + (1 - alpha) diag A + ridge I).
    fn covariance(&self, fisher: &KroneckerFisher, owner: &ModulePath, weight: f64) -> Result<Array2<f64>, Error> {
        let mut covariance = fisher.input_factor(owner)?;
        let diagonal = covariance.diag().to_owned();
        let ridge = self.config.ridge * diagonal.mean().unwrap_or(0.0);
        covariance *= weight * self.config.alpha;
        covariance.diag_mut().assign(&((diagonal + ridge) * weight));
        Ok(covariance)
    }
}

/// The parts of a module that have statistics, and where those are.
fn weighed(
    inputs: &MergeInputs<'_>,
    statistics: &Statistics<'_>,
    path: &ModulePath,
) -> Result<(Vec<Part>, Inputs), Error> {
    let (mut weighed, mut covariances) = (Vec::new(), Vec::new());
    for part in parts(inputs, path) {
        if part.weight < 0.0 {
            let weight = part.weight;
            let reason = format!("{weight} in module {path}: RegMean's least squares take no negative weight");
            return Err(Error::Weights { reason });
        }
        match fisher(statistics, part.adapter).input(path) {
            Ok(owner) => {
                covariances.push((part.adapter, part.weight.to_bits(), owner.clone()));
                weighed.push(part);
            }
            Err(_) if part.change.rank() == 0 => {}
            Err(missing) => return Err(missing.into()),
        }
    }
    Ok((weighed, covariances))
}

fn fisher<'a>(statistics: &Statistics<'a>, adapter: usize) -> &'a KroneckerFisher {
    statistics.utility.get(adapter).copied().unwrap_or(statistics.safety)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for alpha in [f64::NAN, -0.1, 1.1] {
            let config = RegMeanConfig {
                alpha,
                ..RegMeanConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`alpha`"), "{message}");
        }
        for ridge in [f64::NAN, -1e-6] {
            let config = RegMeanConfig {
                ridge,
                ..RegMeanConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`ridge`"), "{message}");
        }
    }
}
