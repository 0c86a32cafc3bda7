//! What failed in a run folder, one file each, so that every process knows and nothing is tried twice.

use crate::{Error, LazyModel, Recipe, Run};
use serde::{Deserialize, Serialize};
use sst_artefact::Input;
use sst_data::{DataFolder, Dataset, Split};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A merge of the grid that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCell {
    /// What it would be called in the table.
    pub name: String,
    /// Why.
    pub error: String,
}

/// The failures of one recipe on one model and one folder of data.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    folder: PathBuf,
    of: String,
}

impl Failures {
    pub(crate) fn of(base: &mut LazyModel, recipe: &Recipe, run: &Run) -> Result<Self, Error> {
        let mut inputs = vec![base.input()?];
        inputs.extend(trained_on(recipe, &run.data)?);
        Ok(Self::new(&run.out, recipe, &inputs))
    }

    fn new(run: &Path, recipe: &Recipe, inputs: &[Input]) -> Self {
        let hashes: Vec<&String> = inputs.iter().map(|input| &input.sha256).collect();
        Self {
            folder: run.join("failures"),
            of: serde_json::json!([recipe, hashes]).to_string(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        let key = sst_artefact::sha256_bytes(format!("{name}\n{}", self.of).as_bytes());
        self.folder.join(format!("{}-{}.json", file_name(name), &key[..12]))
    }

    /// The failure of that name, if there is one.
    pub(crate) fn get(&self, name: &str) -> Result<Option<FailedCell>, Error> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(sst_artefact::read_json(&path, "record of a failure")?))
    }

    /// Keeps why something failed.
    pub(crate) fn keep(&self, name: &str, error: &Error) -> Result<FailedCell, Error> {
        let failed = FailedCell {
            name: name.to_owned(),
            error: error.to_string(),
        };
        tracing::warn!(failed.name, failed.error, "failed");
        sst_artefact::write_json(&self.path(name), &failed)?;
        Ok(failed)
    }

    /// Forgets those of these names, and the folder when it is empty.
    pub(crate) fn forget<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
        for name in names {
            let path = self.path(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(sst_artefact::Error::io("remove", path)(e).into());
                }
                _ => {}
            }
        }
        // It may hold another recipe's.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }
}

/// The files that a recipe trains and measures on, as far as they are there.
fn trained_on(recipe: &Recipe, data: &Path) -> Result<Vec<Input>, Error> {
    let data = DataFolder::open(data)?;
    let trained = recipe.adapters.values().map(|adapter| adapter.dataset);
    let sets: BTreeSet<Dataset> = trained.chain(recipe.statistics.utility.iter().copied()).collect();
    let paths = sets.into_iter().filter_map(|set| data.path(set, Split::Train).ok());
    paths.map(|path| Ok(Input::hash(&path)?)).collect()
}

/// Characters of a name in a path: file systems take 255, some of which others add.
const LONGEST: usize = 180;

/// A system's name as part of a path; of a longer one the beginning and a hash.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+.=-".contains(c);
    let mut path: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if path.len() > LONGEST {
        path.truncate(LONGEST);
        path = format!("{path}-{}", &sst_artefact::sha256_bytes(name.as_bytes())[..12]);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_paths_of_their_own() {
        assert_eq!(file_name("V1 k=3 A5+A7"), "V1_k=3_A5+A7");
        let [one, other] = ["a", "b"].map(|end| file_name(&format!("SST gammas={}{end}", "[0.1]".repeat(99))));
        assert!(one != other && one.starts_with("SST_gammas=_0.1__0.1_"));
        assert_eq!(one.len(), 193);
    }

    const RECIPE: &str = "variants = []\nmerge = []\n[adapters]\n";

    #[test]
    fn a_failure_is_kept_for_its_recipe_and_inputs_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let on = |seed: u64, model: &str| {
            let model = Input {
                path: "model".into(),
                sha256: model.to_owned(),
            };
            let recipe = Recipe::parse(&format!("seed = {seed}\n{RECIPE}")).unwrap();
            Failures::new(dir.path(), &recipe, &[model])
        };
        let of = |seed: u64| on(seed, "aa");
        let name = "V1 k=3 A5+A7 n=8".to_owned();
        assert_eq!(of(1).get(&name).unwrap(), None);
        let kept = of(1).keep(&name, &Error::Compare("too few".into())).unwrap();
        assert_eq!(
            (kept.error.as_str(), of(1).get(&name).unwrap()),
            ("too few", Some(kept.clone()))
        );
        assert_eq!(of(2).get(&name).unwrap(), None);
        assert_eq!(on(1, "bb").get(&name).unwrap(), None, "another model");
        of(1).forget([&name, &"absent".to_owned()]).unwrap();
        assert_eq!(of(1).get(&name).unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
