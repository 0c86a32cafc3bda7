//! The training loop.

use super::adamw::AdamW;
use super::checkpoint;
use super::config::CheckedTrainConfig;
use crate::Error;
use crate::backward::{Objective, TokenWeight};
use crate::batch::BatchLimits;
use crate::counter::uniform;
use crate::likelihood::Encoded;
use crate::model::LanguageModel;
use ndarray::Array2;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, LoraConfig, ModulePath};
use sst_data::Example;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Name of the adapter under training inside the model.
const NAME: &str = "training";

/// What a caller shows after every optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps taken, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Mean loss per response token of this step, nats.
    pub loss: f64,
    /// Tokens processed in this step, prompts included.
    pub tokens: usize,
}

/// What a finished run measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Examples used.
    pub examples: usize,
    /// Examples left out because they were longer than `max_tokens` or the model's context.
    pub too_long: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Trainable parameters.
    pub parameters: usize,
    /// Mean loss per response token over the first tenth of the steps, nats.
    pub first_loss: f64,
    /// The same over the last tenth.
    pub last_loss: f64,
    /// Loss of every step.
    pub losses: Vec<f64>,
}

/// A fine-tuning run of one adapter.
///
/// ```no_run
/// # use sst_model::*;
/// # fn main() -> Result<(), Error> {
/// # let examples: Vec<sst_data::Example> = vec![];
/// let mut model = LanguageModel::load("model".as_ref(), DeviceChoice::Auto, Precision::F32)?;
/// let config = TrainConfig { epochs: 1, ..TrainConfig::default() }.check()?;
/// let (adapter, report) = Trainer::new(&mut model, &examples, config)?.run(&mut |_| ())?;
/// println!("{} steps, loss {:.3}", report.steps, report.last_loss);
/// # Ok(()) }
/// ```
pub struct Trainer<'a> {
    model: &'a mut LanguageModel,
    encoded: Vec<Encoded>,
    too_long: usize,
    config: CheckedTrainConfig,
    checkpoint: Option<(PathBuf, String)>,
}

impl<'a> Trainer<'a> {
    /// Tokenises the examples; those longer than `max_tokens` or the model's context are left out.
    ///
    /// # Errors
    /// [`Error::Example`] when none is left; [`Error::Setting`] when no linear has a name in `targets`.
    pub fn new(model: &'a mut LanguageModel, examples: &[Example], config: CheckedTrainConfig) -> Result<Self, Error> {
        let limit = config.get().max_tokens.min(model.max_position());
        let mut encoded = Vec::with_capacity(examples.len());
        let mut too_long = 0;
        for example in examples {
            match model.encode_response(example)? {
                row if row.ids.len() > limit => too_long += 1,
                row => encoded.push(row),
            }
        }
        if encoded.is_empty() {
            let reason = format!(
                "no example is left of {} ({too_long} are longer than {limit} tokens)",
                examples.len()
            );
            return Err(Error::Example {
                id: "training data".into(),
                reason,
            });
        }
        if too_long > 0 {
            tracing::info!(
                too_long,
                limit,
                "examples left out: longer than max_tokens or the model's context"
            );
        }
        for target in &config.get().targets {
            if model.modules(std::slice::from_ref(target)).is_empty() {
                let reason = "no linear module of the model has this name; use q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj";
                return Err(Error::Setting {
                    key: "targets",
                    value: target.clone(),
                    reason,
                });
            }
        }
        Ok(Self {
            model,
            encoded,
            too_long,
            config,
            checkpoint: None,
        })
    }

    /// Writes checkpoints to `path`, and goes on from one that is there and has the same `fingerprint`.
    #[must_use]
    pub fn checkpoint(mut self, path: &Path, fingerprint: &str) -> Self {
        self.checkpoint = Some((path.to_path_buf(), fingerprint.to_owned()));
        self
    }

    /// Trains to the end. `progress` is called after every step. The checkpoint stays: the caller deletes it once the
    /// adapter is safely stored.
    ///
    /// # Errors
    /// [`Error::Diverged`] at the first loss or gradient that is not finite; [`Error::Checkpoint`] for one of another
    /// run; [`Error::Artefact`] when a checkpoint cannot be written.
    pub fn run(self, progress: &mut dyn FnMut(Progress)) -> Result<(Adapter, TrainReport), Error> {
        let initial = initial_adapter(self.model, &self.config)?;
        self.model.add_adapter(NAME, &initial)?;
        let outcome = self.steps(progress);
        let trained = self.model.adapter(NAME).and_then(crate::lora::Lora::download);
        self.model.remove_adapter(NAME);
        let losses = outcome?;
        let adapter = trained?;
        let tenth = losses.len().div_ceil(10);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let report = TrainReport {
            examples: self.encoded.len(),
            too_long: self.too_long,
            steps: losses.len(),
            parameters: adapter.layout().len(),
            first_loss: mean(&losses[..tenth]),
            last_loss: mean(&losses[losses.len() - tenth..]),
            losses,
        };
        Ok((adapter, report))
    }

