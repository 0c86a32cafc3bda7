//! A comparison to read: for each benchmark the pairs, and what can be said of them.

use super::{Comparison, CountComparison, Interval, Measure, Outcome, Pair};
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

const LEGEND: &str = "\
Rates in %, differences in points, both with 95 % intervals; nats per token as they are. A difference is the second system's value less the first's, on the
same items: intervals by the paired bootstrap (BCa), for rates by Newcombe's method; p by McNemar's mid-p test for rates, by the
bootstrap elsewhere, corrected by Holm over all pairs and benchmarks (and again over all secondary metrics). \"cannot be seen\" names the true difference that a
test at 5 % before correction finds in four cases of five.";

const COUNTS_LEGEND: &str = "\
Rates in %, differences in points, both with 95 % intervals (Wilson; Newcombe). p by the z test of two rates, corrected by Holm.
Counts hide which items both systems got: the same answers, compared item by item, may tell them apart where this cannot.";

#[derive(Clone, Copy)]
enum Form {
    Terminal,
    Markdown,
}

impl Comparison {
    /// The table for a terminal: of the benchmarks' scores, and of the secondary metrics where asked for.
    pub fn text(&self, secondary: bool) -> String {
        let measures = self.measures.iter().filter(|m| secondary || m.primary);
        let mut parts = self.notes.clone();
        parts.push(self.rows(measures, Form::Terminal).to_string());
        parts.push(LEGEND.to_owned());
        parts.join("\n")
    }

    /// All tables as Markdown.
    pub fn markdown(&self) -> String {
        let of = |primary| self.rows(self.measures.iter().filter(|m| m.primary == primary), Form::Markdown);
        let mut parts = vec!["# Comparison".to_owned()];
        parts.extend(self.notes.iter().map(|note| format!("- {note}")));
        parts.push(of(true).to_string());
        if self.measures.iter().any(|m| !m.primary) {
            parts.push("## Secondary metrics".to_owned());
            parts.push(of(false).to_string());
        }
        parts.push(LEGEND.to_owned());
        parts.join("\n\n") + "\n"
    }

    fn rows<'a>(&self, measures: impl Iterator<Item = &'a Measure>, form: Form) -> Table {
        let mut table = table(form);
        table.set_header([
            "benchmark",
            "pair",
            "first",
            "second",
            "difference",
            "interval",
            "p (Holm)",
            "",
        ]);
        for measure in measures {
            for (i, pair) in measure.pairs.iter().enumerate() {
                let title = if i == 0 {
                    format!("{} {}", measure.benchmark, measure.metric)
                } else {
                    String::new()
                };
                table.add_row(self.row(title, measure, pair));
            }
        }
        table
    }

    fn row(&self, title: String, measure: &Measure, pair: &Pair) -> Vec<Cell> {
        let unit = Unit::of(&measure.metric);
        let value = |name: &str| {
            let place = self.systems.iter().position(|system| system == name);
            let found = place.and_then(|i| measure.values[i]);
            found.map_or("-".to_owned(), |v| {
                format!("{} {}", unit.value(v.value), unit.interval(v.interval, false))
            })
        };
        let mut reading = sentence(pair.verdict, pair.n, pair.detectable, unit);
        if let Some(test) = pair.non_inferiority {
            let margin = unit.size(test.margin);
            let says = if test.holds {
                "not worse by more than"
            } else {
                "may be worse by more than"
            };
            reading += &format!("; {says} {margin}");
        }
        vec![
            Cell::new(title),
            Cell::new(format!("{} vs {}", pair.second, pair.first)),
            right(value(&pair.first)),
            right(value(&pair.second)),
            right(unit.signed(pair.difference)),
            right(unit.interval(pair.newcombe.unwrap_or(pair.interval), true)),
            right(p_value(pair.p_holm)),
            Cell::new(reading),
        ]
    }
}

impl CountComparison {
    /// The table for a terminal.
    pub fn text(&self) -> String {
        let mut table = table(Form::Terminal);
        table.set_header(["system", "rate", "difference", "interval", "p (Holm)", ""]);
        let first = self.systems.first().map_or(0, |system| system.count.n);
        for system in &self.systems {
            let unit = Unit::Points;
            let rate = format!("{} {}", unit.value(system.value), unit.interval(system.interval, false));
            let mut row = vec![Cell::new(&system.name), right(rate)];
            match self.pairs.iter().find(|pair| pair.second == system.name) {
                Some(pair) => row.extend([
                    right(unit.signed(pair.difference)),
                    right(unit.interval(pair.interval, true)),
                    right(p_value(pair.p_holm)),
                    // What cannot be seen is that of the smaller sample.
                    Cell::new(sentence(pair.verdict, system.count.n.min(first), pair.detectable, unit)),
                ]),
                None => row.extend([right("-"), right("-"), right("-"), Cell::new("compared with")]),
            }
            table.add_row(row);
        }
        let series = &self.series;
        let one = if series.p_value < 0.05 {
            "not one common rate"
        } else {
            "all may be one common rate"
        };
        format!(
            "{table}\n{} systems: {one} (chi-square {:.2}, {} degrees of freedom, p = {}).\n{COUNTS_LEGEND}",
            self.systems.len(),
            series.chi_square,
            series.degrees_of_freedom,
            p_value(series.p_value)
        )
    }
}

