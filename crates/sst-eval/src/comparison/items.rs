//! What several evaluations have in common: settings, data, benchmarks, items.

use crate::{Benchmark, Error, Evaluation, ItemRecord};
use serde_json::Value;
use sst_artefact::Manifest;
use sst_data::{DATASETS, Dataset};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An evaluation with what it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Its name in tables.
    pub name: String,
    /// Scores and items.
    pub evaluation: Evaluation,
    /// SHA-256 of the data behind it, by role: `repliqa`, `mmlu_test`, ...
    pub data: BTreeMap<String, String>,
}

impl Evaluated {
    /// Reads evaluation folders. Each is named by its adapter, or `base`; those of one name by their folders.
    ///
    /// # Errors
    /// [`Error::Artefact`] when a folder holds no evaluation, [`Error::Record`] for a malformed line of items.
    pub fn load(folders: &[impl AsRef<Path>]) -> Result<Vec<Self>, Error> {
        let mut systems = Vec::new();
        for folder in folders {
            let evaluation = Evaluation::load(folder.as_ref())?;
            let inputs = Manifest::read(folder.as_ref())?.inputs;
            let data = inputs.into_iter().filter(|(role, _)| is_data(role));
            systems.push(Self {
                name: evaluation.adapter.clone().unwrap_or_else(|| "base".to_owned()),
                data: data.map(|(role, input)| (role, input.sha256)).collect(),
                evaluation,
            });
        }
        let names: Vec<String> = systems.iter().map(|s| s.name.clone()).collect();
        for (system, folder) in systems.iter_mut().zip(folders) {
            if names.iter().filter(|name| **name == system.name).count() > 1 {
                system.name = folder.as_ref().display().to_string();
            }
        }
        Ok(systems)
    }

    /// The settings that decide what a score means, flat: `max_new_tokens.alpaca`. Which benchmarks and how many items
    /// shows in the items themselves, and a seed changes no meaning.
    fn settings(&self) -> BTreeMap<String, Value> {
        fn flatten(path: &str, value: Value, flat: &mut BTreeMap<String, Value>) {
            match value {
                Value::Object(fields) => {
                    for (key, inner) in fields {
                        let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                        flatten(&path, inner, flat);
                    }
                }
                other => {
                    flat.insert(path.to_owned(), other);
                }
            }
        }
        let mut flat = BTreeMap::new();
        flatten("", serde_json::json!(self.evaluation.config), &mut flat);
        flat.insert("judge".to_owned(), Value::String(self.evaluation.judge.clone()));
        flat.retain(|key, _| key != "benchmarks" && !key.starts_with("n.") && !key.ends_with("seed"));
        flat
    }
}

/// Whether an input of that role is data, and not the model or its adapter.
fn is_data(role: &str) -> bool {
    let sets = DATASETS.into_iter().map(Dataset::name).chain(["mmlu", "xstest"]);
    sets.into_iter().any(|set| role.starts_with(set))
}

/// One metric of all systems on the items that they share.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) metric: String,
    pub(super) primary: bool,
    /// `[system][item]`, items in the order of their ids; nothing where the metric does not concern the item.
    pub(super) values: Vec<Vec<Option<f64>>>,
}

impl Columns {
    pub(super) fn n(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }
}

/// What all systems share, and what they do not.
pub(super) struct Shared {
    pub(super) benchmarks: Vec<(Benchmark, Vec<Columns>)>,
    pub(super) notes: Vec<String>,
}

