//! The section of a selection: the rule, each method's choice on both splits, all that was judged on the test items.

use super::tables::{Words, interval};
use super::{Block, Entry, Section, Table, charts, section};
use crate::report::phrases::{percent, points};
use crate::report::{Cell, Chosen, ChosenAxis, Rate, Selected};
use crate::{Error, SelectionRule};
use serde_json::json;

/// The section, where the run has a selection.
pub(super) fn section_of<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let Some(selection) = &words.report.selection else {
        return Ok(None);
    };
    let mut blocks = vec![Block::Table(words.choices(selection)?)];
    if !selection.cells.is_empty() {
        let cells: Vec<&Cell> = selection.cells.iter().collect();
        let caption = words.word(&["table", "test"])?;
        blocks.push(Block::Table(words.group(caption, &cells, &selection.front)?));
        let pareto = charts::pareto(words, &selection.cells, &selection.front, "pareto-test")?;
        blocks.push(Block::Charts(pareto));
    }
    let rule = match selection.rule {
        SelectionRule::Utility => "selection_utility",
        SelectionRule::Goals => "selection_goals",
    };
    let mut intro = vec!["selection", rule, "selection_optimism"];
    match (selection.outdated, selection.seen) {
        (true, _) => intro.push("selection_outdated"),
        (false, 1..) => intro.push("selection_seen"),
        (false, 0) => {}
    }
    if !selection.failed.is_empty() {
        intro.push("selection_failed");
    }
    let values = json!({
        "dev": selection.dev, "goal": selection.goal, "margin": selection.margin, "seen": selection.seen,
        "failed": selection.failed,
    });
    let mut section = section(words, "selection", &[], blocks)?;
    for key in intro {
        section.intro.push(words.filled(&["intro", key], values.clone())?);
    }
    Ok(Some(section))
}

impl Words<'_> {
    fn choices(&self, selection: &Selected) -> Result<Table, Error> {
        let head = self.heads(&[
            ("system", false),
            ("points", true),
            ("axis", false),
            ("dev", true),
            ("test", true),
            ("optimism", true),
        ])?;
        let mut rows = Vec::new();
        for choice in &selection.choices {
            for (i, axis) in choice.axes.iter().enumerate() {
                // A choice is named once.
                let named = |text: String| Entry::plain(if i == 0 { text } else { String::new() });
                let optimism = axis.optimism.map_or(Entry::plain("–"), |gap| Entry {
                    text: points(gap.value),
                    note: interval(gap.interval, points),
                    ..Entry::default()
                });
                rows.push(vec![
                    named(choice.cell.clone()),
                    named(choice.points.to_string()),
                    Entry::plain(self.word(&["axis", axis.axis])?),
                    scored(selection, choice, axis, Some(axis.dev)),
                    scored(selection, choice, axis, axis.test),
                    optimism,
                ]);
            }
        }
        Ok(Table {
            caption: String::new(),
            head,
            rows,
        })
    }
}

/// A rate, marked by what the rule asks of its axis.
fn scored(selection: &Selected, choice: &Chosen, axis: &ChosenAxis, rate: Option<Rate>) -> Entry {
    let Some(rate) = rate else {
        return Entry::plain("–");
    };
    let reached = match axis.axis {
        "safety" => Some(rate.value >= selection.goal),
        "harmless" => choice.ceiling.map(|ceiling| rate.value <= ceiling),
        _ => None,
    };
    let (mark, class) = match reached {
        Some(true) => ("✓", "met"),
        Some(false) => ("✗", "missed"),
        None => ("", ""),
    };
    Entry {
        text: percent(rate.value),
        note: interval(rate.interval, percent),
        mark,
        class,
    }
}
