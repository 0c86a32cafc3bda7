//! Evaluations compared item by item: which differences are real, and how large one could be and still go unseen.
//!
//! Every measure (a benchmark's score, and its secondary metrics) is compared on the items that all systems answered, a metric
//! that concerns some items only on those that it concerns for either system of a pair. The
//! difference of a pair is the second's value less the first's. Where every item scores 0 or 1 under both the test is McNemar's, by
//! its mid-p-value; elsewhere the p-value is that of the BCa bootstrap. p-values are corrected by Holm over a family: the scores of all
//! benchmarks and pairs are one, the secondary metrics of all of them another.
//!
//! Non-inferiority ("not worse by more than the margin") is the one-sided test at 5 %: it holds where the 95 % lower bound
//! of the gain, Newcombe's for rates and the bootstrap's for other scores, lies above minus the margin.

mod counts;
mod items;
mod outcome;
mod table;

pub use counts::{CountComparison, CountPair, CountedSystem, compare_counts};
pub use items::Evaluated;
pub use outcome::Outcome;

use crate::stats::{
    Interval, PairedCounts, PairedDifference, Part, detectable_mean_difference, detectable_paired_difference, holm,
    mcnemar_mid_p, mean, mean_interval, newcombe_paired, paired_ratio_bootstrap, wilson_interval,
};
use crate::{Benchmark, Error};
use items::{Columns, Shared};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

const JSON_FILE: &str = "comparison.json";
const TABLE_FILE: &str = "comparison.md";

/// What to compare with what, and how.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `reference` | the system that all others are compared with, by name | the first |
/// | `all_pairs` | every pair of systems, in their order | false |
/// | `shared` | compare what is shared where settings, data or items differ, and say so | false: refuse |
/// | `secondary` | compare the secondary metrics too | true |
/// | `margin` | not worse by more than this, in units of the score | not tested |
/// | `resamples`, `seed` | of the bootstrap | 10 000, 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareConfig {
    /// The system that all others are compared with.
    pub reference: Option<String>,
    /// Whether every pair is compared.
    pub all_pairs: bool,
    /// Whether systems that were evaluated differently are compared on what they share.
    pub shared: bool,
    /// Whether the secondary metrics are compared too.
    pub secondary: bool,
    /// Margin of the test of non-inferiority.
    pub margin: Option<f64>,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self {
            reference: None,
            all_pairs: false,
            shared: false,
            secondary: true,
            margin: None,
            resamples: 10_000,
            seed: 0,
        }
    }
}

/// Systems compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The settings.
    pub config: CompareConfig,
    /// The systems, in the order given.
    pub systems: Vec<String>,
    /// What is not alike, where that was allowed.
    pub notes: Vec<String>,
    /// Every benchmark's score and secondary metrics.
    pub measures: Vec<Measure>,
}

/// One measure of all systems.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Which of its metrics.
    pub metric: String,
    /// Whether it is the benchmark's score.
    pub primary: bool,
    /// Whether a larger value is a better model; absent where neither is.
    pub higher_is_better: Option<bool>,
    /// Items that all systems answered.
    pub n: usize,
    /// Each system's value, in the order of the systems; absent where no item of it carries the metric.
    pub values: Vec<Option<SystemValue>>,
    /// The pairs compared.
    pub pairs: Vec<Pair>,
}

/// The value of one system.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SystemValue {
    /// Mean over the items that carry the metric.
    pub value: f64,
    /// Its 95 % interval: Wilson's for rates, the normal one of a mean elsewhere.
    pub interval: Interval,
    /// Number of items that carry the metric.
    pub n: usize,
}

/// Two systems on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The system compared with.
    pub first: String,
    /// The system compared.
    pub second: String,
    /// Items that carry the metric for at least one of the two.
    #[serde(default)]
    pub n: usize,
    /// Second minus first.
    pub difference: f64,
    /// Its 95 % interval by the paired bootstrap (BCa).
    pub interval: Interval,
    /// Its 95 % interval by Newcombe's method, for rates: it keeps a width where the systems agree on every item.
    pub newcombe: Option<Interval>,
    /// How often the systems agree, for rates; `only_first` counts items that only [`Pair::first`] gets.
    pub counts: Option<PairedCounts>,
    /// Which test the p-value is of: `mcnemar-mid-p` or `bootstrap`.
    pub test: String,
    /// Two-sided p-value of no difference.
    pub p_value: f64,
    /// The same after Holm's correction over the family.
    pub p_holm: f64,
    /// The smallest true difference that this sample shows in four cases of five, at 5 % and before correction; absent where it shows
    /// none at all.
    pub detectable: Option<f64>,
    /// What the corrected p-value says at 5 %.
    pub verdict: Outcome,
    /// Whether the second is not worse by more than the margin; absent without one.
    pub non_inferiority: Option<NonInferiority>,
}

