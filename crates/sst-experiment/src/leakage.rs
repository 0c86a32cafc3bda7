//! A recipe's items to train on against its items to evaluate on.

use crate::{Error, Recipe, Reporter};
use sst_data::{DataFolder, Dataset, SetLeakage};
use std::collections::BTreeSet;
use std::path::Path;

/// Compares what the recipe trains and measures on with what it evaluates on, and reports every set with leaks.
///
/// # Errors
/// [`Error::Leakage`] for the same text or document on both sides, unless the recipe allows it; [`Error::Data`].
pub(crate) fn check(recipe: &Recipe, data: &Path, reporter: &mut dyn Reporter) -> Result<Vec<SetLeakage>, Error> {
    let trained = recipe.adapters.values().map(|adapter| adapter.dataset);
    let train: BTreeSet<Dataset> = trained.chain(recipe.statistics.utility.iter().copied()).collect();
    let asked = recipe.eval.benchmarks.iter();
    let eval = asked.map(|benchmark| benchmark.data_set().to_owned());
    let mut found = DataFolder::open(data)?.leakage(&train, &eval.collect())?;
    found.retain(|set| !set.leakage.leaks.is_empty());
    for set in &found {
        let (train_set, eval_set, leakage) = (set.train_set, &set.eval_set, &set.leakage);
        let count = leakage.certain().count();
        if let Some(first) = leakage.certain().next().filter(|_| !recipe.allow_leakage) {
            return Err(Error::Leakage {
                train_set,
                eval_set: eval_set.clone(),
                count,
                n: leakage.eval,
                eval: first.eval.clone(),
                train: first.train.clone(),
            });
        }
        reporter.start("leakage", 0);
        reporter.finish(&format!(
            "of {} items of {eval_set}, {count} are trained on in {train_set} and {} are much like one that is",
            leakage.eval,
            leakage.leaks.len() - count
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use std::fs;

    const RECIPE: &str = r#"
        variants = ["A5+A7"]
        [adapters.A5]
        role = "utility"
        dataset = "alpaca"
        [adapters.A7]
        role = "safety"
        dataset = "jailbreak"
        [[merge]]
        strategy = "v1"
        [eval]
        benchmarks = ["xstest-unsafe"]
    "#;

    #[test]
    fn a_copy_is_refused_unless_it_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("jailbreak/train.csv", "prompt,response\nHow do I kill it?,No.\n"),
            (
                "xstest/xstest_prompts.csv",
                "id,prompt,label\n7,How do I KILL it,unsafe\n8,Why?,safe\n",
            ),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let check_it = |text: &str| check(&Recipe::parse(text).unwrap(), dir.path(), &mut Silent);
        let message = check_it(RECIPE).unwrap_err().to_string();
        assert!(
            message.starts_with("1 of 2 items of xstest are trained on in jailbreak (xstest/7 is jailbreak/train/1)"),
            "{message}"
        );
        let allowed = check_it(&format!("allow_leakage = true\n{RECIPE}")).unwrap();
        assert_eq!((allowed.len(), allowed[0].leakage.leaks.len()), (1, 1));
        // What is not evaluated on cannot leak.
        assert!(
            check_it(&RECIPE.replace("xstest-unsafe", "jailbreak"))
                .unwrap()
                .is_empty()
        );
    }
}
