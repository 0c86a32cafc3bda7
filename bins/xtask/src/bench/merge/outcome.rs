//! What the merge benchmark found: three ratios and their goals, tables for people, one line of JSON for programs.

use anyhow::{Result, bail};
use comfy_table::Cell;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::measurement::{Timed, last_line};
use super::super::ratio::{Goal, Ratio, Summary};
use super::super::report::{goals, medians, right, table};

/// Two sides cut the same sum to the same rank equally well when their errors differ by no more: f32 on theirs.
const EQUAL_ERRORS: f64 = 1e-4;
/// Two sides that compute the same adapter are no further apart than this: f32 on theirs.
const SAME: f64 = 1e-4;
/// ... and where entries are cut off by their size: among 65 536 draws from the 2^23 steps of an f32, two are equal at the cut
/// in one tensor of a hundred, and either side may keep either. sqrt(0.01 * 2 / 65 536) is 5.5e-4; three times that.
const SAME_BUT_TIED: f64 = 2e-3;

/// The same work by two processes.
#[derive(Serialize)]
pub struct Pair {
    pub ours: Timed,
    /// The other side: PEFT, PyTorch, or reading and writing alone.
    pub other: Timed,
}

/// One pass through everything that is timed.
#[derive(Serialize)]
pub struct Round {
    /// Beside reading and writing the same bytes.
    pub merges: Vec<(&'static str, Pair)>,
    /// Beside PEFT; only the merge itself counts, on both sides.
    pub svd: Pair,
    pub cat: Pair,
    pub ties: Pair,
    /// Beside the same formula in PyTorch.
    pub sst: Pair,
    /// Beside a copy of the model's files.
    pub bake: Pair,
}

/// How far the merges of both sides are apart, relative to their size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub method: String,
    #[serde(flatten)]
    pub distances: Distances,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Of ours from theirs.
    pub difference: f64,
    /// Of ours from the exact sum of both adapters.
    pub error_ours: f64,
    /// Of theirs from it.
    pub error_theirs: f64,
}

/// All that was measured.
#[derive(Serialize)]
pub struct Outcome {
    pub threads: u64,
    pub layers: u64,
    pub svd_layers: u64,
    pub rounds: Vec<Round>,
    pub comparisons: Vec<Comparison>,
}

impl Pair {
    /// How many times faster our merge is than the other side's, reading and writing left out.
    fn speed(&self) -> Result<f64> {
        Ok(self.other.seconds / self.ours.figure("merge_s")?)
    }
}

impl Round {
    /// The merge that takes longest beside its reading and writing, and how many times as long.
    fn slowest(&self) -> (&'static str, f64) {
        let times = self
            .merges
            .iter()
            .map(|(name, pair)| (*name, pair.ours.seconds / pair.other.seconds));
        times.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("none", f64::NAN))
    }
}

impl Comparison {
    /// Reads the report in `output`.
    pub fn parse(method: &str, output: &str) -> Result<Self> {
        let (method, distances) = (method.to_owned(), last_line(output)?);
        Ok(Self { method, distances })
    }

    /// # Errors
    /// When the two sides do not compute the same thing: another adapter, or for `svd`, where directions of nearly the
    /// same weight may be exchanged, another error.
    pub fn check(&self) -> Result<()> {
        let Distances {
            difference,
            error_ours,
            error_theirs,
        } = self.distances;
        let (found, bound) = match self.method.as_str() {
            "svd" => ((error_ours - error_theirs).abs(), EQUAL_ERRORS),
            "ties" => (difference, SAME_BUT_TIED),
            _ => (difference, SAME),
        };
        if !(found.is_finite() && found <= bound) {
            bail!(
                "{}: both sides differ by {found:.1e}, more than {bound:.0e}: {:?}",
                self.method,
                self.distances
            );
        }
        Ok(())
    }
}

impl Outcome {
    /// The tables, and the line that must be printed last.
    pub fn render(&self) -> Result<(String, String)> {
        let ratios = self.ratios()?;
        let mut line = medians(&ratios)?;
        line.insert("details".to_owned(), json!(self));
        let tables = format!("{}\n{}", self.processes()?, goals(&ratios));
        Ok((tables, Value::Object(line).to_string()))
    }

    fn ratios(&self) -> Result<[Ratio; 3]> {
        let speeds: Result<Vec<f64>> = self.rounds.iter().map(|round| round.svd.speed()).collect();
        let errors = self.comparisons.iter().find(|found| found.method == "svd");
        let slowest = self
            .rounds
            .iter()
            .map(Round::slowest)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let rate = |timed: &Timed| Ok(timed.figure("bytes")? / timed.seconds / 1e9);
        let rates = |side: fn(&Pair) -> &Timed| {
            let rates: Result<Vec<f64>> = self.rounds.iter().map(|round| rate(side(&round.bake))).collect();
            Summary::of(rates?)
        };
        let (baked, copied) = (rates(|pair| &pair.ours)?, rates(|pair| &pair.other)?);
        Ok([
            Ratio {
                name: "svd_vs_peft",
                meaning: "sum cut to rank 16: speed by that of PEFT",
                goal: Goal::AtLeast(5.0),
                measured: Summary::of(speeds?)?,
                limited_by: errors.map_or_else(String::new, |Comparison { distances, .. }| {
                    format!("errors {:.5} and {:.5}", distances.error_ours, distances.error_theirs)
                }),
            },
            Ratio {
                name: "bake_vs_copy",
                meaning: "bake: speed by that of copying the model",
                goal: Goal::AtLeast(0.6),
                measured: Summary::of(self.rounds.iter().map(|r| r.bake.other.seconds / r.bake.ours.seconds))?,
                limited_by: format!(
                    "{:.2} GB/s by {:.2} GB/s, the hash of the input included",
                    baked.median, copied.median
                ),
            },
            Ratio {
                name: "merge_vs_io",
                meaning: "slowest merge: time by that of reading and writing",
                goal: Goal::AtMost(3.0),
                measured: Summary::of(self.rounds.iter().map(|round| round.slowest().1))?,
                limited_by: slowest.map_or_else(String::new, |(name, _)| name.to_owned()),
            },
        ])
    }