/// The one-sided test of "not worse by more than the margin".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    /// The margin.
    pub margin: f64,
    /// Lower bound of the gain at 95 %; a gain is a difference in the direction of a better model.
    pub bound: f64,
    /// Whether the bound lies above minus the margin.
    pub holds: bool,
}

/// Compares evaluations, on every benchmark that all of them ran.
///
/// # Errors
/// [`Error::Compare`] for fewer than two systems, two of one name, an unknown reference or a setting out of range;
/// [`Error::Unlike`] naming the setting, the data set or the item in which two systems differ, unless `shared` allows it.
pub fn compare(systems: &[Evaluated], config: &CompareConfig) -> Result<Comparison, Error> {
    let pairs = config.pairs(systems)?;
    let shared = Shared::of(systems, config.shared)?;
    let mut measures = Vec::new();
    for (benchmark, columns) in &shared.benchmarks {
        for column in columns.iter().filter(|c| c.primary || config.secondary) {
            measures.push(measure(*benchmark, column, systems, &pairs, config));
        }
    }
    correct(&mut measures);
    Ok(Comparison {
        config: config.clone(),
        systems: systems.iter().map(|s| s.name.clone()).collect(),
        notes: shared.notes,
        measures,
    })
}

impl CompareConfig {
    /// The pairs of places to compare.
    fn pairs(&self, systems: &[Evaluated]) -> Result<Vec<(usize, usize)>, Error> {
        let fault = |key, problem| Err(Error::Compare { key, problem });
        if systems.len() < 2 {
            return fault("systems", "are fewer than two; give two evaluations or more".to_owned());
        }
        let place = |name: &str| systems.iter().position(|system| system.name == name);
        if let Some(twice) = systems.iter().enumerate().find(|(i, s)| place(&s.name) != Some(*i)) {
            let problem = format!(
                "has two of the name {}; evaluate one of them under another name",
                twice.1.name
            );
            return fault("systems", problem);
        }
        if self.resamples < 100 {
            return fault("resamples", format!("is {}, expected at least 100", self.resamples));
        }
        if let Some(margin) = self.margin.filter(|margin| !(margin.is_finite() && *margin >= 0.0)) {
            return fault("margin", format!("is {margin}, expected a number of at least 0"));
        }
        let reference = match &self.reference {
            Some(name) => match place(name) {
                Some(i) => i,
                None => {
                    let known: Vec<&str> = systems.iter().map(|s| s.name.as_str()).collect();
                    return fault("reference", format!("is {name}, expected one of {}", known.join(", ")));
                }
            },
            None => 0,
        };
        let n = systems.len();
        Ok(if self.all_pairs {
            (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
        } else {
            (0..n).filter(|&i| i != reference).map(|i| (reference, i)).collect()
        })
    }
}

fn measure(
    benchmark: Benchmark,
    column: &Columns,
    systems: &[Evaluated],
    pairs: &[(usize, usize)],
    config: &CompareConfig,
) -> Measure {
    let higher_is_better = outcome::higher_is_better(benchmark, &column.metric);
    let compared = pairs.iter().filter_map(|&(i, j)| {
        let names = [i, j].map(|place| systems[place].name.as_str());
        let values = [&column.values[i][..], &column.values[j][..]];
        pair(&column.metric, names, values, higher_is_better, config)
    });
    Measure {
        benchmark,
        metric: column.metric.clone(),
        primary: column.primary,
        higher_is_better,
        n: column.n(),
        values: column
            .values
            .iter()
            .map(|values| SystemValue::of(&column.metric, values))
            .collect(),
        pairs: compared.collect(),
    }
}

impl SystemValue {
    fn of(metric: &str, values: &[Option<f64>]) -> Option<Self> {
        let known: Vec<f64> = values.iter().copied().flatten().collect();
        if known.is_empty() {
            return None;
        }
        let rate = known.iter().all(|&x| x == 0.0 || x == 1.0);
        let successes = known.iter().filter(|&&x| x == 1.0).count();
        let interval = if rate {
            wilson_interval(successes, known.len())
        } else {
            mean_interval(&known)
        };
        Some(Self {
            value: mean(&known),
            interval: Interval {
                low: interval.low.max(0.0),
                high: interval.high.min(most(metric)),
            },
            n: known.len(),
        })
    }
}

/// The largest value there is: every metric but nats is a share.
fn most(metric: &str) -> f64 {
    if metric == "nll_per_token" { f64::INFINITY } else { 1.0 }
}

/// Two systems on one measure; nothing where one of them has no item that carries it. Items that carry it for neither say nothing
/// of the pair and are left out.
fn pair(
    metric: &str,
    names: [&str; 2],
    values: [&[Option<f64>]; 2],
    higher_is_better: Option<bool>,
    config: &CompareConfig,
) -> Option<Pair> {
    let both = values[0].iter().copied().zip(values[1].iter().copied());
    let (first, second): (Vec<Option<f64>>, Vec<Option<f64>>) =
        both.filter(|(a, b)| a.is_some() || b.is_some()).unzip();
    let n = first.len();
    let values = [first, second];
    let [first, second] = values.each_ref().map(|values| -> Vec<Part> {
        let part = |value: &Option<f64>| value.map_or(Part::absent(), Part::of_mean);
        values.iter().map(part).collect()
    });
    let found = paired_ratio_bootstrap(&second, &first, config.resamples, config.seed)?;
    let complete = values.map(|values| values.into_iter().collect::<Option<Vec<f64>>>());
    let counts = match &complete {
        [Some(first), Some(second)] => PairedCounts::of(first, second),
        _ => None,
    };
    let p_value = counts.map_or(found.p_value, |c| mcnemar_mid_p(c.only_first, c.only_second));
    let detectable = match (&counts, &complete) {
        (Some(counts), _) => detectable_paired_difference(counts.discordance(), counts.n()),
        (None, [Some(first), Some(second)]) => {
            let differences: Vec<f64> = second.iter().zip(first).map(|(b, a)| b - a).collect();
            detectable_mean_difference(&differences)
        }
        // Of a ratio only the bootstrap knows the spread: a 90 % interval is 2 x 1.645 standard errors wide.
        _ => (found.interval_90.high - found.interval_90.low) * (1.96 + 0.8416) / (2.0 * 1.6449),
    };
    Some(Pair {
        first: names[0].to_owned(),
        second: names[1].to_owned(),
        n,
        difference: found.difference,
        interval: found.interval,
        newcombe: counts.map(|counts| newcombe_paired(&counts, 0.95).negated()),
        counts,
        test: if counts.is_some() { "mcnemar-mid-p" } else { "bootstrap" }.to_owned(),
        p_value,
        p_holm: p_value,
        detectable: Some(detectable).filter(|&d| d < most(metric)),
        verdict: Outcome::of(found.difference, p_value, higher_is_better),
        non_inferiority: non_inferiority(&found, counts, higher_is_better, config.margin),
    })
}

fn non_inferiority(
    found: &PairedDifference,
    counts: Option<PairedCounts>,
    higher_is_better: Option<bool>,
    margin: Option<f64>,
) -> Option<NonInferiority> {
    let (margin, up) = (margin?, higher_is_better?);
    let two_sided = counts.map_or(found.interval_90, |counts| newcombe_paired(&counts, 0.9).negated());
    let bound = if up { two_sided.low } else { -two_sided.high };
    Some(NonInferiority {
        margin,
        bound,
        holds: bound > -margin,
    })
}

/// Corrects the p-values of each family, and reads the verdicts from them.
fn correct(measures: &mut [Measure]) {
    for primary in [true, false] {
        let family = || measures.iter().filter(|m| m.primary == primary).flat_map(|m| &m.pairs);
        let p_values: Vec<f64> = family().map(|pair| pair.p_value).collect();
        let mut corrected = holm(&p_values).into_iter();
        for measure in measures.iter_mut().filter(|m| m.primary == primary) {
            for (pair, p) in measure.pairs.iter_mut().zip(&mut corrected) {
                pair.p_holm = p;
                pair.verdict = Outcome::of(pair.difference, p, measure.higher_is_better);
            }
        }
    }
}

impl Comparison {
    /// Writes `comparison.json` and `comparison.md` into a folder.
    ///
    /// # Errors
    /// [`Error::Artefact`] when a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        sst_artefact::write_json(&folder.join(JSON_FILE), self)?;
        let table = self.markdown();
        Ok(sst_artefact::write_atomic(&folder.join(TABLE_FILE), |w| {
            w.write_all(table.as_bytes())
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::items::tests::evaluated;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    /// n items of which the first `right` score 1.
    fn binary(name: &str, right: usize, n: usize) -> Evaluated {
        let scores: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i < right))).collect();
        evaluated(name, Benchmark::Jailbreak, &scores)
    }

