//! How the stages of two pipelines share the difference of their scores, with intervals.
//!
//! Shares are Shapley values ([`sst_merge::shapley`]). They are means over items, so the paired bootstrap of a mean gives
//! their intervals: whole items are drawn with replacement, the same draws for every combination and every share of a
//! benchmark. p-values are corrected by Holm over the stages, and over the pairs of stages, of a benchmark.

use crate::recipe_pair::{RecipePair, Stage, StageDifference};
use crate::results::System;
use crate::{AttributeConfig, Error};
use serde::{Deserialize, Serialize};
use sst_artefact::Input;
use sst_eval::{Benchmark, Interval, holm, paired_bootstrap};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(crate) const RESULTS_FILE: &str = "attribution.json";
const TABLE_FILE: &str = "attribution.md";

/// The score of every item of one combination, by benchmark and item.
pub(crate) type ItemScores = BTreeMap<Benchmark, BTreeMap<String, f64>>;

/// The difference between two merges, stage by stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// Version of the tool.
    pub tool_version: String,
    /// The files of both recipes, as they were given: A and B.
    pub names: [String; 2],
    /// Both recipes, defaults filled in.
    pub recipes: [serde_json::Value; 2],
    /// The base model and its hash.
    pub model: Input,
    /// The folder of data sets.
    pub data: PathBuf,
    /// The stages in which the recipes differ.
    pub stages: Vec<StageDifference>,
    /// The stages in which they agree, or that neither has.
    pub equal: Vec<Stage>,
    /// Resamples and their seed.
    pub bootstrap: AttributeConfig,
    /// Every mixture; stage j of number c is B's where bit j of c is set.
    pub combinations: Vec<Combination>,
    /// Number of different evaluations among the mixtures: equal merges share one.
    pub evaluations: usize,
    /// What each benchmark says.
    pub benchmarks: Vec<BenchmarkShares>,
}

/// One mixture of two recipes, evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Combination {
    /// The stages taken from B.
    pub second: BTreeSet<Stage>,
    /// Its settings, scores and folders.
    pub system: System,
}

/// The difference on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkShares {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Number of items.
    pub n: usize,
    /// Score of A.
    pub first: f64,
    /// Score of B.
    pub second: f64,
    /// B minus A.
    pub total: Share,
    /// The stages' shares, which add up to the total.
    pub stages: Vec<Share>,
    /// What pairs of stages do together beyond what each does alone.
    pub interactions: Vec<Share>,
}

/// A part of a difference of mean scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Whose: one stage, a pair, or all.
    pub stages: Vec<Stage>,
    /// Its size, in units of the score.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Two-sided p-value of no share.
    pub p_value: f64,
    /// The same after Holm's correction.
    pub p_holm: f64,
    /// Items on which it is not 0.
    pub items: usize,
}

impl Attribution {
    pub(crate) fn of(
        pair: &RecipePair,
        combinations: Vec<Combination>,
        items: &[ItemScores],
        bootstrap: AttributeConfig,
        model: Input,
        data: &Path,
    ) -> Result<Self, Error> {
        let stages: Vec<Stage> = pair.stages().iter().map(|s| s.stage).collect();
        let benchmarks = pair.recipes()[0].eval.benchmarks.iter();
        let evaluations: BTreeSet<&PathBuf> = combinations.iter().map(|c| &c.system.evaluation).collect();
        Ok(Self {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            names: pair.names().clone(),
            recipes: pair.recipes().each_ref().map(|recipe| serde_json::json!(recipe)),
            model,
            data: data.to_path_buf(),
            stages: pair.stages().to_vec(),
            equal: pair.equal().to_vec(),
            bootstrap,
            evaluations: evaluations.len(),
            benchmarks: benchmarks
                .map(|&benchmark| BenchmarkShares::of(benchmark, &stages, &paired(benchmark, items)?, bootstrap))
                .collect::<Result<_, Error>>()?,
            combinations,
        })
    }

    /// Writes `attribution.json` and `attribution.md`.
    pub(crate) fn write(&self, run: &Path) -> Result<(), Error> {
        sst_artefact::write_json(&run.join(RESULTS_FILE), self)?;
        let table = self.markdown();
        Ok(sst_artefact::write_atomic(&run.join(TABLE_FILE), |w| {
            std::io::Write::write_all(w, table.as_bytes())
        })?)
    }

    /// Reads the attribution in a run folder.
    ///
    /// # Errors
    /// [`Error::Artefact`] when there is none, or it is malformed.
    pub fn read(run: &Path) -> Result<Self, Error> {
        Ok(sst_artefact::read_json(&run.join(RESULTS_FILE), "attribution")?)
    }
}

