//! What SST reports, and that it is what the merge did.

use super::trial::Trial;
use sst_merge::{
    Adapter, Dtype, Manifest, MergeRecord, MergeStrategy, Sides, SstConfig, SstReport, StrategyConfig, Weighting,
    write_merged,
};
use std::collections::BTreeMap;

#[test]
fn hard_reports_its_directions() {
    let trial = Trial::usual();
    let hard = |k| {
        trial
            .run(SstConfig {
                weighting: Weighting::Hard { k },
                ..SstConfig::default()
            })
            .diagnostics
    };
    let d = hard(7);
    let [first, last] = d.eigenvalues.unwrap();
    let values = trial.basis(7, Sides::Input).eigenvalues();
    assert_eq!((d.k, first, last), (Some(7), values[0], values[6]));
    let report = d.sst.unwrap();
    assert!((report.effective_directions.unwrap() - 7.0).abs() <= 1e-12 && report.curve.is_empty());
    // All directions of the inputs let everything pass, by chance as well.
    let all = hard(19);
    assert!((all.retained_energy.unwrap() - 1.0).abs() <= 1e-9);
    assert!((all.sst.unwrap().random_energy.unwrap() - 1.0).abs() <= 1e-9);
}

#[test]
fn the_curve_predicts_the_merges_at_other_gammas() {
    let trial = Trial::usual();
    for sides in [Sides::Input, Sides::Both] {
        let config = SstConfig {
            sides,
            ..SstConfig::default()
        };
        let report = trial.run(config.clone()).diagnostics.sst.unwrap();
        assert_eq!(report.curve.len(), 7);
        for point in &report.curve {
            let other = SstConfig {
                gamma: point.multiple * config.gamma,
                ..config.clone()
            };
            let tradeoff = trial.run(other).diagnostics.sst.unwrap().tradeoff.unwrap();
            for (x, y) in [
                (point.tradeoff.utility, tradeoff.utility),
                (point.tradeoff.safety, tradeoff.safety),
                (point.tradeoff.utility_of_target, tradeoff.utility_of_target),
                (point.tradeoff.safety_of_utility, tradeoff.safety_of_utility),
            ] {
                assert!((x - y).abs() <= 1e-9 * y, "{x:e} {y:e}");
            }
        }
        for pair in report.curve.windows(2) {
            let [one, two] = [pair[0].tradeoff, pair[1].tradeoff];
            assert!(one.utility < two.utility && one.safety > two.safety);
        }
    }
    let blind = SstConfig {
        spectrum: Some(false),
        ..SstConfig::default()
    };
    let (blind, seeing) = (trial.run(blind), trial.run(SstConfig::default()));
    assert_eq!(blind.adapter, seeing.adapter);
    let report = blind.diagnostics.sst.unwrap();
    assert!(report.curve.is_empty() && report.effective_directions.is_none() && report.random_energy.is_none());
    assert_eq!(report.tradeoff, seeing.diagnostics.sst.unwrap().tradeoff);
}

#[test]
fn the_folder_says_what_was_reported() {
    let trial = Trial::usual();
    let strategy = SstConfig::default().check().unwrap();
    let merged = trial.run(SstConfig::default());
    let record = MergeRecord {
        recipe: strategy.config(),
        inputs: BTreeMap::new(),
        command: String::new(),
        dtype: Dtype::F32,
    };
    let dir = tempfile::tempdir().unwrap();
    write_merged(dir.path(), &merged, &record).unwrap();
    let manifest = Manifest::read(dir.path()).unwrap();
    let report: SstReport = serde_json::from_value(manifest.facts["diagnostics"]["sst"].clone()).unwrap();
    assert_eq!(Some(&report), merged.diagnostics.sst.as_ref());
    let config: StrategyConfig = serde_json::from_value(manifest.config).unwrap();
    assert_eq!(config, StrategyConfig::Sst(SstConfig::default()));
    let readme = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
    let tradeoff = report.tradeoff.unwrap();
    let left = format!("{:.2} %", 100.0 * tradeoff.safety / tradeoff.safety_of_utility);
    for words in [
        left.as_str(),
        "effective number of directions",
        "utility loss, predicted",
    ] {
        assert!(readme.contains(words), "{words} is not in\n{readme}");
    }
    assert_eq!(Adapter::load(dir.path()).unwrap().modules, merged.adapter.modules);
}
