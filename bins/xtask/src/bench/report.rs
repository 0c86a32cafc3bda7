//! What the benchmark prints: tables for people, then one line of JSON for programs.

use anyhow::{Result, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde_json::{Map, Value, json};

use super::agreement::Agreement;
use super::measurement::{Measurement, shares};
use super::ratio::{Ratio, Round, Summary, ratios, share_of_limit};

/// All that was measured.
pub struct Outcome {
    pub threads: u64,
    pub rounds: Vec<Round>,
    /// Our diagonal over many samples, for its memory.
    pub large: Measurement,
    /// The same of PyTorch and PEFT.
    pub large_reference: Measurement,
    pub agreement: Agreement,
}

impl Outcome {
    /// The tables, and the line that must be printed last.
    pub fn render(&self) -> Result<(String, String)> {
        let ratios = ratios(&self.rounds, &self.large, &self.large_reference)?;
        let tables = format!(
            "{}\n{}\nBoth diagonals agree to {:.1e} over {} entries.",
            self.processes()?,
            goals(&ratios),
            self.agreement.largest_relative_difference,
            self.agreement.entries
        );
        Ok((tables, self.line(&ratios)?.to_string()))
    }

    /// Every process as a row: medians over the rounds, and how its time divides.
    fn processes(&self) -> Result<String> {
        let mut table = table(&[
            "process",
            "samples/s",
            "of the limit",
            "forward",
            "backward",
            "statistics",
            "rest",
            "GB above model",
        ]);
        type Side = fn(&Round) -> &Measurement;
        let sides: [(&str, Side); 4] = [
            ("diag", |round| &round.diag),
            ("forward and backward alone", |round| &round.plain),
            ("kron", |round| &round.kron),
            ("PyTorch and PEFT, one by one", |round| &round.reference),
        ];
        for (name, side) in sides {
            let runs = || self.rounds.iter().map(side);
            let rate = Summary::of(runs().map(Measurement::rate))?;
            let memory = Summary::of(runs().map(|run| run.memory() as f64 / 1e9))?;
            let mut row = vec![
                format!("{:.2}", rate.median),
                percent(self.share_of_limit(side)?.median),
            ];
            row.extend(shares(runs()).map(|(_, share)| percent(share)));
            row.push(format!("{:.2}", memory.median));
            table.add_row(std::iter::once(Cell::new(name)).chain(row.into_iter().map(right)));
        }
        let matmul = Summary::of(self.rounds.iter().map(|round| round.matmul.gflops))?;
        Ok(format!(
            "{table}\nLimit: a matrix product in f32, {:.0} Gflop/s [{:.0}, {:.0}]; of the operations that the samples need.",
            matmul.median, matmul.min, matmul.max
        ))
    }

    fn share_of_limit(&self, side: impl Fn(&Round) -> &Measurement) -> Result<Summary> {
        let shares: Result<Vec<f64>> = self
            .rounds
            .iter()
            .map(|round| share_of_limit(&round.diag, side(round), round.matmul))
            .collect();
        Summary::of(shares?)
    }

    /// The four ratios first, then every measurement.
    fn line(&self, ratios: &[Ratio]) -> Result<Value> {
        let mut line = medians(ratios)?;
        let over_rounds: Map<String, Value> = ratios
            .iter()
            .map(|ratio| (ratio.name.to_owned(), json!(ratio.measured)))
            .collect();
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| {
                json!({
                    "matmul_gflops": round.matmul.gflops,
                    "diag": round.diag,
                    "plain": round.plain,
                    "kron": round.kron,
                    "loop": round.reference,
                })
            })
            .collect();
        let details = json!({
            "threads": self.threads,
            "ratios": over_rounds,
            "loop_share_of_limit": self.share_of_limit(|round| &round.reference)?,
            "agreement": self.agreement,
            "rounds": rounds,
            "memory": {"diag": self.large, "loop": self.large_reference},
        });
        line.insert("details".to_owned(), details);
        Ok(Value::Object(line))
    }
}

/// Every ratio by name, which is how the line of JSON begins.
pub(super) fn medians(ratios: &[Ratio]) -> Result<Map<String, Value>> {
    let mut line = Map::new();
    for Ratio { name, measured, .. } in ratios {
        if !measured.median.is_finite() {
            bail!("{name} is {}", measured.median);
        }
        // To four decimals: the machine does not repeat itself to more.
        line.insert((*name).to_owned(), json!((measured.median * 1e4).round() / 1e4));
    }
    Ok(line)
}

/// Every ratio as a row.
pub(super) fn goals(ratios: &[Ratio]) -> Table {
    let mut table = table(&["ratio", "measured", "min", "max", "goal", "", "what limits it"]);
    for ratio in ratios {
        let Summary { median, min, max } = ratio.measured;
        let met = if ratio.goal.is_met(median) { "met" } else { "not met" };
        let figures = [median, min, max].map(|value| right(format!("{value:.3}")));
        table.add_row(std::iter::once(Cell::new(ratio.meaning)).chain(figures).chain([
            right(ratio.goal.to_string()),
            met.into(),
            (&ratio.limited_by).into(),
        ]));
    }
    table
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

pub(super) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    table
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Matmul;
    use super::*;

    fn outcome() -> Outcome {
        let report = |seconds: f64, memory: u64| {
            let report = json!({
                "seconds": seconds, "samples": 4, "tokens": 9, "flop": 6e9, "peak_bytes": 3 + memory, "model_bytes": 3,
                "forward_s": 0.25 * seconds, "backward_s": 0.75 * seconds, "statistics_s": 0.0,
            });
            Measurement::parse(&report.to_string(), 4).unwrap()
        };
        Outcome {
            threads: 2,
            rounds: vec![Round {
                matmul: Matmul { gflops: 9.0 },
                diag: report(1.0, 5_000_000),
                plain: report(0.75, 5_000_000),
                kron: report(1.0, 5_000_000),
                reference: report(2.0, 80_000_000),
            }],
            large: report(1.0, 5_000_000),
            large_reference: report(1.0, 80_000_000),
            agreement: Agreement {
                largest_relative_difference: 1e-5,
                tensor: "a".into(),
                entries: 3,
            },
        }
    }

    #[test]
    fn the_line_starts_with_the_four_ratios() {
        let (_, line) = outcome().render().unwrap();
        let start = r#"{"diag_vs_loop":2.0,"share_of_limit":0.6667,"kron_vs_backward":0.75,"memory_vs_loop":0.0625,"details":{"#;
        assert!(line.starts_with(start) && !line.contains('\n'), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["details"]["rounds"][0]["loop"]["seconds"], 2.0);
        assert_eq!(line["details"]["loop_share_of_limit"]["median"], 1.0 / 3.0);
    }

    #[test]
    fn the_tables_say_which_goals_are_met_and_why_not() {
        let (tables, _) = outcome().render().unwrap();
        let words = |line: &str| {
            line.replace(['┆', '│'], " ")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let has = |text: &str| tables.lines().any(|line| words(line).contains(text));
        for row in [
            "PyTorch and PEFT, one by one 2.00 33 % 25 % 75 % 0 % 0 % 0.08",
            "2.000 2.000 2.000 >= 1.5 met backward 75 %, forward 25 %",
            "0.667 0.667 0.667 >= 0.7 not met backward 75 %, forward 25 %",
            "0.062 0.062 0.062 <= 0.1 met 0.01 GB by 0.08 GB at 4 samples",
        ] {
            assert!(has(row), "{row} is not in\n{tables}");
        }
    }
}