impl BenchmarkShares {
    /// `scores` is `[2^m][items]`, as [`sst_merge::shapley`] takes them.
    fn of(
        benchmark: Benchmark,
        stages: &[Stage],
        scores: &[Vec<f64>],
        bootstrap: AttributeConfig,
    ) -> Result<Self, Error> {
        let shapley = sst_merge::shapley(scores)?;
        let share =
            |whose: Vec<Stage>, numerators: &[f64]| Share::of(whose, numerators, shapley.denominator, bootstrap);
        let total = share(stages.to_vec(), &shapley.total)?;
        let own = stages.iter().zip(&shapley.stages);
        let mut shares = own
            .map(|(&stage, numerators)| share(vec![stage], numerators))
            .collect::<Result<Vec<_>, _>>()?;
        let mut interactions = shapley
            .interactions
            .iter()
            .map(|pair| share(pair.stages.map(|j| stages[j]).to_vec(), &pair.items))
            .collect::<Result<Vec<_>, _>>()?;
        correct(&mut shares);
        correct(&mut interactions);
        Ok(Self {
            benchmark,
            n: scores[0].len(),
            first: sst_eval::mean(&scores[0]),
            second: sst_eval::mean(&scores[scores.len() - 1]),
            total,
            stages: shares,
            interactions,
        })
    }
}

impl Share {
    /// Bootstraps the numerators, which are exact for scores of 0 and 1, and divides last: a resample that cancels is 0.
    fn of(stages: Vec<Stage>, numerators: &[f64], denominator: f64, bootstrap: AttributeConfig) -> Result<Self, Error> {
        let zeros = vec![0.0; numerators.len()];
        let found = paired_bootstrap(numerators, &zeros, bootstrap.resamples, bootstrap.seed)
            .ok_or_else(|| Error::Compare("attribution needs items and resamples".to_owned()))?;
        Ok(Self {
            stages,
            value: found.difference / denominator,
            interval: Interval {
                low: found.interval.low / denominator,
                high: found.interval.high / denominator,
            },
            p_value: found.p_value,
            p_holm: found.p_value,
            items: numerators.iter().filter(|x| **x != 0.0).count(),
        })
    }

    /// Whether the corrected p-value tells it from 0 at 5 %.
    pub fn is_distinct(&self) -> bool {
        self.p_holm < 0.05
    }
}

/// Corrects a family of p-values.
fn correct(shares: &mut [Share]) {
    let p_values: Vec<f64> = shares.iter().map(|share| share.p_value).collect();
    for (share, corrected) in shares.iter_mut().zip(holm(&p_values)) {
        share.p_holm = corrected;
    }
}

