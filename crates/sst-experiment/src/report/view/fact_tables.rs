//! The tables of what was measured on the way: subspaces, stages, inputs.

use super::tables::{Words, interval};
use super::{Entry, Table};
use crate::report::phrases::{bench, energy, p_value, percent, points, short_number};
use crate::report::{Reproduction, SubspaceFacts};
use crate::{Attribution, Error};

impl Words<'_> {
    pub(super) fn subspaces(&self, facts: &[SubspaceFacts]) -> Result<Table, Error> {
        let head = self.heads(&[
            ("system", false),
            ("k", true),
            ("retained", true),
            ("random", true),
            ("change", true),
            ("eigenvalues", true),
            ("median", true),
            ("below_ridge", true),
        ])?;
        let dash = || "–".to_owned();
        let row = |f: &SubspaceFacts| {
            let median = f.quantiles.iter().find(|(level, _)| *level == 0.5).map(|(_, x)| *x);
            let eigenvalues = f
                .eigenvalues
                .map_or(dash(), |[a, b]| format!("{} … {}", short_number(a), short_number(b)));
            vec![
                Entry::plain(&f.cell),
                Entry::plain(f.k.map_or(dash(), |k| k.to_string())),
                Entry::plain(f.retained.map_or(dash(), energy)),
                Entry::plain(f.random.map_or(dash(), energy)),
                Entry::plain(f.relative_change.map_or(dash(), short_number)),
                Entry::plain(eigenvalues),
                Entry::plain(median.map_or(dash(), short_number)),
                Entry::plain(f.below_ridge.map_or(dash(), |x| format!("{} %", percent(x)))),
            ]
        };
        Ok(Table {
            caption: String::new(),
            rows: facts.iter().map(row).collect(),
            head,
        })
    }

    pub(super) fn attribution(&self, attribution: &Attribution) -> Result<Table, Error> {
        let columns = [
            ("benchmark", false),
            ("stage", false),
            ("share", true),
            ("interval", true),
            ("p_holm", true),
            ("items", true),
        ];
        let mut rows = Vec::new();
        for shares in &attribution.benchmarks {
            for share in shares.stages.iter().chain([&shares.total]) {
                let names = self.stages(share);
                let whole = share == &shares.total;
                let class = match (
                    share.is_distinct(),
                    (share.value > 0.0) == shares.benchmark.higher_is_better(),
                ) {
                    (true, true) => "better",
                    (true, false) => "worse",
                    (false, _) => "noise",
                };
                rows.push(vec![
                    Entry::plain(bench(shares.benchmark.name())),
                    Entry::plain(if whole { "B − A".to_owned() } else { names }),
                    Entry::classed(points(share.value), class),
                    Entry::plain(interval(share.interval, points)),
                    Entry::plain(p_value(share.p_holm)),
                    Entry::plain(format!("{} / {}", share.items, shares.n)),
                ]);
            }
        }
        Ok(Table {
            caption: String::new(),
            head: self.heads(&columns)?,
            rows,
        })
    }

    pub(super) fn inputs(&self, reproduction: &Reproduction) -> Result<Table, Error> {
        let row = |(role, input): (&String, &sst_artefact::Input)| {
            let path = input.path.display().to_string();
            vec![Entry::plain(role), Entry::plain(path), Entry::plain(&input.sha256)]
        };
        Ok(Table {
            caption: String::new(),
            head: self.heads(&[("role", false), ("path", false), ("hash", false)])?,
            rows: reproduction.inputs.iter().map(row).collect(),
        })
    }
}
