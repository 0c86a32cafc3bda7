//! SST against brute force in vec(dW): see `fixtures/merge/make_sst.py`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use serde::Deserialize;
use sst_merge::{
    Adapter, Array2, Estimator, FisherMeta, KroneckerFactors, KroneckerFisher, LoraConfig, MergeInputs, ModulePath,
    Statistics, StrategyConfig,
};
use sst_subspace::FISHER_FILE;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Matrix = Vec<Vec<f64>>;

#[derive(Deserialize)]
struct Golden {
    ranks: BTreeMap<String, usize>,
    alphas: BTreeMap<String, f64>,
    modules: Vec<Module>,
    adapters: BTreeMap<String, BTreeMap<ModulePath, Factors>>,
    statistics: BTreeMap<String, Covariances>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Module {
    name: ModulePath,
    input: ModulePath,
}

#[derive(Deserialize)]
struct Factors {
    a: Matrix,
    b: Matrix,
}

#[derive(Deserialize)]
struct Covariances {
    inputs: BTreeMap<ModulePath, Matrix>,
    outputs: BTreeMap<ModulePath, Matrix>,
}

#[derive(Deserialize)]
struct Case {
    title: String,
    config: serde_json::Value,
    modules: BTreeMap<ModulePath, Expected>,
    retained_energy: f64,
    random_energy: f64,
}

#[derive(Deserialize)]
struct Expected {
    merged: Matrix,
    retained_energy: f64,
    random_energy: f64,
    sigma_sum: f64,
    utility: f64,
    utility_of_target: f64,
    safety: f64,
    safety_of_utility: f64,
}

fn matrix(rows: &Matrix) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j])
}

impl Golden {
    fn adapter(&self, who: &str) -> Adapter {
        let targets: Vec<&str> = self.modules.iter().map(|module| module.name.as_str()).collect();
        let single = |rows: &Matrix| matrix(rows).mapv(|x| x as f32);
        let pairs = self.adapters[who]
            .iter()
            .map(|(path, f)| (path.clone(), single(&f.a), single(&f.b)));
        Adapter::from_pairs(LoraConfig::new(self.ranks[who], self.alphas[who], targets), pairs).unwrap()
    }

    fn fisher(&self, who: &str, folder: PathBuf) -> KroneckerFisher {
        let covariances = &self.statistics[who];
        let factors = self.modules.iter().map(|module| {
            let input = matrix(&covariances.inputs[&module.input]);
            let output = matrix(&covariances.outputs[&module.name]);
            (module.name.clone(), KroneckerFactors { input, output })
        });
        let meta = FisherMeta::new(Estimator::Kron, "response", 0);
        KroneckerFisher::save(&folder, &meta, &factors.collect(), BTreeMap::new()).unwrap();
        self.share_inputs(&folder.join(FISHER_FILE));
        let fisher = KroneckerFisher::load(&folder).unwrap();
        for module in &self.modules {
            assert_eq!(fisher.input(&module.name).unwrap(), &module.input);
        }
        fisher
    }

    /// Stores each input covariance once, as an estimate does.
    fn share_inputs(&self, path: &Path) {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let inputs: BTreeMap<_, _> = self
            .modules
            .iter()
            .map(|module| (&module.name, &module.input))
            .collect();
        let metadata = [("inputs".to_owned(), serde_json::to_string(&inputs).unwrap())].into();
        let repeated = |name: &str| {
            inputs
                .iter()
                .any(|(module, owner)| module != owner && name == format!("{module}.A"))
        };
        let kept = tensors.iter().filter(|(name, _)| !repeated(name));
        std::fs::write(path, safetensors::serialize(kept, Some(metadata)).unwrap()).unwrap();
    }
}

fn close(got: f64, want: f64, tolerance: f64, what: &str) {
    let size = want.abs();
    assert!((got - want).abs() <= tolerance * size, "{what}: {got:e} {want:e}");
}

#[test]
fn merges_and_reports_match_brute_force() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge/sst.json");
    let golden: Golden = sst_artefact::read_json(path.as_ref(), "golden file").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let utilities = ["utility_1", "utility_2"].map(|who| golden.adapter(who));
    let safety = golden.adapter("safety");
    let fishers = ["utility_1", "utility_2", "safety"].map(|who| golden.fisher(who, dir.path().join(who)));
    let statistics = Statistics {
        utility: vec![&fishers[0], &fishers[1]],
        safety: &fishers[2],
    };
    let inputs = MergeInputs::new(&utilities, &safety).with_statistics(&statistics);
    assert!(golden.cases.len() >= 10);
    // b = s B and the merged factors are each rounded to f32 once.
    let single = 8.0 * f64::from(f32::EPSILON);
    for case in golden.cases {
        let mut config = case.config;
        config["strategy"] = "sst".into();
        let strategy = serde_json::from_value::<StrategyConfig>(config)
            .unwrap()
            .check()
            .unwrap();
        let merged = strategy.merge(&inputs).unwrap();
        let report = merged.diagnostics.sst.unwrap();
        let title = &case.title;
        assert_eq!(case.modules.len(), merged.adapter.modules.len());
        for (path, want) in &case.modules {
            let (got, matrix) = (merged.adapter.modules[path].delta(), matrix(&want.merged));
            let size = matrix.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            assert_eq!(got.dim(), matrix.dim());
            for (got, want) in got.iter().zip(&matrix) {
                let gap = (f64::from(*got) - want).abs();
                assert!(gap <= 4.0 * single * size, "{title} {path}: {got} {want}");
            }
            let (module, name) = (&report.modules[path], format!("{title} {path}"));
            let (sigma, tradeoff) = (module.sigma.as_ref().unwrap(), module.tradeoff.unwrap());
            close(module.retained_energy.unwrap(), want.retained_energy, single, &name);
            close(module.random_energy.unwrap(), want.random_energy, 1e-9, &name);
            close(sigma.sum, want.sigma_sum, 1e-9, &name);
            close(tradeoff.utility, want.utility, single, &name);
            close(tradeoff.utility_of_target, want.utility_of_target, single, &name);
            close(tradeoff.safety, want.safety, single, &name);
            close(tradeoff.safety_of_utility, want.safety_of_utility, single, &name);
        }
        close(report.retained_energy.unwrap(), case.retained_energy, single, title);
        close(report.random_energy.unwrap(), case.random_energy, single, title);
        assert_eq!(merged.diagnostics.retained_energy, report.retained_energy);
    }
}
