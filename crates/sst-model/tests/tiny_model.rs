//! Generation, scoring and training on the tiny random model: what must hold whatever the weights.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use sst_adapter::{Adapter, Dtype};
use sst_data::{Example, Prompt};
use sst_eval::{GenerateRequest, Generator, Sampling, ScoreRequest};
use sst_model::{
    BatchLimits, DeviceChoice, Error, LanguageModel, Precision, Side, TrainConfig, Trainer, floats, write_tiny_model,
};
use tempfile::TempDir;

fn tiny() -> (TempDir, LanguageModel) {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 1).unwrap();
    let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    (dir, model)
}

fn examples(n: usize) -> Vec<Example> {
    (0..n)
        .map(|i| Example {
            id: format!("e{i}"),
            prompt: Prompt::user(format!("Say number {i} {}", "please ".repeat(i % 4))),
            response: format!("number {i}"),
        })
        .collect()
}

fn requests(max_new_tokens: usize, adapter: Option<&str>) -> Vec<GenerateRequest> {
    ["a", "a longer prompt", "the longest prompt of them all, by far"]
        .into_iter()
        .map(|text| GenerateRequest {
            adapter: adapter.map(String::from),
            prompt: Prompt::Text(text.into()),
            max_new_tokens,
        })
        .collect()
}

fn train(model: &mut LanguageModel, config: TrainConfig) -> (Adapter, Vec<f64>) {
    let (adapter, report) = Trainer::new(model, &examples(12), config.check().unwrap())
        .unwrap()
        .run(&mut |_| ())
        .unwrap();
    (adapter, report.losses)
}

fn quick() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 4,
        r: 4,
        alpha: 8.0,
        learning_rate: 1e-2,
        ..TrainConfig::default()
    }
}

/// Greedy decoding with a cache, in a padded batch, against the argmax of a fresh forward pass for every token.
#[test]
fn generation_equals_step_by_step_argmax() {
    let (_dir, mut model) = tiny();
    let requests = requests(12, None);
    let answers = model.generate(&requests, &Sampling::Greedy, &mut |_| ()).unwrap();
    for (request, answer) in requests.iter().zip(&answers) {
        let mut ids = model.tokenizer().encode_prompt(&request.prompt).unwrap();
        let start = ids.len();
        while ids.len() < start + 12 {
            let logits = floats(&model.logits(&[&ids], Side::Right, &[]).unwrap().get(0).get(-1));
            let best = (0..logits.len())
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap() as u32;
            if model.tokenizer().eos_ids().contains(&best) {
                break;
            }
            ids.push(best);
        }
        assert_eq!(answer.text, model.tokenizer().decode(&ids[start..], true).unwrap());
        assert_eq!(answer.tokens, ids.len() - start);
    }
}

#[test]
fn sampled_answers_depend_on_seed_and_prompt_and_not_on_the_batch() {
    let (_dir, mut model) = tiny();
    let sampling = |seed| Sampling::Sample {
        temperature: 1.0,
        top_p: 0.9,
        seed,
    };
    let texts = |model: &mut LanguageModel, requests: &[GenerateRequest], seed| -> Vec<String> {
        let answers = model.generate(requests, &sampling(seed), &mut |_| ()).unwrap();
        answers.into_iter().map(|a| a.text).collect()
    };
    let all = requests(16, None);
    let together = texts(&mut model, &all, 5);
    assert_ne!(together, texts(&mut model, &all, 6));
    let alone: Vec<String> = all
        .iter()
        .map(|r| texts(&mut model, std::slice::from_ref(r), 5).remove(0))
        .collect();
    assert_eq!(together, alone);
}

/// As the nucleus shrinks to one token, sampling becomes greedy.
#[test]
fn a_tiny_nucleus_is_greedy() {
    let (_dir, mut model) = tiny();
    let greedy = model
        .generate(&requests(10, None), &Sampling::Greedy, &mut |_| ())
        .unwrap();
    let sampling = Sampling::Sample {
        temperature: 1.0,
        top_p: 1e-9,
        seed: 0,
    };
    assert_eq!(
        model.generate(&requests(10, None), &sampling, &mut |_| ()).unwrap(),
        greedy
    );
}

