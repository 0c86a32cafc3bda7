//! `sst merge`

use crate::options::Options;
use anyhow::{Context, bail};
use clap::Args;
use sst_adapter::Dtype;
use sst_experiment::step::{MergeStep, merge};
use sst_merge::{AlignmentPaths, MergeRecipe, Mode, Preset, STRATEGIES, StatisticsPaths, StrategyConfig};
use sst_model::Precision;
use sst_subspace::Projection;
use std::path::PathBuf;

/// Merge utility adapters with a safety adapter into a PEFT folder.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst merge recipe.toml --out runs/merged
  sst merge --strategy v1 --utility runs/A5 --safety runs/A7 --subspace runs/subspace -k 20 --alpha 1 --out runs/v1
  sst merge --strategy v2 --utility runs/A5 --utility runs/A6 --safety runs/A7 --subspace runs/subspace \\
    -k 20 --weight 0.8 --mode residual --out runs/v2
  sst merge --strategy sst --set gamma=0.3 --utility runs/A5 --safety runs/A7 \\
    --statistics-utility runs/fisher/repliqa --statistics-utility runs/fisher/alpaca \\
    --statistics-safety runs/fisher/jailbreak --out runs/sst
  sst merge --strategy ties --set density=0.5 --set rank=16 --utility runs/A5 --safety runs/A7 --out runs/ties")]
