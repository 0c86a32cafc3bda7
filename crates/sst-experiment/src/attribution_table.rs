//! An attribution to read: a table of stages for each benchmark, the interactions, and the combinations behind them.

use crate::attribution::{Attribution, BenchmarkShares, Share};
use crate::comparison::{figure, over_refusal, right, share, title, valid};
use crate::recipe_pair::Stage;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, ContentArrangement, Table};
use serde_json::Value;
use std::collections::BTreeMap;

const LEGEND: &str = "\
Points are hundredths of the score, B minus A; the shares of a benchmark add up to its difference. A share is the stage's mean
gain over all orders of switching the stages from A to B (Shapley value). Its 95 % interval and p-value come from resampling
the items, paired over all combinations; p is corrected by Holm over the stages, or pairs, of a benchmark, the interval is
not. \"items\" counts those on which it is not 0. An interaction is what two stages do together beyond what each does alone. The items are the only chance considered: another
training seed or another pair of merges has other shares.";

#[derive(Clone, Copy)]
enum Form {
    Terminal,
    Markdown,
}

impl Attribution {
    /// The tables for a terminal.
    pub fn text(&self) -> String {
        self.render(Form::Terminal)
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        format!("# Attribution\n\n{}\n", self.render(Form::Markdown))
    }

    fn render(&self, form: Form) -> String {
        let mut parts = vec![self.summary()];
        for shares in &self.benchmarks {
            parts.push(form.heading(&format!(
                "{}: {} in A, {} in B, {} items",
                title(shares.benchmark),
                figure(shares.benchmark, shares.first),
                figure(shares.benchmark, shares.second),
                shares.n
            )));
            parts.push(format!("B - A: {}.", sentence(&shares.total)));
            parts.push(self.stages(shares, form));
            if !shares.interactions.is_empty() {
                parts.push(interactions(shares, form));
            }
        }
        parts.push(form.heading("Combinations"));
        parts.push(self.combinations(form));
        parts.push(LEGEND.to_owned());
        parts.join("\n\n")
    }

    fn summary(&self) -> String {
        let differing: Vec<Stage> = self.stages.iter().map(|s| s.stage).collect();
        let agreeing = match self.equal.as_slice() {
            [] => "none".to_owned(),
            equal => list(equal, ", "),
        };
        let mut lines = vec![
            format!("A: {}\nB: {}\n", self.names[0], self.names[1]),
            format!(
                "Stages that differ: {}. Stages that agree: {agreeing}.",
                list(&differing, ", ")
            ),
        ];
        for stage in self.stages.iter().filter(|s| !s.with.is_empty()) {
            let with = list(&stage.with, ", ");
            lines.push(format!("Not to be exchanged without {}: {with}.", stage.stage));
        }
        lines.push(format!(
            "{} combinations, {} different evaluations; {} resamples, seed {}.",
            self.combinations.len(),
            self.evaluations,
            self.bootstrap.resamples,
            self.bootstrap.seed
        ));
        lines.join("\n")
    }

    fn stages(&self, shares: &BenchmarkShares, form: Form) -> String {
        let header = [
            "stage",
            "A",
            "B",
            "share, points",
            "95 % interval",
            "p (Holm)",
            "items",
            "",
        ];
        let rows = self.stages.iter().zip(&shares.stages).map(|(stage, share)| {
            let mut row = vec![Cell::new(stage.stage)];
            row.extend(stage.settings.iter().map(|settings| Cell::new(words(settings))));
            row.extend(figures(share));
            row
        });
        form.table(&header.map(String::from), rows)
    }

    fn combinations(&self, form: Form) -> String {
        let mut header: Vec<String> = self.stages.iter().map(|s| s.stage.to_string()).collect();
        header.extend(self.benchmarks.iter().map(|b| title(b.benchmark).to_owned()));
        header.extend(["over-refusal", "valid"].map(String::from));
        let rows = self.combinations.iter().map(|combination| {
            let side = |stage| if combination.second.contains(&stage) { "B" } else { "A" };
            let mut row: Vec<Cell> = self.stages.iter().map(|s| Cell::new(side(s.stage))).collect();
            let scores = &combination.system.scores;
            row.extend(scores.iter().map(|score| {
                right(format!(
                    "{} [{}, {}]",
                    figure(score.benchmark, score.value),
                    figure(score.benchmark, score.ci_low),
                    figure(score.benchmark, score.ci_high)
                ))
            }));
            row.extend([right(share(over_refusal(scores))), right(share(valid(scores)))]);
            row
        });
        form.table(&header, rows)
    }
}