fn sentence(outcome: Outcome, n: usize, detectable: Option<f64>, unit: Unit) -> String {
    match (outcome, detectable) {
        // Scores that differ by nothing have no spread to tell what could be seen.
        (Outcome::NotDistinguishable, Some(d)) if is_zero(&unit.value(d)) => format!("{} at n = {n}", outcome.word()),
        (Outcome::NotDistinguishable, Some(d)) => {
            let size = unit.size(d);
            format!("{} at n = {n}: differences under {size} cannot be seen", outcome.word())
        }
        (Outcome::NotDistinguishable, None) => format!("{} at n = {n}: no difference can be seen", outcome.word()),
        _ => outcome.word().to_owned(),
    }
}

/// Whether a number, as it is shown, is 0.
fn is_zero(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '0' | '.'))
}

/// What a measure is counted in.
#[derive(Clone, Copy)]
enum Unit {
    Points,
    Nats,
}

impl Unit {
    fn of(metric: &str) -> Self {
        if metric == "nll_per_token" {
            Unit::Nats
        } else {
            Unit::Points
        }
    }

    fn value(self, x: f64) -> String {
        match self {
            Unit::Points => format!("{:.1}", 100.0 * x),
            Unit::Nats => format!("{x:.3}"),
        }
    }

    fn signed(self, x: f64) -> String {
        // Rounded first, so that a trace below 0 shows no sign.
        let text = self.value(x.abs());
        match (is_zero(&text), x < 0.0) {
            (true, _) => text,
            (_, true) => format!("-{text}"),
            (_, false) => format!("+{text}"),
        }
    }

    fn interval(self, interval: Interval, signed: bool) -> String {
        let end = |x| if signed { self.signed(x) } else { self.value(x) };
        format!("[{}, {}]", end(interval.low), end(interval.high))
    }

    fn size(self, x: f64) -> String {
        let name = match self {
            Unit::Points => "points",
            Unit::Nats => "nats",
        };
        format!("{} {name}", self.value(x))
    }
}

fn p_value(p: f64) -> String {
    if p < 1e-3 {
        format!("{p:.0e}")
    } else {
        format!("{p:.3}")
    }
}

fn table(form: Form) -> Table {
    let mut table = Table::new();
    match form {
        Form::Terminal => table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic),
        Form::Markdown => table
            .load_style(ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::items::tests::evaluated;
    use crate::{Benchmark, CompareConfig, Count, compare, compare_counts};

    #[test]
    fn a_difference_is_read_plainly() {
        let scores = |right: usize| -> Vec<f64> { (0..500).map(|i| f64::from(u8::from(i < right))).collect() };
        let systems = [("A5", 388), ("V1", 391), ("V2", 300)]
            .map(|(name, right)| evaluated(name, Benchmark::Jailbreak, &scores(right)));
        let config = CompareConfig {
            margin: Some(0.02),
            ..CompareConfig::default()
        };
        let text = compare(&systems, &config).unwrap().markdown();
        for part in [
            "| jailbreak refusal_rate",
            "V1 vs A5",
            "77.6 [73.7, 81.0]",
            "+0.6",
            "not distinguishable at n = 500: differences under",
            "points cannot be seen; not worse by more than 2.0 points",
            "-17.6",
            "worse; may be worse by more than 2.0 points",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
    }

    #[test]
    fn nats_stay_nats_and_three_items_show_nothing() {
        let systems = ["A", "B"].map(|name| evaluated(name, Benchmark::RepliQaNll, &[1.25, 2.5]));
        let text = compare(&systems, &CompareConfig::default()).unwrap().text(false);
        assert!(text.contains("1.875") && !text.contains("187.5"), "{text}");
        assert!(!text.contains("under 0.000"), "{text}");
        let few = ["A", "B"].map(|name| evaluated(name, Benchmark::Jailbreak, &[1.0, 0.0, 1.0]));
        let text = compare(&few, &CompareConfig::default()).unwrap().markdown();
        assert!(
            text.contains("not distinguishable at n = 3: no difference can be seen"),
            "{text}"
        );
    }

    #[test]
    fn counts_are_read_alike() {
        let count = |successes| Count { successes, n: 500 };
        let named = [("V1".to_owned(), count(388)), ("V2".to_owned(), count(391))];
        let text = compare_counts(&named).unwrap().text();
        assert!(
            text.contains("all may be one common rate") && text.contains("p = 0.8"),
            "{text}"
        );
        let smaller = Count { successes: 39, n: 50 };
        let unequal = compare_counts(&[named[0].clone(), ("V3".to_owned(), smaller)]).unwrap();
        let reversed = compare_counts(&[("V3".to_owned(), smaller), named[0].clone()]).unwrap();
        for text in [unequal.text(), reversed.text()] {
            assert!(text.contains(" 50:") && !text.contains("500:"), "{text}");
        }
        let signed = |x| Unit::Points.signed(x);
        assert_eq!(
            (signed(-1e-9).as_str(), signed(0.012).as_str(), signed(-0.5).as_str()),
            ("0.0", "+1.2", "-50.0")
        );
    }
}