pub struct Merge {
    /// A TOML file with adapters, method and settings, in place of the flags below.
    #[arg(value_name = "RECIPE", conflicts_with_all = ["strategy", "utility", "safety"])]
    recipe: Option<PathBuf>,
    /// The method; docs/baselines.md and docs/sst.md describe them.
    #[arg(long, required_unless_present = "recipe", value_parser = clap::builder::PossibleValuesParser::new(STRATEGIES.iter().copied()))]
    strategy: Option<String>,
    /// A setting of the method, in TOML: density=0.5, mode="residual". May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "recipe")]
    settings: Vec<String>,
    /// Folder of a utility adapter; may be repeated.
    #[arg(long, value_name = "DIR", required_unless_present = "recipe")]
    utility: Vec<PathBuf>,
    /// Folder of the safety adapter.
    #[arg(long, value_name = "DIR", required_unless_present = "recipe")]
    safety: Option<PathBuf>,
    /// Folder of the safety subspace, as `sst subspace` writes it.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe")]
    subspace: Option<PathBuf>,
    /// Folder of Kronecker factors over utility data, as `sst fisher --estimator kron` writes it; may be repeated.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe", requires = "statistics_safety")]
    statistics_utility: Vec<PathBuf>,
    /// Folder of Kronecker factors over safety data.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe", requires = "statistics_utility")]
    statistics_safety: Option<PathBuf>,
    /// Folder of an aligned model; with --base, what alignment changed.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe", requires = "base")]
    aligned: Option<PathBuf>,
    /// Folder of the model that the aligned one was made from.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe", requires = "aligned")]
    base: Option<PathBuf>,
    /// Folder of diagonal Fisher information; one per adapter, the safety adapter's last.
    #[arg(long, value_name = "DIR", conflicts_with = "recipe")]
    diagonal: Vec<PathBuf>,
    /// Directions of the subspace to use.
    #[arg(short, long, conflicts_with = "recipe")]
    k: Option<i64>,
    /// v1: scale of the whole merge.
    #[arg(long, allow_negative_numbers = true, conflicts_with = "recipe")]
    alpha: Option<f64>,
    /// v2, task-arithmetic: weight of the safety part.
    #[arg(long, allow_negative_numbers = true, conflicts_with = "recipe")]
    weight: Option<f64>,
    /// v2: projected, residual, layerwise or direct.
    #[arg(long, conflicts_with = "recipe")]
    mode: Option<Mode>,
    /// v2 residual: share of the unprojected S.
    #[arg(long, value_name = "R", conflicts_with = "recipe")]
    residual: Option<f64>,
    /// v2 layerwise: balanced, safety_first, utility_first or minimal.
    #[arg(long, conflicts_with = "recipe")]
    preset: Option<Preset>,
    /// v1, v2. aligned: each tensor is projected by its own slice of the basis. prefix: by the basis' first rows, as the
    /// earlier study's code did.
    #[arg(long, conflicts_with = "recipe")]
    projection: Option<Projection>,
    /// Seed of methods that draw and of the random-subspace control.
    #[arg(long, conflicts_with = "recipe")]
    seed: Option<u64>,
    /// Precision of the written adapter: f32, bf16 or f16.
    #[arg(long, conflicts_with = "recipe")]
    out_dtype: Option<Dtype>,
    /// Folder for the merged adapter.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Merge {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        if options.dtype != Precision::default() {
            bail!("--dtype is the base model's, and merging runs none; use --out-dtype, or `dtype` in the recipe");
        }
        let recipe = match &self.recipe {
            Some(path) => MergeRecipe::read(path)?,
            None => self.by_flags()?,
        };
        let step = MergeStep {
            recipe,
            command: super::command_line(),
            out: self.out,
        };
        let diagnostics = merge(&step)?;
        let mut text = format!("{}: ", step.out.display());
        if let Some(energy) = diagnostics.retained_energy {
            text += &format!("retained energy {energy:.4e}");
            if let Some(control) = &diagnostics.random_control {
                text += &format!(" (random subspace of the same k: {:.4e})", control.retained_energy);
            }
            text += ", ";
        }
        text += &format!(
            "|U| {:.4}, |S| {:.4}, |M| {:.4}",
            diagnostics.norm_utility, diagnostics.norm_safety, diagnostics.norm_merged
        );
        if let Some(output) = &diagnostics.output {
            text += &format!(", rank up to {}", output.rank_max);
            if output.relative_error > 0.0 {
                text += &format!(", {:.2} % of the merge cut off", 100.0 * output.relative_error);
            }
        }
        options.print(&diagnostics, &text)
    }

    fn by_flags(&self) -> anyhow::Result<MergeRecipe> {
        let statistics = self.statistics_safety.clone().map(|safety| StatisticsPaths {
            utility: self.statistics_utility.clone(),
            safety,
        });
        let models = self.aligned.clone().zip(self.base.clone());
        let safety = self.safety.clone().context("--safety is missing")?;
        Ok(MergeRecipe {
            alignment: models.map(|(aligned, base)| AlignmentPaths { aligned, base }),
            subspace: self.subspace.clone(),
            statistics,
            diagonals: self.diagonal.clone(),
            seed: self.seed.unwrap_or_default(),
            dtype: self.out_dtype.unwrap_or_default(),
            ..MergeRecipe::new(self.utility.clone(), safety, self.method()?)
        })
    }

    /// The strategy and its settings, as a recipe would spell them.
    fn method(&self) -> anyhow::Result<StrategyConfig> {
        let name = self.strategy.clone().context("--strategy is missing")?;
        let mut table = super::settings(&self.settings)?;
        let flags = [
            ("k", self.k.map(toml::Value::from)),
            ("alpha", self.alpha.map(toml::Value::from)),
            ("weight", self.weight.map(toml::Value::from)),
            ("mode", self.mode()?.map(toml::Value::try_from).transpose()?),
            ("projection", self.projection.map(toml::Value::try_from).transpose()?),
        ];
        table.extend(
            flags
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?))),
        );
        table.insert("strategy".to_owned(), name.clone().into());
        let config: StrategyConfig = table
            .try_into()
            .map_err(|e: toml::de::Error| anyhow::anyhow!("strategy {name}: {}", e.message()))?;
        Ok(config)
    }

    fn mode(&self) -> anyhow::Result<Option<Mode>> {
        Ok(match (self.mode, self.residual, self.preset) {
            (Some(Mode::Residual { r: default }), r, None) => Some(Mode::Residual {
                r: r.unwrap_or(default),
            }),
            (Some(Mode::Layerwise { preset: default }), None, p) => Some(Mode::Layerwise {
                preset: p.unwrap_or(default),
            }),
            (mode, None, None) => mode,
            (_, Some(_), _) => bail!("--residual belongs to --mode residual"),
            (_, _, Some(_)) => bail!("--preset belongs to --mode layerwise"),
        })
    }
}
