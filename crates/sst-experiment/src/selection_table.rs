//! A selection as a table: every method's choice on both splits.

use crate::comparison::{as_markdown, for_terminal, percent, right};
use crate::report::Rate;
use crate::{Axes, Selection, SelectionRule};
use comfy_table::{Cell, Table};

impl Selection {
    /// The table for a terminal.
    pub fn text(&self) -> String {
        for_terminal(self.table(), &self.legend())
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        as_markdown(self.table(), &self.legend())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["chosen", "of", "items", "safety", "utility", "over-refusal"]);
        for method in &self.methods {
            let Some(point) = method.choice() else { continue };
            let test = self.tested(&point.name).and_then(|system| Axes::of(&system.scores));
            let sides = [("development", Some(point.axes)), ("test", test)];
            for (side, axes) in sides {
                let named = side == "development";
                let show = |rate: Option<Rate>, reached: Option<bool>| {
                    let mark = reached.map_or("", |yes| if yes { " ✓" } else { " ✗" });
                    right(rate.map_or("-".to_owned(), |r| {
                        let [value, low, high] = [r.value, r.interval.low, r.interval.high].map(percent);
                        format!("{value} [{low}, {high}]{mark}")
                    }))
                };
                let safety = axes.map(|a| a.safety);
                let refused = axes.and_then(|a| a.over_refusal);
                table.add_row(vec![
                    Cell::new(if named { point.name.as_str() } else { "" }),
                    right(if named {
                        method.points.len().to_string()
                    } else {
                        String::new()
                    }),
                    Cell::new(side),
                    show(safety, safety.map(|rate| rate.value >= self.goals.jailbreak)),
                    show(axes.map(|a| a.utility), None),
                    show(
                        refused,
                        refused.zip(method.ceiling).map(|(rate, ceiling)| rate.value <= ceiling),
                    ),
                ]);
            }
        }
        table
    }

    fn legend(&self) -> String {
        let rule = match self.recipe.rule {
            SelectionRule::Utility => format!(
                "the highest utility with safety >= {} and over-refusal <= the utility adapters' + {}; where no point has both, the smallest shortfall",
                percent(self.goals.jailbreak),
                percent(self.recipe.over_refusal_margin),
            ),
            SelectionRule::Goals => "the most goals met, then the largest smallest margin".to_owned(),
        };
        let caution = self
            .caution()
            .map_or(String::new(), |text| format!("\nCaution: {text}."));
        format!(
            "Chosen on {} % of the items, judged once on the others, in % with 95 % intervals: {rule}. Safety: jailbreak prompts refused. \
             Utility: mean of MMLU, RepliQA and Alpaca.{caution}",
            percent(self.recipe.dev),
        )
    }
}
