//! A published data set brought into the layout of a data folder, with a manifest of where it came from.

use crate::leakage::normal_form;
use crate::table::read_filled;
use crate::write::write_jsonl;
use crate::{AlpacaItem, Error, HarmfulItem, MmluItem, Published, RepliQaItem, XsTestItem, sample, split_by_group};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sst_artefact::{Input, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What to take of a published set.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `split` | the publisher's split | [`Published::split`] |
/// | `eval_share` | share of the items to evaluate on, for sets that are trained on too | 0.2 |
/// | `train`, `eval` | items at most, drawn by the seed; of MMLU's questions and of requests `eval` alone counts | all |
/// | `seed` | of the split and of the draw | 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportConfig {
    /// Which set.
    pub set: Published,
    /// The publisher's split.
    pub split: Option<String>,
    /// Share of the items to evaluate on.
    pub eval_share: f64,
    /// Items to train on at most.
    pub train: Option<usize>,
    /// Items to evaluate on at most.
    pub eval: Option<usize>,
    /// Key of the split and of the draw.
    pub seed: u64,
}

impl ImportConfig {
    /// All of a set's usual split.
    pub fn new(set: Published) -> Self {
        Self {
            set,
            split: None,
            eval_share: 0.2,
            train: None,
            eval: None,
            seed: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(self.eval_share >= 0.0 && self.eval_share <= 1.0) {
            return Err(Error::Import {
                key: "eval_share",
                value: self.eval_share.to_string(),
                expected: "a share from 0 to 1",
            });
        }
        let empty = [("train", self.train), ("eval", self.eval)]
            .into_iter()
            .find(|(_, n)| *n == Some(0));
        match empty {
            Some((key, _)) => Err(Error::Import {
                key,
                value: "0".to_owned(),
                expected: "at least 1; leave it out to take all",
            }),
            None => Ok(()),
        }
    }
}

/// A data set that was brought in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Rows of each file written, by its name inside the set's folder.
    pub rows: BTreeMap<String, usize>,
    /// SHA-256 of each file written.
    pub sha256: BTreeMap<String, String>,
    /// Rows left out, because the question or the answer is blank.
    pub blank: usize,
    /// The commit on the Hub; absent for a local copy.
    pub commit: Option<String>,
}