impl Shared {
    /// # Errors
    /// [`Error::Unlike`] for the first difference, unless differences are `allowed`; or where nothing is shared at all.
    pub(super) fn of(systems: &[Evaluated], allowed: bool) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let (first, others) = systems.split_first().map_or((None, systems), |(f, o)| (Some(f), o));
        let Some(first) = first else {
            return Ok(Self {
                benchmarks: Vec::new(),
                notes,
            });
        };
        for other in others {
            for difference in [differing_settings(first, other), differing_data(first, other)].concat() {
                note(&mut notes, first, other, difference, allowed)?;
            }
        }
        let mut benchmarks = Vec::new();
        for score in &first.evaluation.scores {
            let benchmark = score.benchmark;
            if let Some(lacking) = others.iter().find(|s| s.evaluation.score(benchmark).is_none()) {
                notes.push(format!("{benchmark} is left out: {} did not run it", lacking.name));
                continue;
            }
            let ids = shared_ids(benchmark, first, others, allowed, &mut notes)?;
            benchmarks.push((benchmark, columns(benchmark, systems, &ids)));
        }
        if benchmarks.is_empty() {
            let other = others.first().map_or(first, |other| other);
            return Err(unlike(first, other, "they ran no benchmark in common".to_owned()));
        }
        Ok(Self { benchmarks, notes })
    }
}

fn unlike(first: &Evaluated, second: &Evaluated, difference: String) -> Error {
    Error::Unlike {
        first: first.name.clone(),
        second: second.name.clone(),
        difference,
    }
}

fn note(
    notes: &mut Vec<String>,
    first: &Evaluated,
    second: &Evaluated,
    difference: String,
    allowed: bool,
) -> Result<(), Error> {
    if !allowed {
        return Err(unlike(first, second, difference));
    }
    notes.push(format!("{} and {}: {difference}", first.name, second.name));
    Ok(())
}

fn differing_settings(first: &Evaluated, second: &Evaluated) -> Vec<String> {
    let (a, b) = (first.settings(), second.settings());
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let show = |value: Option<&Value>| value.map_or("absent".to_owned(), ToString::to_string);
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("{key} is {} and {}", show(a.get(key)), show(b.get(key))))
        .collect()
}

fn differing_data(first: &Evaluated, second: &Evaluated) -> Vec<String> {
    let both = first
        .data
        .iter()
        .filter_map(|(role, a)| Some((role, a, second.data.get(role)?)));
    both.filter(|(_, a, b)| a != b)
        .map(|(role, ..)| format!("the data of {role} are not the same files"))
        .collect()
}

fn records(system: &Evaluated, benchmark: Benchmark) -> BTreeMap<&str, &ItemRecord> {
    let chosen = system.evaluation.records.iter().filter(|r| r.benchmark == benchmark);
    chosen.map(|r| (r.id.as_str(), r)).collect()
}

/// The items that all systems answered, by id.
fn shared_ids(
    benchmark: Benchmark,
    first: &Evaluated,
    others: &[Evaluated],
    allowed: bool,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<String>, Error> {
    let own = records(first, benchmark);
    let mut ids: BTreeSet<String> = own.keys().map(|id| (*id).to_owned()).collect();
    for other in others {
        let theirs = records(other, benchmark);
        // Another prompt format asks the same item in other words; other data may hold another item under the same id.
        let other_words = allowed && differing_data(first, other).is_empty();
        let same = |id: &str| {
            own.get(id)
                .zip(theirs.get(id))
                .is_some_and(|(a, b)| a.reference == b.reference && (other_words || a.prompt == b.prompt))
        };
        let all: BTreeSet<&str> = own.keys().chain(theirs.keys()).copied().collect();
        let (kept, lost): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|id| same(id));
        if let Some(id) = lost.first() {
            let difference = if own.contains_key(id) && theirs.contains_key(id) {
                format!("item `{id}` of {benchmark} is another question in each")
            } else {
                format!("item `{id}` of {benchmark} is in only one of them")
            };
            let shared = format!("{difference}; {} items are in both, {} are not", kept.len(), lost.len());
            note(notes, first, other, if allowed { shared } else { difference }, allowed)?;
        }
        if kept.is_empty() {
            return Err(unlike(first, other, format!("they share no item of {benchmark}")));
        }
        ids.retain(|id| same(id));
    }
    Ok(ids)
}