    fn steps(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<f64>, Error> {
        let config = self.config.get();
        let per_step = config.batch_size * config.gradient_accumulation;
        let steps_per_epoch = self.encoded.len().div_ceil(per_step);
        let steps = steps_per_epoch * config.epochs;
        let (names, mut parameters): (Vec<String>, Vec<Tensor>) = self
            .model
            .adapter(NAME)?
            .tensors()
            .map(|(name, t)| (name, t.shallow_clone()))
            .unzip();
        let mut optimizer = AdamW::new(&parameters, config.weight_decay);
        let mut losses = Vec::with_capacity(steps);
        if let Some((path, fingerprint)) = &self.checkpoint {
            let device = parameters[0].device();
            let mut state = state(&names, &mut parameters, &mut optimizer);
            if let Some(found) = checkpoint::read(path, fingerprint, &mut state, device)? {
                tracing::info!(step = found.step, "resumed from a checkpoint");
                optimizer.step = found.step;
                losses = found.losses;
            }
        }
        let mut order = Vec::new();
        for step in losses.len()..steps {
            let (epoch, within) = (step / steps_per_epoch, step % steps_per_epoch);
            if within == 0 || order.is_empty() {
                order = shuffled(self.encoded.len(), config.seed, epoch);
            }
            let from = within * per_step;
            let members = &order[from..(from + per_step).min(order.len())];
            let Accumulated {
                loss,
                tokens,
                gradients,
            } = self.accumulate(members, &names)?;
            let rate = self.config.learning_rate(step, steps);
            let norm = AdamW::gradient_norm(&gradients);
            for (what, value) in [("loss", loss), ("gradient norm", norm)] {
                if !value.is_finite() {
                    return Err(Error::Diverged {
                        what,
                        value,
                        step: step + 1,
                        learning_rate: rate,
                    });
                }
            }
            let clip = (config.max_grad_norm / (norm + 1e-6)).min(1.0);
            optimizer.step(&mut parameters, &gradients, rate, clip);
            losses.push(loss);
            progress(Progress {
                step: step + 1,
                steps,
                loss,
                tokens,
            });
            if let Some((path, fingerprint)) = &self.checkpoint
                && config.checkpoint_every > 0
                && (step + 1) % config.checkpoint_every == 0
            {
                let now = checkpoint::Progress {
                    fingerprint: fingerprint.clone(),
                    step: step + 1,
                    losses: losses.clone(),
                };
                let mut state = state(&names, &mut parameters, &mut optimizer);
                let tensors: Vec<(String, &Tensor)> = state.iter_mut().map(|(name, t)| (name.clone(), &**t)).collect();
                checkpoint::write(path, &now, &tensors)?;
            }
        }
        Ok(losses)
    }

    /// The gradients of one optimizer step, in the order of `names`.
    fn accumulate(&self, members: &[usize], names: &[String]) -> Result<Accumulated, Error> {
        let rows: Vec<&Encoded> = members.iter().map(|&i| &self.encoded[i]).collect();
        let scored: usize = rows.iter().map(|row| row.scored()).sum();
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let limits = BatchLimits {
            rows: self.config.get().batch_size,
            tokens: self.model.limits().tokens,
        };
        let objective = Objective {
            adapters: &[NAME],
            draw_labels: None,
            weight: TokenWeight::Each(1.0 / scored as f64),
        };
        let trained = self.model.adapter(NAME)?;
        let mut sums: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut loss = 0.0;
        for batch in limits.plan(&lengths) {
            let batch: Vec<&Encoded> = batch.into_iter().map(|i| rows[i]).collect();
            let wanted = |path: &ModulePath| trained.get(path).is_some();
            let report = self.model.backward(&batch, &objective, &wanted, &mut |reading| {
                for of in reading.summed(0) {
                    for (factor, gradient) in [("lora_A", of.a), ("lora_B", of.b)] {
                        match sums.entry(format!("{}.{factor}", of.path)) {
                            Entry::Occupied(mut sum) => _ = sum.get_mut().g_add_(&gradient),
                            Entry::Vacant(place) => _ = place.insert(gradient),
                        }
                    }
                }
                Ok::<(), Error>(())
            })?;
            loss += report.losses.losses.sum(Kind::Double).double_value(&[]) / scored as f64;
        }
        Ok(Accumulated {
            loss,
            tokens: lengths.iter().sum(),
            gradients: names.iter().filter_map(|name| sums.remove(name)).collect(),
        })
    }
}

/// What one optimizer step follows.
struct Accumulated {
    /// Mean loss per response token, nats.
    loss: f64,
    /// Tokens, prompts included.
    tokens: usize,
    /// One per parameter.
    gradients: Vec<Tensor>,
}

/// Everything a checkpoint holds, by name.
fn state<'t>(
    names: &[String],
    parameters: &'t mut [Tensor],
    optimizer: &'t mut AdamW,
) -> Vec<(String, &'t mut Tensor)> {
    let moments = optimizer.moments.iter_mut();
    names
        .iter()
        .zip(parameters.iter_mut())
        .zip(moments)
        .flat_map(|((name, parameter), (first, second))| {
            [
                (name.clone(), parameter),
                (format!("{name}.exp_avg"), first),
                (format!("{name}.exp_avg_sq"), second),
            ]
        })
        .collect()
}

/// A from U(-1/sqrt d_in, 1/sqrt d_in), as PEFT's Kaiming initialisation gives; B zero.
fn initial_adapter(model: &LanguageModel, config: &CheckedTrainConfig) -> Result<Adapter, Error> {
    let config = config.get();
    let pairs = model.modules(&config.targets).into_iter().filter_map(|path| {
        let (d_out, d_in) = model.linear_shape(&path)?;
        let bound = 1.0 / (d_in as f64).sqrt();
        let name = format!("{path}.lora_A");
        let a = Array2::from_shape_fn((config.r, d_in), |(i, j)| {
            uniform(config.seed, &name, i * d_in + j, -bound, bound)
        });
        Some((path, a, Array2::zeros((d_out, config.r))))
    });
    let mut lora = LoraConfig::new(config.r, config.alpha, config.targets.clone());
    lora.use_rslora = config.rslora;
    Ok(Adapter::from_pairs(lora, pairs.collect::<Vec<_>>())?)
}

/// The order of examples in one epoch.
fn shuffled(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    order.shuffle(&mut random);
    order
}