    /// Every pair as a row: medians over the rounds.
    fn processes(&self) -> Result<String> {
        let mut merges = table(&["merge", "load s", "merge s", "save s", "reading and writing s"]);
        let names = self
            .rounds
            .first()
            .into_iter()
            .flat_map(|round| round.merges.iter().map(|(name, _)| *name));
        for (i, name) in names.enumerate() {
            let pairs = || self.rounds.iter().map(|round| &round.merges[i].1);
            let mut row = vec![Cell::new(name)];
            for key in ["load_s", "merge_s", "save_s"] {
                let times: Result<Vec<f64>> = pairs().map(|pair| pair.ours.figure(key)).collect();
                row.push(right(format!("{:.3}", Summary::of(times?)?.median)));
            }
            let io = Summary::of(pairs().map(|pair| pair.other.seconds))?;
            row.push(right(format!("{:.3}", io.median)));
            merges.add_row(row);
        }
        let mut others = table(&["beside PEFT or PyTorch", "ours s", "theirs s", "difference"]);
        type Side = fn(&Round) -> &Pair;
        let sides: [(&str, Side); 4] = [
            ("svd", |round| &round.svd),
            ("cat", |round| &round.cat),
            ("ties", |round| &round.ties),
            ("sst", |round| &round.sst),
        ];
        for (name, side) in sides {
            let ours: Result<Vec<f64>> = self
                .rounds
                .iter()
                .map(|round| side(round).ours.figure("merge_s"))
                .collect();
            let theirs = Summary::of(self.rounds.iter().map(|round| side(round).other.seconds))?;
            let found = self.comparisons.iter().find(|found| found.method == name);
            others.add_row([
                Cell::new(name),
                right(format!("{:.3}", Summary::of(ours?)?.median)),
                right(format!("{:.3}", theirs.median)),
                right(found.map_or_else(String::new, |found| format!("{:.1e}", found.distances.difference))),
            ]);
        }
        Ok(format!(
            "{merges}\n{others}\n{} layers, svd {} layers, {} threads; only svd and bake have a goal beside others.",
            self.layers, self.svd_layers, self.threads
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(report: Value) -> Timed {
        Timed::parse(&report.to_string()).unwrap()
    }

    fn pair(seconds: f64, merge: f64, other: f64) -> Pair {
        let part = (seconds - merge) / 2.0;
        Pair {
            ours: timed(json!({
                "seconds": seconds, "load_s": part, "merge_s": merge, "save_s": part, "bytes": 6e9
            })),
            other: timed(json!({ "seconds": other, "bytes": 6e9 })),
        }
    }

    fn comparison(method: &str, difference: f64, error_ours: f64, error_theirs: f64) -> Comparison {
        let report = json!({ "difference": difference, "error_ours": error_ours, "error_theirs": error_theirs });
        Comparison::parse(method, &report.to_string()).unwrap()
    }

    fn outcome() -> Outcome {
        Outcome {
            threads: 2,
            layers: 32,
            svd_layers: 1,
            rounds: vec![Round {
                merges: vec![("v1", pair(3.0, 1.0, 2.0)), ("ties", pair(8.0, 4.0, 2.0))],
                svd: pair(9.0, 0.5, 40.0),
                cat: pair(1.0, 0.5, 1.0),
                ties: pair(8.0, 4.0, 4.0),
                sst: pair(4.0, 2.0, 3.0),
                bake: pair(6.0, 1.0, 3.0),
            }],
            comparisons: vec![
                comparison("svd", 0.3, 0.61234, 0.61235),
                comparison("cat", 0.0, 0.0, 0.0),
            ],
        }
    }

    #[test]
    fn the_line_starts_with_the_three_ratios() {
        let (tables, line) = outcome().render().unwrap();
        let start = r#"{"svd_vs_peft":80.0,"bake_vs_copy":0.5,"merge_vs_io":4.0,"details":{"#;
        assert!(line.starts_with(start) && !line.contains('\n'), "{line}");
        for text in ["errors 0.61234 and 0.61235", "1.00 GB/s by 2.00 GB/s", "not met"] {
            assert!(tables.contains(text), "{text} is not in\n{tables}");
        }
    }

    #[test]
    fn two_sides_must_compute_the_same() {
        comparison("svd", 0.5, 0.61234, 0.61235).check().unwrap();
        comparison("ties", 5e-4, 0.4, 0.4).check().unwrap();
        for wrong in [
            comparison("svd", 0.0, 0.6, 0.61),
            comparison("ties", 3e-3, 0.4, 0.4),
            comparison("cat", 5e-4, 0.4, 0.4),
            Comparison {
                method: "sst".into(),
                distances: Distances {
                    difference: f64::NAN,
                    error_ours: 0.0,
                    error_theirs: 0.0,
                },
            },
        ] {
            assert!(wrong.check().unwrap_err().to_string().starts_with(&wrong.method));
        }
    }
}