impl Form {
    fn heading(self, text: &str) -> String {
        match self {
            Self::Terminal => text.to_owned(),
            Self::Markdown => format!("## {text}"),
        }
    }

    fn table(self, header: &[String], rows: impl Iterator<Item = Vec<Cell>>) -> String {
        let mut table = Table::new();
        match self {
            Self::Terminal => table
                .load_style(UTF8_FULL_CONDENSED)
                .set_content_arrangement(ContentArrangement::Dynamic),
            Self::Markdown => table
                .load_style(ASCII_MARKDOWN)
                .set_content_arrangement(ContentArrangement::Disabled),
        };
        table.set_header(header);
        table.add_rows(rows);
        table.to_string()
    }
}

fn interactions(shares: &BenchmarkShares, form: Form) -> String {
    let header = ["interaction", "points", "95 % interval", "p (Holm)", "items", ""];
    let rows = shares.interactions.iter().map(|share| {
        let mut row = vec![Cell::new(list(&share.stages, " with "))];
        row.extend(figures(share));
        row
    });
    form.table(&header.map(String::from), rows)
}

/// Value, interval, p-value, items and what they mean.
fn figures(share: &Share) -> Vec<Cell> {
    vec![
        right(points(share.value)),
        right(interval(share)),
        right(p_value(share)),
        right(share.items.to_string()),
        Cell::new(reading(share)),
    ]
}

fn sentence(share: &Share) -> String {
    format!(
        "{} points {}, p = {}, {}",
        points(share.value),
        interval(share),
        p_value(share),
        reading(share)
    )
}

fn reading(share: &Share) -> &'static str {
    if share.items == 0 {
        "exactly 0 on every item"
    } else if !share.is_distinct() {
        "not distinguishable from 0"
    } else if share.value < 0.0 {
        "a loss"
    } else {
        "a gain"
    }
}

fn points(share: f64) -> String {
    // Rounded first, so that a trace below 0 shows no sign.
    let rounded = (1000.0 * share).round() / 10.0;
    if rounded == 0.0 {
        "0.0".to_owned()
    } else {
        format!("{rounded:+.1}")
    }
}

fn interval(share: &Share) -> String {
    format!("[{}, {}]", points(share.interval.low), points(share.interval.high))
}

fn p_value(share: &Share) -> String {
    if share.p_holm < 1e-3 {
        format!("{:.0e}", share.p_holm)
    } else {
        format!("{:.3}", share.p_holm)
    }
}

fn list(stages: &[Stage], between: &str) -> String {
    let names: Vec<String> = stages.iter().map(ToString::to_string).collect();
    names.join(between)
}

/// `k = 20, projection = prefix`.
fn words(settings: &BTreeMap<String, Value>) -> String {
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key} = {text}"),
        other => format!("{key} = {other}"),
    };
    let words: Vec<String> = settings.iter().map(word).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sst_eval::Interval;

    fn share(value: f64, p_holm: f64, items: usize) -> Share {
        Share {
            stages: vec![Stage::Fisher],
            value,
            interval: Interval {
                low: value - 0.02,
                high: value + 0.02,
            },
            p_value: p_holm,
            p_holm,
            items,
        }
    }

    #[test]
    fn a_share_is_read_plainly() {
        assert_eq!(
            sentence(&share(-0.064, 0.0004, 30)),
            "-6.4 points [-8.4, -4.4], p = 4e-4, a loss"
        );
        assert!(
            sentence(&share(0.01, 0.2, 4)).ends_with("+1.0 points [-1.0, +3.0], p = 0.200, not distinguishable from 0")
        );
        assert!(sentence(&share(0.05, 0.01, 9)).ends_with("a gain"));
        assert!(sentence(&share(0.0, 1.0, 0)).ends_with("exactly 0 on every item"));
        assert_eq!(points(-1e-9), "0.0");
        assert_eq!(reading(&share(-0.5, f64::NAN, 5)), "not distinguishable from 0");
    }
}