/// The score and the secondary metrics; a metric that says of every item what the score says is left out.
fn columns(benchmark: Benchmark, systems: &[Evaluated], ids: &BTreeSet<String>) -> Vec<Columns> {
    let items: Vec<Vec<&ItemRecord>> = systems
        .iter()
        .map(|system| {
            let records = records(system, benchmark);
            ids.iter().filter_map(|id| records.get(id.as_str()).copied()).collect()
        })
        .collect();
    let column = |metric: &str, primary, value: &dyn Fn(&ItemRecord) -> Option<f64>| Columns {
        metric: metric.to_owned(),
        primary,
        values: items
            .iter()
            .map(|records| records.iter().map(|r| value(r)).collect())
            .collect(),
    };
    let mut columns = vec![column(benchmark.metric(), true, &|r| Some(r.score))];
    let names: BTreeSet<&String> = items.iter().flatten().flat_map(|r| r.metrics.keys()).collect();
    for name in names {
        let secondary = column(name, false, &|r| r.metrics.get(name).copied());
        if secondary.values != columns[0].values {
            columns.push(secondary);
        }
    }
    columns
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{BenchmarkScore, SuiteConfig};
    use sst_data::Prompt;

    /// An evaluation of one benchmark with these scores.
    pub(in crate::comparison) fn evaluated(name: &str, benchmark: Benchmark, scores: &[f64]) -> Evaluated {
        let record = |(i, &score): (usize, &f64)| ItemRecord {
            benchmark,
            id: format!("{benchmark}/{}", i + 1),
            prompt: Prompt::user(format!("Question {i}?")),
            answer: String::new(),
            reference: String::new(),
            score,
            refused: None,
            valid: None,
            finish: None,
            log_likelihoods: Vec::new(),
            metrics: BTreeMap::new(),
        };
        let records: Vec<ItemRecord> = scores.iter().enumerate().map(record).collect();
        Evaluated {
            name: name.to_owned(),
            evaluation: Evaluation {
                adapter: Some(name.to_owned()),
                judge: "rules".to_owned(),
                config: SuiteConfig::default(),
                scores: vec![BenchmarkScore::of(benchmark, &records)],
                records,
            },
            data: BTreeMap::from([("jailbreak".to_owned(), "aa".to_owned())]),
        }
    }

    fn pair() -> [Evaluated; 2] {
        ["A", "B"].map(|name| evaluated(name, Benchmark::Jailbreak, &[1.0, 0.0, 1.0]))
    }

    fn refusal(systems: &[Evaluated]) -> String {
        Shared::of(systems, false).err().unwrap().to_string()
    }

    #[test]
    fn items_are_matched_by_id_whatever_their_order() {
        let mut systems = pair();
        systems[1].evaluation.records.reverse();
        systems[1].evaluation.records[0].score = 0.25; // of item 3
        let shared = Shared::of(&systems, false).unwrap();
        let values = &shared.benchmarks[0].1[0].values;
        assert_eq!(values[0], [Some(1.0), Some(0.0), Some(1.0)]);
        assert_eq!(values[1], [Some(1.0), Some(0.0), Some(0.25)]);
        assert!(shared.notes.is_empty());
    }

    #[test]
    fn what_is_not_alike_is_refused_by_name_or_noted() {
        type Change = fn(&mut Evaluated);
        let changes: [(Change, &str, usize); 5] = [
            (
                |s| s.evaluation.config.max_new_tokens.jailbreak = 100,
                "max_new_tokens.jailbreak is 48 and 100",
                3,
            ),
            (
                |s| s.evaluation.judge = "keyword".to_owned(),
                "judge is \"rules\" and \"keyword\"",
                3,
            ),
            (
                |s| drop(s.data.insert("jailbreak".to_owned(), "bb".to_owned())),
                "the data of jailbreak",
                3,
            ),
            (
                |s| drop(s.evaluation.records.remove(1)),
                "item `jailbreak/2` of jailbreak is in only one",
                2,
            ),
            (
                |s| s.evaluation.records[0].reference = "x".to_owned(),
                "item `jailbreak/1` of jailbreak is another question",
                2,
            ),
        ];
        for (change, part, left) in changes {
            let mut systems = pair();
            change(&mut systems[1]);
            let message = refusal(&systems);
            assert!(
                message.starts_with("A and B cannot be compared") && message.contains(part),
                "{message}"
            );
            let shared = Shared::of(&systems, true).unwrap();
            assert!(shared.notes[0].contains(part), "{:?}", shared.notes);
            assert_eq!(shared.benchmarks[0].1[0].n(), left, "{part}");
        }
    }

    #[test]
    fn other_words_are_the_same_item_only_on_the_same_data() {
        let mut systems = pair();
        for record in &mut systems[1].evaluation.records {
            record.prompt = Prompt::Text("other words".to_owned());
        }
        assert!(refusal(&systems).contains("another question"));
        assert_eq!(Shared::of(&systems, true).unwrap().benchmarks[0].1[0].n(), 3);
        systems[1].data.insert("jailbreak".to_owned(), "bb".to_owned());
        let nothing = Shared::of(&systems, true).err().unwrap().to_string();
        assert!(nothing.contains("share no item of jailbreak"), "{nothing}");
    }

    #[test]
    fn seeds_counts_and_further_benchmarks_do_not_stand_in_the_way() {
        let mut systems = pair();
        systems[1].evaluation.config.seed = 9;
        systems[1].evaluation.config.n.jailbreak = Some(3);
        let more = evaluated("B", Benchmark::Mmlu, &[1.0]);
        systems[1].evaluation.scores.extend(more.evaluation.scores);
        systems[1].evaluation.records.extend(more.evaluation.records);
        assert_eq!(Shared::of(&systems, false).unwrap().benchmarks.len(), 1);
        systems.reverse();
        let shared = Shared::of(&systems, false).unwrap();
        assert_eq!(shared.notes, ["mmlu is left out: A did not run it"]);
        let strangers = [
            evaluated("A", Benchmark::Jailbreak, &[1.0]),
            evaluated("B", Benchmark::Mmlu, &[1.0]),
        ];
        assert!(refusal(&strangers).contains("no benchmark in common"));
    }

    #[test]
    fn secondary_metrics_keep_their_gaps_and_repeat_nothing() {
        let mut systems = pair();
        for system in &mut systems {
            for (i, record) in system.evaluation.records.iter_mut().enumerate() {
                record.metrics.insert("refused".to_owned(), record.score);
                if i != 1 {
                    record.metrics.insert("attack_success_of_valid".to_owned(), 0.0);
                }
            }
        }
        let columns = &Shared::of(&systems, false).unwrap().benchmarks[0].1;
        let names: Vec<&str> = columns.iter().map(|c| c.metric.as_str()).collect();
        assert_eq!(names, ["refusal_rate", "attack_success_of_valid"]);
        assert_eq!(columns[1].values[0], [Some(0.0), None, Some(0.0)]);
    }

    #[test]
    fn folders_are_named_by_adapter_or_by_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let [mut a, b] = pair();
        a.evaluation.adapter = None;
        let folders = ["one", "two", "three"].map(|name| dir.path().join(name));
        for (folder, evaluation) in folders.iter().zip([&a.evaluation, &b.evaluation, &a.evaluation]) {
            evaluation.save(folder, BTreeMap::new()).unwrap();
        }
        let names = |folders: &[std::path::PathBuf]| -> Vec<String> {
            Evaluated::load(folders).unwrap().into_iter().map(|s| s.name).collect()
        };
        assert_eq!(names(&folders[..2]), ["base", "B"]);
        let three = names(&folders);
        assert_eq!(three[1], "B");
        assert!(three[0].ends_with("one") && three[2].ends_with("three"), "{three:?}");
        assert_eq!(Evaluated::load(&folders[1..2]).unwrap()[0].evaluation, b.evaluation);
    }
}
