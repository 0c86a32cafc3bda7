//! What leaks between the sets of a data folder.

use crate::{
    DATASETS, DataFolder, Dataset, Error, Example, Leak, LeakKind, Leakage, Prompt, RepliQaItem, Split, leakage,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What leaks between one set to train on and one to evaluate on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetLeakage {
    /// The set to train on.
    pub train_set: Dataset,
    /// The set to evaluate on: a data set's name, `mmlu` or `xstest`.
    pub eval_set: String,
    /// What leaks.
    #[serde(flatten)]
    pub leakage: Leakage,
}

impl DataFolder {
    /// Compares sets to train on with sets to evaluate on, every one with every other. Training, Fisher statistics and
    /// merging read the same items.
    ///
    /// `train` names data sets; `eval` data sets, `mmlu` or `xstest`. Those that the folder lacks are passed over. Questions about documents leak by
    /// the document's id too.
    ///
    /// # Errors
    /// The faults of the files.
    pub fn leakage(&self, train: &BTreeSet<Dataset>, eval: &BTreeSet<String>) -> Result<Vec<SetLeakage>, Error> {
        let mut asked = BTreeMap::new();
        for name in eval {
            if let Some(examples) = self.asked(name)? {
                asked.insert(name, examples);
            }
        }
        let mut found = Vec::new();
        for &set in train {
            let Some(learnt) = self.present(set, Split::Train)? else {
                continue;
            };
            for (&name, examples) in &asked {
                let mut leakage = leakage(&learnt, examples);
                if set == Dataset::RepliQa && name == set.name() {
                    self.shared_documents(&mut leakage)?;
                }
                found.push(SetLeakage {
                    train_set: set,
                    eval_set: name.clone(),
                    leakage,
                });
            }
        }
        Ok(found)
    }

    /// [`DataFolder::leakage`] of everything that the folder holds.
    ///
    /// # Errors
    /// The faults of the files.
    pub fn leakage_of_all(&self) -> Result<Vec<SetLeakage>, Error> {
        let names = DATASETS.iter().map(|set| set.name()).chain(["mmlu", "xstest"]);
        self.leakage(&BTreeSet::from(DATASETS), &names.map(str::to_owned).collect())
    }

    fn present(&self, set: Dataset, split: Split) -> Result<Option<Vec<Example>>, Error> {
        match self.path(set, split) {
            Ok(path) => set.read(&path).map(Some),
            Err(Error::Missing { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The items of a set to evaluate on, if the folder has it.
    fn asked(&self, name: &str) -> Result<Option<Vec<Example>>, Error> {
        let bare = |id: String, text: String| Example {
            id,
            prompt: Prompt::user(text),
            response: String::new(),
        };
        match name {
            "mmlu" if self.mmlu_path().is_ok() => {
                let mut items = Vec::new();
                for (subject, questions) in self.mmlu()?.subjects {
                    items.extend(questions.test.iter().enumerate().map(|(i, item)| {
                        let text = format!("{} {}", item.question, item.choices.join(" "));
                        bare(format!("mmlu/{subject}/{}", i + 1), text)
                    }));
                }
                Ok(Some(items))
            }
            "xstest" if self.xstest_path().is_ok() => {
                let items = self.xstest()?.into_iter();
                Ok(Some(
                    items
                        .map(|item| bare(format!("xstest/{}", item.id), item.prompt))
                        .collect(),
                ))
            }
            "mmlu" | "xstest" => Ok(None),
            _ => self.present(name.parse()?, Split::Eval),
        }
    }

    /// Adds the questions whose document is trained on, where its text did not tell beyond doubt.
    fn shared_documents(&self, leakage: &mut Leakage) -> Result<(), Error> {
        let items = |split| RepliQaItem::read(&self.path(Dataset::RepliQa, split)?);
        let mut documents: BTreeMap<String, String> = BTreeMap::new(); // of the items to train on
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for (i, item) in items(Split::Train)?.into_iter().enumerate() {
            let train = format!("repliqa/train/{}", i + 1);
            documents.insert(train.clone(), item.document_id.clone());
            owners.entry(item.document_id).or_insert(train);
        }
        let by_text = std::mem::take(&mut leakage.leaks).into_iter();
        let mut by_text: BTreeMap<String, Leak> = by_text.map(|leak| (leak.eval.clone(), leak)).collect();
        for (i, item) in items(Split::Eval)?.into_iter().enumerate() {
            let eval = format!("repliqa/eval/{}", i + 1);
            let leak = match (by_text.remove(&eval), owners.get(&item.document_id)) {
                (Some(leak), Some(_)) if leak.kind == LeakKind::Exact => Some(leak),
                (Some(leak), Some(_)) if documents.get(&leak.train) == Some(&item.document_id) => Some(Leak {
                    kind: LeakKind::Document,
                    ..leak
                }),
                // The most alike text may be of another document.
                (_, Some(train)) => Some(Leak {
                    eval,
                    train: train.clone(),
                    kind: LeakKind::Document,
                    share: 0.0,
                }),
                (leak, None) => leak,
            };
            leakage.leaks.extend(leak);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sizes, synthesise};

    #[test]
    fn synthetic_data_repeat_nothing_word_for_word() {
        let dir = tempfile::tempdir().unwrap();
        for seed in 0..3 {
            let folder = dir.path().join(seed.to_string());
            synthesise(&folder, seed, &Sizes::default()).unwrap();
            let found = DataFolder::open(&folder).unwrap().leakage_of_all().unwrap();
            assert_eq!(found.len(), 3 * 5, "three sets to train on, five to evaluate on");
            for set in found {
                // Invented texts are put together from few parts: some are much alike.
                assert!(set.leakage.leaks.len() * 10 <= set.leakage.eval, "{set:?}");
                assert_eq!(set.leakage.certain().count(), 0, "{set:?}");
            }
        }
    }

    #[test]
    fn a_document_leaks_by_its_id_and_a_question_by_its_text() {
        let dir = tempfile::tempdir().unwrap();
        for set in ["repliqa", "jailbreak", "xstest"] {
            std::fs::create_dir(dir.path().join(set)).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let header = "document_id,document_extracted,question,answer\n";
        let story = "The mill by the river opened in the spring of 1911 and closed again after the great flood of that year had \
                     carried off both of its wheels.";
        write(
            "repliqa/train.csv",
            &format!("{header}d1,One part of it.,What?,This.\nd3,{story},When did it open?,In 1911.\n"),
        );
        // The first and the last are told by their documents' ids alone, the third by its text too.
        write(
            "repliqa/eval.csv",
            &format!(
                "{header}d1,The other part.,Who?,She.\nd2,Else.,Who?,He.\nd3,{story},What opened?,The mill.\nd3,The rest.,Why?,So.\n"
            ),
        );
        write("jailbreak/train.csv", "prompt,response\nHow do I kill it?,No.\n");
        write(
            "xstest/xstest_prompts.csv",
            "id,prompt,label\n7,How do I KILL it,safe\n8,Why?,unsafe\n",
        );
        let data = DataFolder::open(dir.path()).unwrap();
        let leaks: Vec<Leak> = data
            .leakage_of_all()
            .unwrap()
            .into_iter()
            .flat_map(|s| s.leakage.leaks)
            .collect();
        let told: Vec<(&str, &str, LeakKind)> = leaks
            .iter()
            .map(|l| (l.eval.as_str(), l.train.as_str(), l.kind))
            .collect();
        let expected = [
            ("repliqa/eval/1", "repliqa/train/1", LeakKind::Document),
            ("repliqa/eval/3", "repliqa/train/2", LeakKind::Document),
            ("repliqa/eval/4", "repliqa/train/2", LeakKind::Document),
            ("xstest/7", "jailbreak/train/1", LeakKind::Exact),
        ];
        assert_eq!(told, expected);
        assert!(
            leaks[0].share == 0.0 && leaks[1].share > 0.5 && leaks[2].share == 0.0,
            "{leaks:?}"
        );
        let none = data
            .leakage(
                &BTreeSet::from([Dataset::Jailbreak]),
                &BTreeSet::from(["repliqa".to_owned()]),
            )
            .unwrap();
        assert!(none[0].leakage.leaks.is_empty());
    }
}