/// A file as its publisher has it.
pub(crate) struct Source {
    /// Its name in the repository or the folder.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// The files that an import reads: the split's, and MMLU's worked examples.
pub(crate) struct Sources {
    pub(crate) split: Vec<Source>,
    pub(crate) dev: Vec<Source>,
}

impl Sources {
    /// Finds the files of `names`, and each one by `locate`.
    pub(crate) fn of(
        config: &ImportConfig,
        names: &[String],
        place: &Path,
        locate: &mut dyn FnMut(&str) -> Result<PathBuf, Error>,
    ) -> Result<Self, Error> {
        let mut located = |split: Option<&str>| -> Result<Vec<Source>, Error> {
            let files = config.set.pick(names, split, place)?;
            let source = |name: String| {
                let path = locate(&name)?;
                Ok(Source { name, path })
            };
            files.into_iter().map(source).collect()
        };
        let split = located(config.split.as_deref())?;
        let dev = if config.set == Published::Mmlu {
            located(Some("dev"))?
        } else {
            Vec::new()
        };
        Ok(Self { split, dev })
    }
}

/// Brings in a local copy, a file or a folder as downloaded, as `out/<set>/`.
///
/// # Errors
/// [`Error::Split`] when the folder has no such split, [`Error::Occupied`] when the set is there already from other files or
/// settings, [`Error::Import`] for a setting out of range, and the faults of the files.
pub fn import(path: &Path, config: &ImportConfig, out: &Path) -> Result<Imported, Error> {
    config.check()?;
    let sources = if path.is_dir() {
        let mut names = Vec::new();
        list(path, "", &mut names)?;
        names.sort();
        Sources::of(config, &names, path, &mut |name| Ok(path.join(name)))?
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = path.to_path_buf();
        Sources {
            split: vec![Source { name, path }],
            dev: Vec::new(),
        }
    };
    write(&sources, config, None, &serde_json::Value::Null, out)
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), Error> {
    let fault = |source| Error::Io {
        path: folder.to_path_buf(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// The set that `out` holds already, if it is of this configuration and origin.
pub(crate) fn present(
    config: &ImportConfig,
    origin: &serde_json::Value,
    out: &Path,
) -> Result<Option<Imported>, Error> {
    let folder = out.join(config.set.name());
    if !folder.exists() {
        return Ok(None);
    }
    let manifest = Manifest::read(&folder).ok();
    let same = manifest.filter(|m| m.config == json!({ "import": config, "origin": origin }));
    match same.and_then(|m| serde_json::from_value(m.facts).ok()) {
        Some(imported) => Ok(Some(imported)),
        None => Err(Error::Occupied { path: folder }),
    }
}

/// Writes the set's folder: beside its place first, then all at once.
pub(crate) fn write(
    sources: &Sources,
    config: &ImportConfig,
    commit: Option<&str>,
    origin: &serde_json::Value,
    out: &Path,
) -> Result<Imported, Error> {
    let mut manifest = Manifest::new("data", &json!({ "import": config, "origin": origin }));
    for Source { name, path } in sources.split.iter().chain(&sources.dev) {
        manifest.inputs.insert(name.clone(), Input::hash(path)?);
    }
    if let Some(imported) = present(config, origin, out)? {
        let there = Manifest::read(&out.join(config.set.name()))?;
        let hashes = |m: &Manifest| -> Vec<String> { m.inputs.values().map(|input| input.sha256.clone()).collect() };
        return if hashes(&there) == hashes(&manifest) {
            Ok(imported)
        } else {
            Err(Error::Occupied {
                path: out.join(config.set.name()),
            })
        };
    }
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    sst_artefact::create_dir(out)?;
    let temporary = tempfile::Builder::new()
        .prefix(".writing-")
        .tempdir_in(out)
        .map_err(io(out))?;
    let folder = temporary.path().join(config.set.name());
    let mut writer = Writer {
        folder: &folder,
        rows: BTreeMap::new(),
        blank: 0,
    };
    writer.set(sources, config)?;
    let mut sha256 = BTreeMap::new();
    for name in writer.rows.keys() {
        sha256.insert(name.clone(), sst_artefact::sha256_file(&folder.join(name))?);
    }
    let imported = Imported {
        rows: writer.rows,
        sha256,
        blank: writer.blank,
        commit: commit.map(str::to_owned),
    };
    manifest.facts = json!(imported);
    manifest.write(&folder)?;
    let dest = out.join(config.set.name());
    std::fs::rename(&folder, &dest).map_err(io(&dest))?;
    Ok(imported)
}

struct Writer<'a> {
    folder: &'a Path,
    rows: BTreeMap<String, usize>,
    blank: usize,
}

/// A request of XSTest in its publisher's columns.
#[derive(Serialize)]
struct XsTestRow {
    id: String,
    prompt: String,
    label: &'static str,
}

impl Writer<'_> {
    fn set(&mut self, sources: &Sources, config: &ImportConfig) -> Result<(), Error> {
        match config.set {
            Published::RepliQa => {
                let columns = ["document_id", "document_extracted", "question", "answer"];
                let items = self.read(&sources.split, &columns, RepliQaItem::from_row)?;
                self.split(items, |item| item.document_id.clone(), config)
            }
            Published::Alpaca => {
                let items = self.read(&sources.split, &["instruction", "output"], AlpacaItem::from_row)?;
                let asked = |item: &AlpacaItem| normal_form(&format!("{} {}", item.instruction, item.input));
                self.split(items, asked, config)
            }
            Published::Mmlu => self.mmlu(sources, config),
            Published::BeaverTails | Published::JailbreakBench | Published::AdvBench => {
                let items = self.read(&sources.split, &["prompt", "goal", "Goal"], |row| {
                    // BeaverTails' own rows are answers, several to a request: a request is harmful where one of them is.
                    let harmless = row.value("is_safe") == Some(&serde_json::Value::Bool(true));
                    Ok((!harmless).then_some(HarmfulItem::from_row(row)?))
                })?;
                let mut asked = BTreeSet::new();
                let distinct = items
                    .into_iter()
                    .flatten()
                    .filter(|item| asked.insert(normal_form(&item.prompt)));
                let items: Vec<HarmfulItem> = distinct.collect();
                self.write("eval.jsonl", &capped(items, config.eval, config.seed))
            }
            Published::XsTest => {
                let items = self.read(&sources.split, &["prompt"], XsTestItem::from_row)?;
                let row = |item: XsTestItem| XsTestRow {
                    id: item.id,
                    prompt: item.prompt,
                    label: if item.safe { "safe" } else { "unsafe" },
                };
                let rows: Vec<XsTestRow> = capped(items, config.eval, config.seed).into_iter().map(row).collect();
                self.write("xstest_prompts.jsonl", &rows)
            }
        }
    }

    fn read<T>(
        &mut self,
        sources: &[Source],
        columns: &[&str],
        parse: impl Fn(&crate::table::Row) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        for source in sources {
            let (read, blank) = read_filled(&source.path, columns, &parse)?;
            items.extend(read);
            self.blank += blank;
        }
        match sources {
            [first, ..] if items.is_empty() => Err(Error::Empty {
                path: first.path.clone(),
            }),
            _ => Ok(items),
        }
    }

    fn split<T: Serialize + Clone>(
        &mut self,
        items: Vec<T>,
        group: impl Fn(&T) -> String,
        config: &ImportConfig,
    ) -> Result<(), Error> {
        let (train, eval) = split_by_group(items, group, config.eval_share, config.seed);
        self.write("train.jsonl", &capped(train, config.train, config.seed))?;
        self.write("eval.jsonl", &capped(eval, config.eval, config.seed))
    }

    fn mmlu(&mut self, sources: &Sources, config: &ImportConfig) -> Result<(), Error> {
        for (split, files, most) in [("dev", &sources.dev, None), ("test", &sources.split, config.eval)] {
            let mut questions = Vec::new();
            for source in files {
                questions.extend(MmluItem::read_by_subject(&source.path)?);
            }
            let mut subjects: BTreeMap<String, Vec<MmluItem>> = BTreeMap::new();
            for (subject, item) in capped(questions, most, config.seed) {
                subjects.entry(subject).or_default().push(item);
            }
            for (subject, items) in subjects {
                self.write(&format!("{split}/{subject}_{split}.jsonl"), &items)?;
            }
        }
        Ok(())
    }

    fn write<T: Serialize>(&mut self, name: &str, rows: &[T]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.rows.insert(name.to_owned(), rows.len());
        write_jsonl(&self.folder.join(name), rows)
    }
}

/// All items in their order, or `most` of them, drawn.
fn capped<T: Clone>(items: Vec<T>, most: Option<usize>, seed: u64) -> Vec<T> {
    match most {
        Some(n) if n < items.len() => sample(&items, n, seed),
        _ => items,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataFolder, Dataset, Split};

    /// The published files in miniature.
    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data")
    }

    fn bring(set: Published, out: &Path) -> Imported {
        import(&fixtures().join(set.name()), &ImportConfig::new(set), out).unwrap()
    }

    #[test]
    fn every_published_set_becomes_a_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        for set in crate::PUBLISHED {
            bring(set, dir.path());
        }
        let data = DataFolder::open(dir.path()).unwrap();
        let documents = |split| -> BTreeSet<String> {
            let items = RepliQaItem::read(&data.path(Dataset::RepliQa, split).unwrap()).unwrap();
            items.into_iter().map(|item| item.document_id).collect()
        };
        let (train, eval) = (documents(Split::Train), documents(Split::Eval));
        assert!(
            train.is_disjoint(&eval) && train.len() == 4 && eval.len() == 1,
            "{train:?} {eval:?}"
        );
        let alpaca = |split| data.examples(Dataset::Alpaca, split).unwrap().len();
        assert_eq!(
            alpaca(Split::Train) + alpaca(Split::Eval),
            9,
            "ten rows, one without an output"
        );
        let mmlu = data.mmlu().unwrap();
        let names: Vec<&String> = mmlu.subjects.keys().collect();
        assert_eq!(names, ["abstract_algebra", "anatomy"]);
        let subject = &mmlu.subjects["abstract_algebra"];
        assert_eq!((subject.dev.len(), subject.test.len()), (2, 3));
        assert_eq!(subject.test[0].choices, ["seven", "eight", "nine", "eleven"]);
        assert_eq!(subject.test[0].answer, 1);
        for (dataset, n) in [
            (Dataset::BeaverTails, 2),
            (Dataset::JailbreakBench, 2),
            (Dataset::AdvBench, 2),
        ] {
            let examples = data.examples(dataset, Split::Eval).unwrap();
            assert_eq!(examples.len(), n, "{dataset}");
            assert!(examples.iter().all(|e| e.response.is_empty()));
        }
        let xstest = data.xstest().unwrap();
        assert_eq!(
            xstest.iter().map(|item| item.safe).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(xstest[2].id, "3", "numbered by row where the publisher gives no number");
    }

    #[test]
    fn answers_of_beavertails_become_its_harmful_requests() {
        let dir = tempfile::tempdir().unwrap();
        let config = ImportConfig {
            split: Some("30k_test".to_owned()),
            ..ImportConfig::new(Published::BeaverTails)
        };
        let imported = import(&fixtures().join("beavertails_30k"), &config, dir.path()).unwrap();
        // Four answers to three requests: one of them only answered safely.
        assert_eq!(imported.rows, BTreeMap::from([("eval.jsonl".to_owned(), 2)]));
        let items = HarmfulItem::read(&dir.path().join("beavertails/eval.jsonl")).unwrap();
        assert_eq!(items[0].category, "animal_abuse, violence");
    }

    #[test]
    fn the_manifest_names_sources_and_results() {
        let dir = tempfile::tempdir().unwrap();
        let imported = bring(Published::Alpaca, dir.path());
        assert_eq!((imported.blank, imported.commit.as_deref()), (1, None));
        let manifest = Manifest::read(&dir.path().join("alpaca")).unwrap();
        assert_eq!(manifest.config["import"]["set"], "alpaca");
        let source = "data/train-00000-of-00001.parquet";
        let expected = sst_artefact::sha256_file(&fixtures().join("alpaca").join(source)).unwrap();
        assert_eq!(manifest.inputs[source].sha256, expected);
        let written = sst_artefact::sha256_file(&dir.path().join("alpaca/eval.jsonl")).unwrap();
        assert_eq!(manifest.facts["sha256"]["eval.jsonl"], written.as_str());
    }

    #[test]
    fn the_same_import_is_reused_and_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = bring(Published::RepliQa, dir.path());
        assert_eq!(bring(Published::RepliQa, dir.path()), first);
        let other = ImportConfig {
            seed: 1,
            ..ImportConfig::new(Published::RepliQa)
        };
        let refused = import(&fixtures().join("repliqa"), &other, dir.path());
        assert!(matches!(refused, Err(Error::Occupied { .. })), "{refused:?}");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(bring(Published::RepliQa, elsewhere.path()), first, "the same bytes");
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["repliqa"], "nothing half-written");
    }

    #[test]
    fn counts_are_drawn_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let config = ImportConfig {
            train: Some(3),
            eval_share: 0.4,
            ..ImportConfig::new(Published::RepliQa)
        };
        let imported = import(&fixtures().join("repliqa"), &config, dir.path()).unwrap();
        assert_eq!(imported.rows["train.jsonl"], 3);
        assert_eq!(imported.rows["eval.jsonl"], 4);
        for (config, key) in [
            (
                ImportConfig {
                    eval_share: f64::NAN,
                    ..config.clone()
                },
                "eval_share",
            ),
            (
                ImportConfig {
                    eval: Some(0),
                    ..config.clone()
                },
                "eval",
            ),
        ] {
            let message = import(&fixtures(), &config, dir.path()).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