    #[test]
    fn a_real_difference_is_told_from_noise() {
        let systems = [binary("A", 60, 100), binary("B", 75, 100), binary("C", 62, 100)];
        let comparison = compare(&systems, &CompareConfig::default()).unwrap();
        let measure = &comparison.measures[0];
        let [b, c] = measure.pairs.as_slice() else {
            panic!("{measure:?}")
        };
        assert_eq!(
            (b.first.as_str(), b.second.as_str(), b.verdict),
            ("A", "B", Outcome::Better)
        );
        assert!((b.difference - 0.15).abs() < 1e-12 && b.interval.low > 0.0);
        // 15 items one way: 2 (1/2)^15 - (1/2)^15, and twice that in a family of two.
        assert!((b.p_value - 0.5f64.powi(15)).abs() < 1e-12 && (b.p_holm - 0.5f64.powi(14)).abs() < 1e-12);
        assert_eq!(c.verdict, Outcome::NotDistinguishable);
        assert!((c.p_value - 0.25).abs() < 1e-12 && c.detectable.unwrap() > 0.05);
        assert_eq!(measure.values[1].unwrap().interval, wilson_interval(75, 100));
        let newcombe = b.newcombe.unwrap();
        assert!(newcombe.low > 0.05 && newcombe.low < 0.15 && newcombe.high > 0.15);
    }

