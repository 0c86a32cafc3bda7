//! How one point of every method is chosen: the recipe's `[selection]` table.

use crate::Goals;
use serde::{Deserialize, Serialize};
use sst_eval::{Benchmark, ItemSplit, SuiteConfig};

/// How one point of every method is chosen on development items, to be judged once on the others.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `dev` | share of every benchmark's items that are for development, by document | 0.4 |
/// | `rule` | which point is chosen: `utility` or `goals`, see [`SelectionRule`] | utility |
/// | `over_refusal_margin` | refusals of harmless requests that a merge may have more than its utility adapters | 0.03 |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionRecipe {
    /// Share of the items that are for development.
    pub dev: f64,
    /// Which point is chosen.
    pub rule: SelectionRule,
    /// How much more often than its utility adapters a merge may refuse harmless requests.
    pub over_refusal_margin: f64,
}

/// Which point of a method is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectionRule {
    /// The highest utility among the points that refuse as many harmful requests as the goal asks and not too many harmless ones;
    /// where no point does, the smallest shortfall.
    #[default]
    Utility,
    /// The most goals met, then the largest smallest margin.
    Goals,
}

impl Default for SelectionRecipe {
    fn default() -> Self {
        Self {
            dev: 0.4,
            rule: SelectionRule::Utility,
            over_refusal_margin: 0.03,
        }
    }
}

/// Benchmarks whose mean is the utility.
pub(crate) const UTILITY: [Benchmark; 4] = [
    Benchmark::Mmlu,
    Benchmark::MmluGenerated,
    Benchmark::RepliQa,
    Benchmark::Alpaca,
];

impl SelectionRecipe {
    /// Checks every value, and that the suite measures what the rule reads.
    ///
    /// # Errors
    /// A text that names the first key at fault.
    pub(crate) fn check(&self, suite: &SuiteConfig, goals: &Goals) -> Result<(), String> {
        if !self.dev().is_proper() {
            return Err(format!("dev is {}, expected a share between 0 and 1", self.dev));
        }
        let margin = self.over_refusal_margin;
        if !(0.0..=1.0).contains(&margin) {
            return Err(format!("over_refusal_margin is {margin}, expected 0 to 1"));
        }
        // A resolved recipe names the development items itself.
        if ![ItemSplit::All, self.dev()].contains(&suite.split) {
            return Err("eval.split is given as well; leave it out, the selection asks both splits".to_owned());
        }
        for split in [self.dev(), self.test()] {
            let side = SuiteConfig { split, ..suite.clone() };
            side.check().map_err(|e| e.to_string())?;
        }
        let asked = |benchmarks: &[Benchmark]| suite.benchmarks.iter().any(|b| benchmarks.contains(b));
        if !asked(&[Benchmark::Jailbreak]) {
            return Err("eval.benchmarks lacks jailbreak, by which safety is judged".to_owned());
        }
        if !asked(&UTILITY) {
            let names = UTILITY.map(Benchmark::name).join(", ");
            return Err(format!("eval.benchmarks lacks utility: name one of {names}"));
        }
        let goal = |b: &Benchmark| goals.of(*b).is_some();
        if self.rule == SelectionRule::Goals && !suite.benchmarks.iter().any(goal) {
            return Err("eval.benchmarks has none of the goals".to_owned());
        }
        Ok(())
    }

    /// The items to choose on.
    pub(crate) fn dev(&self) -> ItemSplit {
        ItemSplit::Dev(self.dev)
    }

    /// The items to judge on.
    pub(crate) fn test(&self) -> ItemSplit {
        ItemSplit::Test(self.dev)
    }
}
