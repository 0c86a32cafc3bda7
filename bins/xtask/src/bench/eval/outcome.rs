//! What the evaluation benchmark found: four ratios and their goals, tables for people, one line of JSON for programs.

use anyhow::{Result, bail};
use comfy_table::Table;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::measurement::Timed;
use super::super::ratio::{Goal, Ratio, Summary};
use super::super::report::{goals, medians, right, table};

/// Log-likelihoods of both sides are no further apart than this: f32 through 30 layers, summed in another order.
const SAME: f64 = 1e-4;

/// The same questions by both sides.
#[derive(Serialize)]
pub struct Pair {
    pub ours: Timed,
    pub theirs: Timed,
}

/// The same questions under eight adapters.
#[derive(Serialize)]
pub struct Cell {
    /// Requests to each adapter.
    pub each: u64,
    /// One adapter after the other.
    pub runs: Timed,
    pub together: Timed,
}

/// One pass through everything that is timed.
#[derive(Serialize)]
pub struct Round {
    pub b16: Pair,
    pub b1: Pair,
    pub adapters: Cell,
    pub quiz: Pair,
}

/// How many answers are equal, token for token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub answers: u64,
    pub equal: u64,
}

/// How far log-likelihoods are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Likelihoods {
    pub items: u64,
    pub largest_difference: f64,
}

/// All that was measured.
#[derive(Serialize)]
pub struct Outcome {
    pub threads: u64,
    pub max_new_tokens: u64,
    pub b16: Answers,
    pub b1: Answers,
    pub likelihoods: Likelihoods,
    pub rounds: Vec<Round>,
    /// The sweep at other sizes, measured once.
    pub curve: Vec<Cell>,
}

impl Likelihoods {
    /// # Errors
    /// When the two sides do not compute the same thing.
    pub fn check(&self) -> Result<()> {
        let largest = self.largest_difference;
        if !(largest.is_finite() && largest <= SAME) {
            bail!("log-likelihoods of both sides differ by {largest:.1e}, more than {SAME:.0e}");
        }
        Ok(())
    }
}

/// What time is measured by.
#[derive(Clone, Copy)]
enum Clock {
    Wall,
    /// The time of all the process's threads, which other processes change less.
    Processor,
}

impl Clock {
    /// Units of `key` a second.
    fn rate(self, timed: &Timed, key: &str) -> Result<f64> {
        let seconds = match self {
            Self::Wall => timed.seconds,
            Self::Processor => timed.figure("cpu_seconds")?,
        };
        Ok(timed.figure(key)? / seconds)
    }

    /// Ours and theirs.
    fn pair(self, pair: &Pair, key: &str) -> Result<[f64; 2]> {
        Ok([self.rate(&pair.ours, key)?, self.rate(&pair.theirs, key)?])
    }

    /// Tokens a second, together and run by run.
    fn cell(self, cell: &Cell) -> Result<[f64; 2]> {
        Ok([self.rate(&cell.together, "tokens")?, self.rate(&cell.runs, "tokens")?])
    }
}

/// What both sides reach in every round.
struct Rates {
    rates: Vec<[f64; 2]>,
}

impl Rates {
    fn ratio(&self) -> Result<Summary> {
        Summary::of(self.rates.iter().map(|[a, b]| a / b))
    }

    fn sides(&self) -> Result<[Summary; 2]> {
        let side = |n: usize| Summary::of(self.rates.iter().map(|pair| pair[n]));
        Ok([side(0)?, side(1)?])
    }
}

impl Outcome {
    /// The tables, and the line that must be printed last.
    pub fn render(&self) -> Result<(String, String)> {
        let ratios = self.ratios()?;
        let mut line = medians(&ratios)?;
        line.insert("details".to_owned(), self.details(&ratios)?);
        let tables = format!(
            "{}\n{}\nAnswers equal token for token: {} of {} in batches, {} of {} one by one. Log-likelihoods differ by at most {:.1e}.",
            self.sweep()?,
            goals(&ratios),
            self.b16.equal,
            self.b16.answers,
            self.b1.equal,
            self.b1.answers,
            self.likelihoods.largest_difference
        );
        Ok((tables, Value::Object(line).to_string()))
    }

    fn details(&self, ratios: &[Ratio]) -> Result<Value> {
        let mut details = json!(self);
        details["ratios"] = ratios.iter().map(|r| (r.name.to_owned(), json!(r.measured))).collect();
        details["processor_ratios"] = self
            .rates(Clock::Processor)?
            .iter()
            .map(|(name, rates)| Ok(((*name).to_owned(), json!(rates.ratio()?))))
            .collect::<Result<Value>>()?;
        details["rates"] = self
            .rates(Clock::Wall)?
            .iter()
            .map(|(name, rates)| {
                let [ours, theirs] = rates.sides()?;
                Ok((
                    (*name).to_owned(),
                    json!({ "ours": ours, "theirs": theirs, "n": rates.rates.len() }),
                ))
            })
            .collect::<Result<Value>>()?;
        Ok(details)
    }

