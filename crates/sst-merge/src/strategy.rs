//! The trait that every merge method implements, and the methods by name.

mod alignment;
mod breadcrumbs;
mod dare;
mod della;
mod elementwise;
mod fisher;
mod iso;
mod knots;
mod linear;
mod lox;
mod matrix;
mod parts;
mod projected;
mod reg_mean;
mod resta;
mod safe_lora;
mod safe_merge;
mod singular;
mod slerp;
mod sst;
mod stacked;
mod task_arithmetic;
mod ties;
mod tsv_m;
mod v1;
mod v2;

pub use alignment::{Alignment, AlignmentProjection, AlignmentReport};
pub use breadcrumbs::{Breadcrumbs, BreadcrumbsConfig};
pub use dare::{Dare, DareConfig};
pub use della::{Della, DellaConfig};
pub use elementwise::{Convention, EntrySpace, MajoritySign};
pub use fisher::{FisherMerging, FisherMergingConfig};
pub use iso::{IsoC, IsoCConfig, IsoCts, IsoCtsConfig};
pub use knots::{Combine, Knots, KnotsConfig, KnotsMerge};
pub use linear::{Linear, LinearConfig, LinearConvention};
pub use lox::{Lox, LoxConfig};
pub use reg_mean::{RegMean, RegMeanConfig};
pub use resta::{Resta, RestaConfig};
pub use safe_lora::{SafeLora, SafeLoraConfig, Select};
pub use safe_merge::{SafeMerge, SafeMergeConfig};
pub use slerp::{Granularity, Nuslerp, NuslerpConfig, Slerp, SlerpConfig};
pub use sst::{
    CurvePoint, GammaOverride, SPECTRUM_UP_TO, SafetyDelta, Sigma, Sst, SstConfig, SstModule, SstReport, Tradeoff,
    Weighting,
};
pub use task_arithmetic::{TaskArithmetic, TaskArithmeticConfig};
pub use ties::{Ties, TiesConfig};
pub use tsv_m::{Truncate, TsvM, TsvMConfig};
pub use v1::{V1, V1Config};
pub use v2::{DEFAULT_RESIDUAL, Mode, Preset, Strengths, V2, V2Config};

use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// Directions of the study's main comparison.
pub const DEFAULT_K: usize = 20;

/// The names that [`strategy_by_name`] knows.
pub const STRATEGIES: &[&str] = &[
    "sst",
    "v1",
    "v2",
    "linear",
    "task-arithmetic",
    "ties",
    "dare",
    "dare-ties",
    "della",
    "breadcrumbs",
    "slerp",
    "nuslerp",
    "fisher",
    "regmean",
    "knots",
    "tsv-m",
    "iso-c",
    "iso-cts",
    "lox",
    "safelora",
    "safemerge",
    "resta",
];

/// What a strategy reads besides the adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// [`MergeInputs::basis`] must be given.
    pub basis: bool,
    /// [`MergeInputs::statistics`] must be given.
    pub statistics: bool,
    /// [`MergeInputs::diagonals`] must be given.
    pub diagonals: bool,
    /// Weights of models must be given: [`MergeInputs::alignment`].
    pub base: bool,
}

/// A merge method with its settings checked.
///
/// A downstream crate adds a method by implementing this; [`Merged::from_phi`] and [`Merged::from_low_rank`] measure its
/// result.
pub trait MergeStrategy: Debug + Send + Sync {
    /// Its name in recipes and reports.
    fn name(&self) -> &'static str;

    /// Its settings, defaults filled in, as the manifest keeps them.
    fn config(&self) -> serde_json::Value;

