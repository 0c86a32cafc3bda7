//! Diagonal estimators: with g_i the gradient of sample i's loss with respect to all entries of A and B,
//!
//! - `diag-variance`: Var_i[g_i] = E_i[g_i^2] - E_i[g_i]^2, elementwise, population variance;
//! - `diag`: E_i[g_i^2], the diagonal of the empirical Fisher information (Kunstner et al. 2019, equation 3).
//!
//! The sums are kept in f64 on the model's device: 16 bytes per parameter, whatever the number of samples.

use crate::{Error, Protocol};
use serde::{Deserialize, Serialize};
use sst_data::Example;
use sst_model::{Encoded, Labels, LanguageModel, Objective, TokenWeight, floats};
use sst_subspace::{DiagonalFisher, Estimator, FisherMeta};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Settings of a Fisher estimate.
///
/// | field | meaning | default |
/// | --- | --- | --- |
/// | `estimator` | `diag-variance` or `diag` | `diag-variance` |
/// | `protocol` | `response` or `legacy-prompt` | `response` |
/// | `samples` | examples used, the first of one seeded order; all where not given | all |
/// | `max_tokens` | longer examples are left out and counted | 1024 |
/// | `seed` | order of the examples | 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the table above documents the fields together
pub struct FisherConfig {
    pub estimator: Estimator,
    pub protocol: Protocol,
    pub samples: Option<usize>,
    pub max_tokens: usize,
    pub seed: u64,
}

impl Default for FisherConfig {
    fn default() -> Self {
        Self {
            estimator: Estimator::DiagVariance,
            protocol: Protocol::Response,
            samples: None,
            max_tokens: 1024,
            seed: 0,
        }
    }
}

/// What a caller shows after every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FisherProgress {
    /// Samples done.
    pub done: usize,
    /// Samples in all.
    pub total: usize,
}

/// Estimates the diagonal Fisher information of the LoRA parameters of `adapter`, on the model with that adapter.
///
/// Every entry is in nats squared per squared parameter unit. Batches are cut by the model's limits; their shape changes
/// the result only by rounding.
///
/// # Errors
/// [`Error::Samples`] when fewer than the estimator needs are left, [`Error::NotFinite`] naming the tensor whose gradient is
/// not finite, [`Error::Model`] when the adapter is not loaded.
pub fn diagonal_fisher(
    model: &mut LanguageModel,
    adapter: &str,
    examples: &[Example],
    config: &FisherConfig,
    progress: &mut dyn FnMut(FisherProgress),
) -> Result<DiagonalFisher, Error> {
    let rows = encode(model, examples, config)?;
    let moments = moments(model, adapter, &rows, progress)?;
    let n = rows.len() as f64;
    let layout = model.adapter(adapter)?.download()?.layout();
    let mut values = Vec::with_capacity(layout.len());
    for slot in layout.slots() {
        let Some(m) = moments.get(&slot.name) else {
            return Err(Error::NotFinite {
                tensor: slot.name.clone(),
            });
        };
        let second = &m.squares / n;
        let entries = match config.estimator {
            Estimator::Diag => second,
            Estimator::DiagVariance => (second - (&m.sum / n).square()).clamp_min(0.0),
        };
        if entries.isfinite().all().int64_value(&[]) == 0 {
            return Err(Error::NotFinite {
                tensor: slot.name.clone(),
            });
        }
        values.extend(floats(&entries));
    }
    let meta = FisherMeta {
        estimator: config.estimator,
        protocol: config.protocol.name().to_owned(),
        samples: rows.len() as u64,
        tokens: rows.iter().map(|r| r.scored() as u64).sum(),
        seed: config.seed,
        ridge: sst_subspace::ESTIMATOR_RIDGE,
    };
    Ok(DiagonalFisher::new(layout, values, meta)?)
}

/// Running sums of one tensor's per-sample gradients, f64.
struct Moments {
    sum: Tensor,
    squares: Tensor,
}

fn encode(model: &LanguageModel, examples: &[Example], config: &FisherConfig) -> Result<Vec<Encoded>, Error> {
    let chosen = sst_data::sample(examples, config.samples.unwrap_or(examples.len()), config.seed);
    let mut rows = Vec::with_capacity(chosen.len());
    let mut too_long = 0;
    for example in &chosen {
        match config.protocol.encode(model, example, config.max_tokens)? {
            Some(row) => rows.push(row),
            None => too_long += 1,
        }
    }
    let (estimator, needed) = match config.estimator {
        Estimator::DiagVariance => ("diag-variance", 2),
        Estimator::Diag => ("diag", 1),
    };
    if rows.len() < needed {
        let (got, max_tokens) = (rows.len(), config.max_tokens);
        return Err(Error::Samples {
            estimator,
            needed,
            got,
            too_long,
            max_tokens,
        });
    }
    if too_long > 0 {
        tracing::warn!(too_long, config.max_tokens, "samples left out: longer than max_tokens");
    }
    Ok(rows)
}

fn moments(
    model: &LanguageModel,
    adapter: &str,
    rows: &[Encoded],
    progress: &mut dyn FnMut(FisherProgress),
) -> Result<BTreeMap<String, Moments>, Error> {
    let lengths: Vec<usize> = rows.iter().map(|r| r.ids.len()).collect();
    let mut moments = BTreeMap::new();
    let mut done = 0;
    for batch in model.limits().plan(&lengths) {
        let batch: Vec<&Encoded> = batch.iter().map(|&i| &rows[i]).collect();
        let objective = Objective {
            adapters: &[adapter],
            labels: Labels::Given,
            weight: TokenWeight::RowMean,
        };
        model.backward(&batch, &objective, &|_| true, &mut |reading| {
            for module in reading.per_sample(0) {
                add(&mut moments, format!("{}.lora_A", module.path), &module.a);
                add(&mut moments, format!("{}.lora_B", module.path), &module.b);
            }
            Ok::<(), Error>(())
        })?;
        done += batch.len();
        progress(FisherProgress {
            done,
            total: rows.len(),
        });
    }
    Ok(moments)
}

/// Adds the per-sample gradients [batch, rows, cols] of one tensor to its sums.
fn add(moments: &mut BTreeMap<String, Moments>, name: String, gradients: &Tensor) {
    let gradients = gradients.to_kind(Kind::Double);
    let over_batch = |t: &Tensor| t.sum_dim_intlist([0].as_slice(), false, Kind::Double);
    let (sum, squares) = (over_batch(&gradients), over_batch(&gradients.square()));
    match moments.get_mut(&name) {
        Some(m) => {
            m.sum += sum;
            m.squares += squares;
        }
        None => {
            moments.insert(name, Moments { sum, squares });
        }
    }
}