    #[test]
    fn items_that_a_metric_does_not_concern_say_nothing_of_a_pair() {
        // 60 of 100 items have a valid answer of either system; of them A gets 30 and B 45.
        let carrying = |name: &str, right: usize, carried: usize| {
            let mut system = binary(name, 50, 100);
            for (i, record) in system.evaluation.records.iter_mut().enumerate().take(carried) {
                let value = f64::from(u8::from(i < right));
                record.metrics.insert("complied_of_valid".to_owned(), value);
            }
            system
        };
        let found = |b: Evaluated| {
            let comparison = compare(&[carrying("A", 30, 60), b], &CompareConfig::default()).unwrap();
            let measure = comparison.measures.iter().find(|m| m.metric == "complied_of_valid");
            let measure = measure.unwrap();
            assert_eq!(measure.n, 100);
            measure.pairs[0].clone()
        };
        let pair = found(carrying("B", 45, 60));
        assert_eq!((pair.n, pair.test.as_str()), (60, "mcnemar-mid-p"));
        assert!((pair.p_value - 0.5f64.powi(15)).abs() < 1e-12 && pair.newcombe.is_some());
        assert!((pair.difference - 0.25).abs() < 1e-12);
        // An item that concerns one of them alone leaves two means over different items.
        let uneven = found(carrying("B", 45, 61));
        assert_eq!(
            (uneven.n, uneven.test.as_str(), uneven.newcombe),
            (61, "bootstrap", None)
        );
    }

    #[test]
    fn the_reference_and_all_pairs() {
        let systems = [binary("A", 6, 10), binary("B", 7, 10), binary("C", 8, 10)];
        let names = |config: CompareConfig| -> Vec<(String, String)> {
            let comparison = compare(&systems, &config).unwrap();
            let pairs = comparison.measures[0].pairs.iter();
            pairs.map(|p| (p.first.clone(), p.second.clone())).collect()
        };
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let reference = CompareConfig {
            reference: Some("B".to_owned()),
            ..CompareConfig::default()
        };
        assert_eq!(names(reference), owned(&[("B", "A"), ("B", "C")]));
        let all = CompareConfig {
            all_pairs: true,
            ..CompareConfig::default()
        };
        assert_eq!(names(all), owned(&[("A", "B"), ("A", "C"), ("B", "C")]));
    }