    /// What must be given besides the adapters: nothing, unless the method says otherwise.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Merges; the same inputs give the same bits.
    ///
    /// # Errors
    /// [`Error::Adapter`] when the adapters do not fit together, naming the tensor and both shapes; [`Error::NoUtility`],
    /// [`Error::BaseModelsDiffer`], [`Error::Weights`]. For what [`MergeStrategy::needs`] asks for: [`Error::NoBasis`],
    /// [`Error::NoStatistics`], [`Error::NoDiagonals`] or [`Error::NoAlignment`] when it is missing; [`Error::Subspace`] and
    /// the variants that say which module, shape or count is at fault when it does not fit.
    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error>;
}

/// A strategy as a recipe spells it: `strategy = "v1"` and its settings, not yet checked.
///
/// ```
/// use sst_merge::{MergeStrategy, StrategyConfig};
/// let recipe = r#"{"strategy": "v2", "k": 50, "mode": {"residual": {"r": 0.8}}}"#;
/// let strategy = serde_json::from_str::<StrategyConfig>(recipe).unwrap().check().unwrap();
/// assert_eq!(strategy.name(), "v2");
/// assert_eq!(strategy.config()["weight"], 1.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StrategyConfig {
    /// The minimiser of the utility's and the safety's quadratic loss.
    Sst(SstConfig),
    /// M = alpha U + alpha P S.
    V1(V1Config),
    /// M = U + w S'.
    V2(V2Config),
    /// The weighted mean of the changes.
    Linear(LinearConfig),
    /// The weighted sum of the changes.
    TaskArithmetic(TaskArithmeticConfig),
    /// Trim, elect signs, average what agrees.
    Ties(TiesConfig),
    /// Drop at random, rescale, add.
    Dare(DareConfig),
    /// Drop at random, rescale, then as TIES.
    DareTies(DareConfig),
    /// Drop the smaller the likelier, rescale, then as TIES.
    Della(DellaConfig),
    /// Drop the largest and the small, add.
    Breadcrumbs(BreadcrumbsConfig),
    /// Along the arc, at a given place.
    Slerp(SlerpConfig),
    /// Along the arc, at the share of the weights.
    Nuslerp(NuslerpConfig),
    /// Entries merged in a shared basis of outputs.
    Knots(KnotsConfig),
    /// Leading singular vectors, made orthogonal.
    TsvM(TsvMConfig),
    /// The sum with a flat spectrum.
    IsoC(IsoCConfig),
    /// The sum and what it lacks of each adapter, with a flat spectrum.
    IsoCts(IsoCtsConfig),
    /// U and an extrapolation of S.
    Lox(LoxConfig),
    /// U projected onto the alignment subspace where it leaves it.
    #[serde(rename = "safelora")]
    SafeLora(SafeLoraConfig),
    /// U merged with S where it leaves the alignment subspace.
    #[serde(rename = "safemerge")]
    SafeMerge(SafeMergeConfig),
    /// U, possibly thinned out, and S.
    Resta(RestaConfig),
    /// The mean of the entries weighted by their Fisher information.
    #[serde(rename = "fisher")]
    FisherMerging(FisherMergingConfig),
    /// The change nearest to every adapter's on its own inputs.
    #[serde(rename = "regmean")]
    RegMean(RegMeanConfig),
}