    fn rates(&self, clock: Clock) -> Result<[(&'static str, Rates); 4]> {
        let of = |f: &dyn Fn(&Round) -> Result<[f64; 2]>| -> Result<Rates> {
            Ok(Rates {
                rates: self.rounds.iter().map(f).collect::<Result<_>>()?,
            })
        };
        Ok([
            (
                "generate_b16_vs_transformers",
                of(&|round| clock.pair(&round.b16, "tokens"))?,
            ),
            (
                "generate_b1_vs_transformers",
                of(&|round| clock.pair(&round.b1, "tokens"))?,
            ),
            ("adapters8_vs_runs", of(&|round| clock.cell(&round.adapters))?),
            ("mmlu5_vs_transformers", of(&|round| clock.pair(&round.quiz, "items"))?),
        ])
    }

    fn ratios(&self) -> Result<Vec<Ratio>> {
        let meanings = [
            (
                "answers in batches of 16: tokens/s by those of transformers",
                1.5,
                "tokens/s",
            ),
            ("answers one by one: tokens/s by those of transformers", 1.0, "tokens/s"),
            (
                "eight adapters: tokens/s in one batch by those of eight runs",
                3.0,
                "tokens/s",
            ),
            ("MMLU, 5 shots: items/s by those of transformers", 3.0, "items/s"),
        ];
        self.rates(Clock::Wall)?
            .into_iter()
            .zip(meanings)
            .map(|((name, rates), (meaning, goal, unit))| {
                let [ours, theirs] = rates.sides()?;
                Ok(Ratio {
                    name,
                    meaning,
                    goal: Goal::AtLeast(goal),
                    measured: rates.ratio()?,
                    limited_by: format!("{:.1} by {:.1} {unit}", ours.median, theirs.median),
                })
            })
            .collect()
    }

    /// The sweep at every size that was measured, smallest first.
    fn sweep(&self) -> Result<Table> {
        let mut cells: Vec<&Cell> = self
            .rounds
            .iter()
            .map(|round| &round.adapters)
            .chain(&self.curve)
            .collect();
        cells.sort_by_key(|cell| cell.each);
        let mut sweep = table(&[
            "requests to each adapter",
            "together, tokens/s",
            "eight runs, tokens/s",
            "ratio",
        ]);
        for cells in cells.chunk_by(|a, b| a.each == b.each) {
            let rates = Rates {
                rates: cells.iter().map(|cell| Clock::Wall.cell(cell)).collect::<Result<_>>()?,
            };
            let [together, runs] = rates.sides()?;
            let figures = [together.median, runs.median, rates.ratio()?.median].map(|value| format!("{value:.2}"));
            sweep.add_row(std::iter::once(cells[0].each.to_string()).chain(figures).map(right));
        }
        Ok(sweep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(seconds: f64, key: &str, count: u64) -> Timed {
        let cpu_seconds = 2.0 * seconds;
        let line = json!({ "seconds": seconds, "cpu_seconds": cpu_seconds, key: count });
        Timed::parse(&line.to_string()).unwrap()
    }

    fn pair(key: &str, count: u64, ours: f64, theirs: f64) -> Pair {
        Pair {
            ours: timed(ours, key, count),
            theirs: timed(theirs, key, count),
        }
    }

    fn cell(each: u64, runs: f64) -> Cell {
        Cell {
            each,
            runs: timed(runs, "tokens", 100),
            together: timed(1.0, "tokens", 100),
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            threads: 2,
            max_new_tokens: 64,
            b16: Answers { answers: 8, equal: 7 },
            b1: Answers { answers: 4, equal: 4 },
            likelihoods: Likelihoods {
                items: 6,
                largest_difference: 2e-5,
            },
            rounds: vec![Round {
                b16: pair("tokens", 300, 2.0, 4.0),
                b1: pair("tokens", 50, 2.0, 1.0),
                adapters: cell(2, 4.0),
                quiz: pair("items", 6, 1.0, 5.0),
            }],
            curve: vec![cell(8, 1.5), cell(1, 5.0)],
        }
    }

    #[test]
    fn the_line_starts_with_the_four_ratios() {
        let (_, line) = outcome().render().unwrap();
        let start = r#"{"generate_b16_vs_transformers":2.0,"generate_b1_vs_transformers":0.5,"adapters8_vs_runs":4.0,"mmlu5_vs_transformers":5.0,"details":{"#;
        assert!(line.starts_with(start) && !line.contains('\n'), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            line["details"]["rates"]["mmlu5_vs_transformers"]["theirs"]["median"],
            1.2
        );
        assert_eq!(line["details"]["processor_ratios"]["adapters8_vs_runs"]["median"], 4.0);
        assert_eq!(line["details"]["b16"]["equal"], 7);
        assert_eq!(line["details"]["curve"][0]["each"], 8);
    }

    #[test]
    fn the_tables_show_the_curve_and_what_is_met() {
        let (tables, _) = outcome().render().unwrap();
        let words = |line: &str| {
            let line = line.replace(['┆', '│'], " ");
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let lines: Vec<String> = tables.lines().map(words).collect();
        let place = |text: &str| lines.iter().position(|line| line.contains(text));
        let (one, two, eight) = (
            place("1 100.00 20.00 5.00"),
            place("2 100.00 25.00 4.00"),
            place("8 100.00 66.67 1.50"),
        );
        assert!(one.is_some() && one < two && two < eight, "{tables}");
        assert!(
            place("0.500 0.500 0.500 >= 1 not met 25.0 by 50.0").is_some(),
            "{tables}"
        );
        assert!(place("7 of 8 in batches").is_some(), "{tables}");
    }

    #[test]
    fn likelihoods_that_differ_stop_the_benchmark() {
        let check = |largest_difference| {
            let likelihoods = Likelihoods {
                items: 1,
                largest_difference,
            };
            likelihoods.check()
        };
        check(9e-5).unwrap();
        assert!(check(1.1e-4).is_err() && check(f64::NAN).is_err());
    }
}
