//! Adapters whose entries follow from their names.

use ndarray::Array2;
use sst_adapter::{Adapter, LoraConfig, TargetModules};
use sst_model::LanguageModel;

/// An adapter on the linears that `config` names; entry i of a factor, row by row, is `entry("..q_proj.lora_A", i)`.
pub fn adapter(model: &LanguageModel, config: LoraConfig, entry: impl Fn(&str, usize) -> f32) -> Adapter {
    let TargetModules::Names(targets) = &config.target_modules else {
        panic!("targets are given by name");
    };
    let targets: Vec<String> = targets.iter().cloned().collect();
    let matrix = |name: String, rows: usize, cols: usize| {
        Array2::from_shape_fn((rows, cols), |(i, j)| entry(&name, i * cols + j))
    };
    let pairs = model.modules(&targets).into_iter().map(|path| {
        let (d_out, d_in) = model.linear_shape(&path).unwrap();
        let a = matrix(format!("{path}.lora_A"), config.r, d_in);
        let b = matrix(format!("{path}.lora_B"), d_out, config.r);
        (path, a, b)
    });
    let pairs: Vec<_> = pairs.collect();
    Adapter::from_pairs(config, pairs).unwrap()
}