/// The scores of all combinations on one benchmark, `[2^m][items]`, in the order of the items' names.
fn paired(benchmark: Benchmark, combinations: &[ItemScores]) -> Result<Vec<Vec<f64>>, Error> {
    let all: Vec<&BTreeMap<String, f64>> = combinations.iter().filter_map(|c| c.get(&benchmark)).collect();
    for (first, other) in all.iter().zip(all.iter().skip(1)) {
        let alone = first.keys().find(|id| !other.contains_key(*id));
        if let Some(id) = alone.or_else(|| other.keys().find(|id| !first.contains_key(*id))) {
            let id = id.clone();
            return Err(sst_eval::Error::Pairing { benchmark, id }.into());
        }
    }
    Ok(all
        .into_iter()
        .map(|scores| scores.values().copied().collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    const TWO: [Stage; 2] = [Stage::Fisher, Stage::Rule];

    fn config(resamples: usize) -> AttributeConfig {
        AttributeConfig { resamples, seed: 1 }
    }

    /// Scores of 0 and 1 that lean on two stages, on items of different difficulty.
    fn draw(items: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut scores = vec![Vec::new(); 4];
        for _ in 0..items {
            let difficulty: f64 = rng.random();
            // The same luck for all four, as one item meets similar models.
            let luck: f64 = rng.random();
            for (combination, rate) in RATES.iter().enumerate() {
                scores[combination].push(f64::from(u8::from(0.5 * (difficulty + luck) < *rate)));
            }
        }
        scores
    }

    const RATES: [f64; 4] = [0.55, 0.4, 0.5, 0.3];

    /// P((x + y) / 2 < rate) with x, y uniform in [0, 1].
    fn expected(rate: f64) -> f64 {
        if rate <= 0.5 {
            2.0 * rate * rate
        } else {
            1.0 - 2.0 * (1.0 - rate).powi(2)
        }
    }

    #[test]
    fn intervals_cover_the_true_shares() {
        let v: Vec<f64> = RATES.iter().map(|rate| expected(*rate)).collect();
        let truth = [
            v[3] - v[0],
            0.5 * (v[1] - v[0] + v[3] - v[2]),
            0.5 * (v[2] - v[0] + v[3] - v[1]),
            v[3] - v[2] - v[1] + v[0],
        ];
        let (runs, mut covered) = (400, [0; 4]);
        for seed in 0..runs {
            let found = BenchmarkShares::of(Benchmark::Jailbreak, &TWO, &draw(80, seed), config(400)).unwrap();
            let shares = [&found.total, &found.stages[0], &found.stages[1], &found.interactions[0]];
            for ((share, truth), covered) in shares.iter().zip(truth).zip(&mut covered) {
                *covered += usize::from(share.interval.low <= truth && truth <= share.interval.high);
            }
        }
        // 95 % of 400 are 380 with a standard deviation of 4.4; intervals from 80 items fall a little short.
        for covered in covered {
            assert!((360..=396).contains(&covered), "{covered} of {runs}");
        }
    }

    #[test]
    fn a_stage_without_effect_is_not_distinct_more_often_than_it_should() {
        let (runs, mut found) = (400, 0);
        for seed in 0..runs {
            // What the second stage changes, it changes as often for the better as for the worse.
            let mut rng = ChaCha12Rng::seed_from_u64(1000 + seed);
            let coins: [Vec<f64>; 2] = [(); 2].map(|()| (0..80).map(|_| rng.random()).collect());
            let flip = |(&score, &coin): (&f64, &f64)| {
                if coin < 0.2 {
                    f64::from(u8::from(coin < 0.1))
                } else {
                    score
                }
            };
            let clean = draw(80, seed);
            let scores: Vec<Vec<f64>> = (0..4)
                .map(|t| clean[t & 1].iter().zip(&coins[t >> 1]).map(flip).collect())
                .collect();
            let shares = BenchmarkShares::of(Benchmark::Mmlu, &TWO, &scores, config(400)).unwrap();
            found += usize::from(shares.stages[1].p_value < 0.05);
        }
        // 5 % of 400 are 20 with a standard deviation of 4.4.
        assert!((4..=36).contains(&found), "{found} of {runs}");
    }

    #[test]
    fn shares_add_up_and_the_resamples_are_the_same() {
        let scores = draw(60, 7);
        let found = BenchmarkShares::of(Benchmark::Jailbreak, &TWO, &scores, config(2000)).unwrap();
        let sum: f64 = found.stages.iter().map(|s| s.value).sum();
        assert!((sum - found.total.value).abs() <= 4.0 * f64::EPSILON);
        assert!((found.total.value - (found.second - found.first)).abs() <= 4.0 * f64::EPSILON);
        let plain = paired_bootstrap(&scores[3], &scores[0], 2000, 1).unwrap();
        assert!((found.total.interval.low - plain.interval.low).abs() <= 4.0 * f64::EPSILON);
        // Scaled by the shares' denominator, the acceleration may differ in its last digits.
        assert!((found.total.p_value - plain.p_value).abs() <= 1e-12);
        assert_eq!(found.n, 60);
        assert_eq!(
            found,
            BenchmarkShares::of(Benchmark::Jailbreak, &TWO, &scores, config(2000)).unwrap()
        );
    }

    #[test]
    fn constant_scores_carry_nothing() {
        let found = BenchmarkShares::of(Benchmark::Alpaca, &TWO, &vec![vec![0.3; 9]; 4], config(1000)).unwrap();
        for share in found.stages.iter().chain(&found.interactions).chain([&found.total]) {
            assert_eq!((share.value, share.interval.low, share.interval.high), (0.0, 0.0, 0.0));
            assert_eq!((share.p_value, share.p_holm, share.items), (1.0, 1.0, 0));
            assert!(!share.is_distinct());
        }
    }

    #[test]
    fn other_items_are_not_paired() {
        let scores = |ids: &[&str]| {
            let items = ids.iter().map(|id| ((*id).to_owned(), 1.0)).collect();
            ItemScores::from([(Benchmark::Mmlu, items)])
        };
        let message = paired(Benchmark::Mmlu, &[scores(&["a", "b"]), scores(&["a", "c"])])
            .unwrap_err()
            .to_string();
        assert!(message.contains("mmlu") && message.contains("`b`"), "{message}");
        let ordered = paired(Benchmark::Mmlu, &[scores(&["b", "a"]), scores(&["a", "b"])]).unwrap();
        assert_eq!(ordered, vec![vec![1.0; 2]; 2]);
    }
}