    #[test]
    fn non_inferiority_needs_items_as_well_as_a_small_difference() {
        let config = CompareConfig {
            margin: Some(0.02),
            ..CompareConfig::default()
        };
        let test = |first: usize, second: usize, n: usize| {
            let systems = [binary("A", first, n), binary("B", second, n)];
            compare(&systems, &config).unwrap().measures[0].pairs[0]
                .non_inferiority
                .unwrap()
        };
        assert!(!test(20, 20, 40).holds, "forty items cannot rule out two points");
        assert!(test(1000, 1000, 2000).holds);
        assert!(!test(1000, 960, 2000).holds);
        assert!(test(900, 1000, 2000).holds, "better is not worse");
        // The same answers on a benchmark of which less is better.
        let over = |name: &str, right| {
            let scores: Vec<f64> = (0..2000).map(|i| f64::from(u8::from(i < right))).collect();
            evaluated(name, Benchmark::XsTest, &scores)
        };
        let worse = compare(&[over("A", 900), over("B", 1000)], &config).unwrap();
        let pair = &worse.measures[0].pairs[0];
        assert_eq!(pair.verdict, Outcome::Worse);
        assert!(!pair.non_inferiority.unwrap().holds);
    }

    #[test]
    fn equal_models_are_rarely_told_apart_and_the_margin_is_rarely_wrong() {
        let (runs, n) = (200, 120);
        let (mut distinct, mut wrongly_held) = (0, 0);
        let config = CompareConfig {
            margin: Some(0.1),
            resamples: 400,
            ..CompareConfig::default()
        };
        for seed in 0..runs {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut draw = |rate: f64| -> Vec<f64> {
                (0..n)
                    .map(|_| f64::from(u8::from(rng.random::<f64>() < rate)))
                    .collect()
            };
            let (a, b, worse) = (draw(0.6), draw(0.6), draw(0.5));
            let systems = [("A", &a), ("B", &b), ("W", &worse)].map(|(name, s)| evaluated(name, Benchmark::Mmlu, s));
            let found = compare(&systems, &config).unwrap();
            let [equal, worse] = found.measures[0].pairs.as_slice() else {
                panic!()
            };
            distinct += usize::from(equal.p_value < 0.05);
            // W is worse by the margin exactly: the test may say otherwise in 5 % of the cases.
            wrongly_held += usize::from(worse.non_inferiority.unwrap().holds);
        }
        // 5 % of 200 are 10 with a standard deviation of 3.1.
        assert!(distinct <= 22 && wrongly_held <= 22, "{distinct} {wrongly_held}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let systems = [binary("A", 1, 4), binary("B", 2, 4)];
        let default = CompareConfig::default;
        for (config, part) in [
            (
                CompareConfig {
                    margin: Some(f64::NAN),
                    ..default()
                },
                "`margin` is NaN",
            ),
            (
                CompareConfig {
                    resamples: 1,
                    ..default()
                },
                "`resamples` is 1",
            ),
            (
                CompareConfig {
                    reference: Some("Z".to_owned()),
                    ..default()
                },
                "expected one of A, B",
            ),
        ] {
            let message = compare(&systems, &config).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let message = compare(&systems[..1], &default()).unwrap_err().to_string();
        assert!(message.contains("fewer than two"), "{message}");
        let twins = [binary("A", 1, 4), binary("A", 2, 4)];
        assert!(
            compare(&twins, &default())
                .unwrap_err()
                .to_string()
                .contains("two of the name A")
        );
    }

    #[test]
    fn the_same_input_gives_the_same_files() {
        let systems = [binary("A", 6, 10), binary("B", 7, 10)];
        let bytes = || {
            let dir = tempfile::tempdir().unwrap();
            compare(&systems, &CompareConfig::default())
                .unwrap()
                .save(dir.path())
                .unwrap();
            [JSON_FILE, TABLE_FILE].map(|name| std::fs::read(dir.path().join(name)).unwrap())
        };
        assert_eq!(bytes(), bytes());
        let read: Comparison = serde_json::from_slice(&bytes()[0]).unwrap();
        assert_eq!(read, compare(&systems, &CompareConfig::default()).unwrap());
    }
}