impl StrategyConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting; [`Error::Weights`] for its layer weights; [`Error::ExactAlignment`],
    /// [`Error::NotDefined`] for two settings that exclude each other.
    pub fn check(self) -> Result<Box<dyn MergeStrategy>, Error> {
        Ok(match self {
            StrategyConfig::Sst(config) => Box::new(config.check()?),
            StrategyConfig::V1(config) => Box::new(config.check()?),
            StrategyConfig::V2(config) => Box::new(config.check()?),
            StrategyConfig::Linear(config) => Box::new(config.check()?),
            StrategyConfig::TaskArithmetic(config) => Box::new(config.check()?),
            StrategyConfig::Ties(config) => Box::new(config.check()?),
            StrategyConfig::Dare(config) => Box::new(config.check()?),
            StrategyConfig::DareTies(config) => Box::new(config.check_ties()?),
            StrategyConfig::Della(config) => Box::new(config.check()?),
            StrategyConfig::Breadcrumbs(config) => Box::new(config.check()?),
            StrategyConfig::Slerp(config) => Box::new(config.check()?),
            StrategyConfig::Nuslerp(config) => Box::new(config.check()?),
            StrategyConfig::Knots(config) => Box::new(config.check()?),
            StrategyConfig::TsvM(config) => Box::new(config.check()?),
            StrategyConfig::IsoC(config) => Box::new(config.check()?),
            StrategyConfig::IsoCts(config) => Box::new(config.check()?),
            StrategyConfig::Lox(config) => Box::new(config.check()?),
            StrategyConfig::SafeLora(config) => Box::new(config.check()?),
            StrategyConfig::SafeMerge(config) => Box::new(config.check()?),
            StrategyConfig::Resta(config) => Box::new(config.check()?),
            StrategyConfig::FisherMerging(config) => Box::new(config.check()?),
            StrategyConfig::RegMean(config) => Box::new(config.check()?),
        })
    }
}

/// The strategy of that name with its default settings.
///
/// # Errors
/// [`Error::UnknownStrategy`] listing the known names.
pub fn strategy_by_name(name: &str) -> Result<StrategyConfig, Error> {
    let unknown = || Error::UnknownStrategy {
        name: name.to_owned(),
        known: STRATEGIES.join(", "),
    };
    // Every setting of every strategy has a default.
    serde_json::from_value(serde_json::json!({"strategy": name})).map_err(|_| unknown())
}

/// Refuses a weight that is NaN or infinite.
fn check_weight(strategy: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting,
        value,
        reason: "must be finite",
    })
}

/// Refuses NaN, infinity and what is below 0.
fn check_not_negative(strategy: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting,
        value,
        reason: "must be finite and not negative",
    })
}

/// Refuses what is no share in [0, 1].
fn check_share(strategy: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting,
        value,
        reason: "must lie in [0, 1]",
    })
}

/// Refuses k = 0, before any artefact is read.
fn check_k(strategy: &'static str, k: usize) -> Result<(), Error> {
    if k > 0 {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting: "k",
        value: 0.0,
        reason: "must be at least 1",
    })
}

/// Refuses rank 0, which would be no change at all.
fn check_rank(strategy: &'static str, rank: Option<usize>) -> Result<(), Error> {
    if rank != Some(0) {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting: "rank",
        value: 0.0,
        reason: "must be at least 1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_known_and_named_so() {
        for &name in STRATEGIES {
            assert_eq!(strategy_by_name(name).unwrap().check().unwrap().name(), name);
        }
        let message = strategy_by_name("v3").unwrap_err().to_string();
        assert!(
            message.starts_with("unknown strategy `v3`: known are sst, v1, v2, linear"),
            "{message}"
        );
    }

    #[test]
    fn recipes_are_toml_and_their_slips_are_named() {
        let parse = |text: &str| toml::from_str::<StrategyConfig>(text);
        let v2 = V2Config {
            k: 50,
            mode: Mode::Layerwise {
                preset: Preset::SafetyFirst,
            },
            ..V2Config::default()
        };
        let text = "strategy = \"v2\"\nk = 50\nmode = { layerwise = { preset = \"safety_first\" } }\n";
        assert_eq!(parse(text).unwrap(), StrategyConfig::V2(v2.clone()));
        let text = toml::to_string(&StrategyConfig::V2(v2.clone())).unwrap();
        assert_eq!(parse(&text).unwrap(), StrategyConfig::V2(v2));
        for (text, word) in [
            ("strategy = \"v3\"", "v3"),
            ("strategy = \"v1\"\nweight = 1.0", "weight"),
            ("strategy = \"v2\"\nmode = \"sideways\"", "sideways"),
            ("strategy = \"v2\"\nprojection = \"skewed\"", "skewed"),
            ("k = 3", "strategy"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
