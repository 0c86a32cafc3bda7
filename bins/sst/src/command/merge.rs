//! `sst merge`

use crate::options::Options;
use clap::Args;
use sst_adapter::Dtype;
use sst_experiment::step::{MergeStep, merge};
use sst_merge::{Mode, Preset, StrategyConfig, V1Config, V2Config, strategy_by_name};
use sst_subspace::Projection;
use std::path::PathBuf;

/// Merge utility adapters with a safety adapter into a PEFT folder.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst merge --strategy v1 --utility runs/A5 --safety runs/A7 --subspace runs/subspace -k 20 --alpha 1 --out runs/v1
  sst merge --strategy v2 --utility runs/A5 --utility runs/A6 --safety runs/A7 --subspace runs/subspace \\
    -k 20 --weight 0.8 --mode residual --out runs/v2")]
pub struct Merge {
    /// v1: alpha U + alpha P S. v2: U + w S'.
    #[arg(long)]
    strategy: String,
    /// Folder of a utility adapter; several are averaged.
    #[arg(long, value_name = "DIR", required = true)]
    utility: Vec<PathBuf>,
    /// Folder of the safety adapter.
    #[arg(long, value_name = "DIR")]
    safety: PathBuf,
    /// Folder of the safety subspace, as `sst subspace` writes it.
    #[arg(long, value_name = "DIR")]
    subspace: Option<PathBuf>,
    /// Directions of the subspace to use.
    #[arg(short, long)]
    k: Option<usize>,
    /// v1: scale of the whole merge.
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// v2: weight of S'.
    #[arg(long, allow_negative_numbers = true)]
    weight: Option<f64>,
    /// v2: projected, residual, layerwise or direct.
    #[arg(long)]
    mode: Option<Mode>,
    /// v2 residual: share of the unprojected S.
    #[arg(long, value_name = "R")]
    residual: Option<f64>,
    /// v2 layerwise: balanced, safety_first, utility_first or minimal.
    #[arg(long)]
    preset: Option<Preset>,
    /// aligned: each tensor is projected by its own slice of the basis. prefix: by the basis' first rows, as the earlier
    /// study's code did.
    #[arg(long, default_value = "aligned")]
    projection: Projection,
    /// Seed of the random-subspace control.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Precision of the written adapter: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    out_dtype: Dtype,
    /// Folder for the merged adapter.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Merge {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let strategy = self.strategy()?;
        let step = MergeStep {
            utility: self.utility,
            safety: self.safety,
            basis: self.subspace,
            strategy,
            seed: self.seed,
            dtype: self.out_dtype,
            command: super::command_line(),
            out: self.out,
        };
        let diagnostics = merge(&step)?;
        let share = |energy: Option<f64>| energy.map_or("not projected".to_owned(), |e| format!("{:.4e}", e));
        let text = format!(
            "{}: retained energy {} (random subspace of the same k: {}), |U| {:.4}, |S| {:.4}, |M| {:.4}",
            step.out.display(),
            share(diagnostics.retained_energy),
            share(diagnostics.random_control.as_ref().map(|c| c.retained_energy)),
            diagnostics.norm_utility,
            diagnostics.norm_safety,
            diagnostics.norm_merged
        );
        options.print(&diagnostics, &text)
    }

    fn strategy(&self) -> anyhow::Result<StrategyConfig> {
        let projection = self.projection;
        Ok(match strategy_by_name(&self.strategy)? {
            StrategyConfig::V1(default) => {
                self.refuse(
                    "v1",
                    &[("weight", self.weight.is_some()), ("mode", self.mode.is_some())],
                )?;
                self.refuse(
                    "v1",
                    &[("residual", self.residual.is_some()), ("preset", self.preset.is_some())],
                )?;
                StrategyConfig::V1(V1Config {
                    k: self.k.unwrap_or(default.k),
                    alpha: self.alpha.unwrap_or(default.alpha),
                    projection,
                })
            }
            StrategyConfig::V2(default) => {
                self.refuse("v2", &[("alpha", self.alpha.is_some())])?;
                StrategyConfig::V2(V2Config {
                    k: self.k.unwrap_or(default.k),
                    weight: self.weight.unwrap_or(default.weight),
                    mode: self.mode(default.mode)?,
                    projection,
                })
            }
            other => anyhow::bail!("strategy {other:?} has no flags of its own"),
        })
    }

    fn mode(&self, default: Mode) -> anyhow::Result<Mode> {
        let mode = match (self.mode.unwrap_or(default), self.residual, self.preset) {
            (Mode::Residual { r: default }, r, None) => Mode::Residual {
                r: r.unwrap_or(default),
            },
            (Mode::Layerwise { preset: default }, None, p) => Mode::Layerwise {
                preset: p.unwrap_or(default),
            },
            (mode, None, None) => mode,
            (_, Some(_), _) => anyhow::bail!("--residual belongs to --mode residual"),
            (_, _, Some(_)) => anyhow::bail!("--preset belongs to --mode layerwise"),
        };
        Ok(mode)
    }

    fn refuse(&self, strategy: &str, flags: &[(&str, bool)]) -> anyhow::Result<()> {
        match flags.iter().find(|(_, given)| *given) {
            Some((flag, _)) => anyhow::bail!("--{flag} is not a setting of {strategy}"),
            None => Ok(()),
        }
    }
}