/// Log-likelihoods of texts and of single-token choices against log-softmax of the whole sequence.
#[test]
fn scores_equal_log_softmax() {
    let (_dir, mut model) = tiny();
    let context = "The answer is";
    let request = |continuations: &[&str]| ScoreRequest {
        adapter: None,
        prompt: Prompt::Text(context.into()),
        continuations: continuations.iter().map(|c| (*c).to_owned()).collect(),
    };
    // One request of single tokens (which share a row), one of longer texts.
    let requests = [request(&["A", "B", "C"]), request(&[" yes", " certainly not"])];
    let scores = model.score(&requests, &mut |_| ()).unwrap();
    for (request, scores) in requests.iter().zip(&scores) {
        for (continuation, score) in request.continuations.iter().zip(scores) {
            let (ids, next) = model.tokenizer().encode_continuation(context, continuation).unwrap();
            let whole = [ids.clone(), next.clone()].concat();
            let logits = model.logits(&[&whole], Side::Right, &[]).unwrap().get(0);
            let logp = logits.log_softmax(-1, tch::Kind::Double);
            let expected: f64 = (ids.len()..whole.len())
                .map(|t| logp.double_value(&[t as i64 - 1, i64::from(whole[t])]))
                .sum();
            assert!(
                (score.log_likelihood - expected).abs() < 1e-4,
                "{continuation}: {score:?}, {expected}"
            );
            assert_eq!(score.tokens, next.len());
        }
    }
}

#[test]
fn training_lowers_the_loss_and_generation_uses_the_adapter() {
    let (_dir, mut model) = tiny();
    let (adapter, losses) = train(&mut model, quick());
    assert!(losses.last().unwrap() < &(0.9 * losses[0]), "{losses:?}");
    let before = model
        .generate(&requests(8, None), &Sampling::Greedy, &mut |_| ())
        .unwrap();
    model.add_adapter("trained", &adapter).unwrap();
    let after = model
        .generate(&requests(8, Some("trained")), &Sampling::Greedy, &mut |_| ())
        .unwrap();
    assert_ne!(before, after);
    assert_eq!(
        model
            .generate(&requests(8, None), &Sampling::Greedy, &mut |_| ())
            .unwrap(),
        before
    );
}

/// Splitting a step into several passes changes the gradient only by rounding.
#[test]
fn accumulation_equals_one_large_batch() {
    let (_dir, mut model) = tiny();
    let (_, large) = train(
        &mut model,
        TrainConfig {
            batch_size: 4,
            ..quick()
        },
    );
    let (_, split) = train(
        &mut model,
        TrainConfig {
            batch_size: 2,
            gradient_accumulation: 2,
            ..quick()
        },
    );
    for (a, b) in large.iter().zip(&split) {
        assert!((a - b).abs() < 1e-3 * a, "{large:?} {split:?}");
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let (dir, mut model) = tiny();
    let config = TrainConfig {
        checkpoint_every: 2,
        ..quick()
    };
    let save = |adapter: &Adapter, name: &str| {
        adapter.save(&dir.path().join(name), Dtype::F32).unwrap();
        std::fs::read(dir.path().join(name).join("adapter_model.safetensors")).unwrap()
    };
    let (whole, _) = train(&mut model, config.clone());
    let whole = save(&whole, "whole");

    let path = dir.path().join("checkpoint.safetensors");
    let examples = examples(12);
    let run = |model: &mut LanguageModel, fingerprint: &str, stop_at: usize| {
        let trainer = Trainer::new(model, &examples, config.clone().check().unwrap()).unwrap();
        let run = std::panic::AssertUnwindSafe(|| {
            trainer
                .checkpoint(&path, fingerprint)
                .run(&mut |p| assert!(p.step < stop_at, "interrupted"))
        });
        std::panic::catch_unwind(run)
    };
    assert!(
        run(&mut model, "a", 8).is_err(),
        "the run is interrupted in its eighth step of 12"
    );
    assert!(path.exists());
    // A fresh process would have no adapter left over.
    model.remove_adapter("training");
    let error = run(&mut model, "b", usize::MAX).unwrap().unwrap_err().to_string();
    assert!(
        error.contains("checkpoint.safetensors") && error.contains("delete it"),
        "{error}"
    );
    let (resumed, report) = run(&mut model, "a", usize::MAX).unwrap().unwrap();
    assert_eq!(report.losses.len(), 12);
    assert_eq!(save(&resumed, "resumed"), whole);
}

#[test]
fn a_diverging_run_stops_and_says_what_to_do() {
    let (_dir, mut model) = tiny();
    let config = TrainConfig {
        learning_rate: 1e30,
        warmup_ratio: 0.0,
        max_grad_norm: 1e30,
        ..quick()
    };
    let trainer = Trainer::new(&mut model, &examples(12), config.check().unwrap()).unwrap();
    let error = trainer.run(&mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("lower the learning rate"), "{error}");
}

#[test]
fn unusable_requests_are_refused_by_name() {
    let (_dir, mut model) = tiny();
    let error = model
        .generate(&requests(4, Some("absent")), &Sampling::Greedy, &mut |_| ())
        .unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    let error = model
        .generate(&requests(100_000, None), &Sampling::Greedy, &mut |_| ())
        .unwrap_err();
    assert!(error.to_string().contains("4096"), "{error}");
    let sampling = Sampling::Sample {
        temperature: f64::NAN,
        top_p: 1.0,
        seed: 0,
    };
    assert!(
        model
            .generate(&requests(4, None), &sampling, &mut |_| ())
            .unwrap_err()
            .to_string()
            .contains("temperature")
    );
    assert!(model.set_limits(BatchLimits { rows: 0, tokens: 1 }).is_err());
    let config = TrainConfig {
        targets: vec!["w_proj".into()],
        ..quick()
    }
    .check()
    .unwrap();
    let error = Trainer::new(&mut model, &examples(2), config)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("w_proj"), "{error}");
    let config = TrainConfig {
        max_tokens: 3,
        ..quick()
    }
    .check()
    .unwrap();
    let error = Trainer::new(&mut model, &examples(2), config)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("2 are longer than 3 tokens"), "{error}");
}

#[test]
fn an_adapter_of_another_model_is_refused_naming_the_tensor_and_both_shapes() {
    let (_dir, mut model) = tiny();
    let config = || sst_adapter::LoraConfig::new(2, 4.0, ["q_proj"]);
    let path = || sst_adapter::ModulePath::new("model.layers.0.self_attn.q_proj");
    let zeros = |rows, cols| ndarray::Array2::<f32>::zeros((rows, cols));
    let wide = Adapter::from_pairs(config(), [(path(), zeros(2, 64), zeros(64, 2))]).unwrap();
    let error = model.add_adapter("wide", &wide).unwrap_err().to_string();
    assert!(
        error.contains("adapter wide: model.layers.0.self_attn.q_proj.lora_A") && error.contains("[2, 32]"),
        "{error}"
    );
    assert!(error.contains("[2, 64]"), "{error}");
    let deep = sst_adapter::ModulePath::new("model.layers.9.self_attn.q_proj");
    let deep = Adapter::from_pairs(config(), [(deep, zeros(2, 32), zeros(32, 2))]).unwrap();
    let error = model.add_adapter("deep", &deep).unwrap_err().to_string();
    assert!(error.contains("adapter deep") && error.contains("layers.9"), "{error}");
}

#[test]
fn nothing_goes_beyond_the_models_context() {
    let (dir, whole) = tiny();
    let examples = examples(12);
    let length = |example: &Example| whole.encode_response(example).unwrap().ids.len();
    let lengths: Vec<usize> = examples.iter().map(length).collect();
    let positions = lengths[0];
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = positions.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let mut model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    let config = TrainConfig { epochs: 1, ..quick() };
    let trainer = Trainer::new(&mut model, &examples, config.check().unwrap()).unwrap();
    let (_, report) = trainer.run(&mut |_| ()).unwrap();
    let fit = lengths.iter().filter(|n| **n <= positions).count();
    assert!(fit < lengths.len());
    assert_eq!((report.examples, report.too_long), (fit, lengths.len() - fit));

    // Every byte is a token.
    let request = |tokens: usize| ScoreRequest {
        adapter: None,
        prompt: Prompt::Text("a".repeat(positions)),
        continuations: vec!["b".repeat(tokens)],
    };
    model.score(&[request(1)], &mut |_| ()).unwrap();
    // A text loses its beginning; a chat, or one whose continuation alone is too long, is refused.
    let mut shorter = request(2);
    shorter.prompt = Prompt::Text("a".repeat(positions - 1));
    let scores = model.score(&[request(2), shorter], &mut |_| ()).unwrap();
    assert_eq!(scores[0], scores[1]);
    let error = model
        .score(&[request(1), request(2 * positions)], &mut |_| ())
        .unwrap_err();
    let (error, needed) = (error.to_string(), 3 * positions - 1);
    assert!(
        error.contains("score request 1") && error.contains(&format!("need {needed} positions")),
        "{error}"
    );
    assert!(error.contains(&format!("the model has {positions}")), "{error}");
}

#[test]
fn gradients_in_f16_are_refused() {
    let (dir, _) = tiny();
    let mut model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F16).unwrap();
    let trainer = Trainer::new(&mut model, &examples(2), quick().check().unwrap()).unwrap();
    let error = trainer.run(&mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("dtype = f16") && error.contains("bf16"), "{error}");
}
