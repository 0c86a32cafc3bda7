//! Answers and likelihoods do not depend on what else is in the batch: adapters, order, limits, shared prefixes.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod counted;

use counted::adapter;
use sst_adapter::LoraConfig;
use sst_data::Prompt;
use sst_eval::{Finish, GenerateRequest, Generated, Generator, Sampling, ScoreRequest};
use sst_model::{BatchLimits, DeviceChoice, LanguageModel, Precision, Side, floats, uniform, write_tiny_model};
use std::path::Path;
use tempfile::TempDir;

/// Rounding of f32 through two layers and a softmax over sums of some 20 log-probabilities.
const TOLERANCE: f64 = 1e-5;
const ADAPTERS: [Option<&str>; 4] = [None, Some("first"), Some("second"), Some("third")];

fn load(folder: &Path) -> LanguageModel {
    let mut model = LanguageModel::load(folder, DeviceChoice::Cpu, Precision::F32).unwrap();
    // Of different rank, scale and modules.
    for (name, r, targets) in [
        ("first", 2, &["q_proj", "v_proj"][..]),
        ("second", 3, &["k_proj", "o_proj", "gate_proj", "down_proj"]),
        ("third", 1, &["up_proj"]),
    ] {
        let config = LoraConfig::new(r, 2.0 * r as f64 + 1.0, targets.iter().copied());
        let adapter = adapter(&model, config, |factor, i| {
            uniform(0, &format!("{name}.{factor}"), i, -0.4, 0.4)
        });
        model.add_adapter(name, &adapter).unwrap();
    }
    model
}

fn tiny() -> (TempDir, LanguageModel) {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 1).unwrap();
    let model = load(dir.path());
    (dir, model)
}

/// The same random weights whose attention reaches `window` tokens back.
fn windowed(window: usize) -> (TempDir, LanguageModel) {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 1).unwrap();
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["model_type"] = "mistral".into();
    config["sliding_window"] = window.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let model = load(dir.path());
    (dir, model)
}

fn text(i: usize) -> Prompt {
    let document = "It is written in the first of the old books that ";
    Prompt::Text(match i % 4 {
        0 => format!("{document}cats have {i} lives. How many?"),
        1 => format!("{document}cats have nine lives, which {} knew", "nobody ".repeat(i % 7)),
        2 => format!("{document}dogs bark."),
        _ => format!("number {i}{}", " and so on".repeat(i % 3)),
    })
}

/// Prompts that share prefixes and some that do not, of all adapters in turn, with answers of 1 to 9 tokens.
fn questions() -> Vec<GenerateRequest> {
    (0..21)
        .map(|i| GenerateRequest {
            adapter: ADAPTERS[(i % 4) ^ (i / 4 % 4)].map(String::from),
            prompt: text(i),
            max_new_tokens: 1 + i * 5 % 9,
        })
        .collect()
}

fn choices() -> Vec<ScoreRequest> {
    (0..21)
        .map(|i| {
            let continuations: &[&str] = match i % 3 {
                0 => &["A", "B", "C"],
                1 => &[" yes", "n", " certainly not", " yes"],
                _ => &[" the whole of a longer answer, as in a book"],
            };
            ScoreRequest {
                adapter: ADAPTERS[i / 2 % 4].map(String::from),
                prompt: text(i),
                continuations: continuations.iter().map(|c| (*c).to_owned()).collect(),
            }
        })
        .collect()
}

fn answers(model: &mut LanguageModel, requests: &[GenerateRequest]) -> Vec<Generated> {
    let mut progress = Vec::new();
    let answers = model
        .generate(requests, &Sampling::Greedy, &mut |n| progress.push(n))
        .unwrap();
    assert_eq!(progress.last(), Some(&requests.len()));
    assert!(progress.is_sorted());
    answers
}

fn likelihoods(model: &mut LanguageModel, requests: &[ScoreRequest]) -> Vec<Vec<f64>> {
    let mut progress = Vec::new();
    let scores = model.score(requests, &mut |n| progress.push(n)).unwrap();
    assert_eq!(progress.last(), Some(&requests.len()));
    scores
        .iter()
        .map(|scores| scores.iter().map(|s| s.log_likelihood).collect())
        .collect()
}

fn assert_close(got: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert!(
                (a - b).abs() <= TOLERANCE * b.abs().max(1.0),
                "request {i}: {a} instead of {b}"
            );
        }
    }
}

/// Limits under which sequences wait, share passes with prefixes, and are longer than a pass may be.
const LIMITS: [BatchLimits; 4] = [
    BatchLimits { rows: 32, tokens: 4096 },
    BatchLimits { rows: 5, tokens: 90 },
    BatchLimits { rows: 2, tokens: 60 },
    BatchLimits { rows: 3, tokens: 1 },
];

#[test]
fn answers_are_those_of_every_request_alone() {
    let (_dir, mut model) = tiny();
    let requests = questions();
    let alone: Vec<Generated> = requests
        .iter()
        .map(|r| answers(&mut model, std::slice::from_ref(r)).remove(0))
        .collect();
    for (request, answer) in requests.iter().zip(&alone) {
        assert!(answer.tokens == request.max_new_tokens || answer.finish == Finish::Stop);
    }
    for limits in LIMITS {
        model.set_limits(limits).unwrap();
        assert_eq!(answers(&mut model, &requests), alone, "{limits:?}");
    }
    let backwards: Vec<GenerateRequest> = requests.iter().rev().cloned().collect();
    let mut turned = answers(&mut model, &backwards);
    turned.reverse();
    assert_eq!(turned, alone);
    // The adapters matter.
    let base: Vec<GenerateRequest> = requests
        .iter()
        .cloned()
        .map(|r| GenerateRequest { adapter: None, ..r })
        .collect();
    let base = answers(&mut model, &base);
    let changed = |name| {
        let of = requests.iter().zip(base.iter().zip(&alone));
        of.filter(|(r, (base, alone))| r.adapter.as_deref() == name && base != alone)
            .count()
    };
    assert_eq!(changed(None), 0);
    assert!(ADAPTERS[1..].iter().all(|name| changed(*name) > 0));
}

#[test]
fn likelihoods_are_those_of_every_request_alone() {
    let (_dir, mut model) = tiny();
    let requests = choices();
    let alone: Vec<Vec<f64>> = requests
        .iter()
        .map(|r| likelihoods(&mut model, std::slice::from_ref(r)).remove(0))
        .collect();
    for limits in LIMITS {
        model.set_limits(limits).unwrap();
        assert_close(&likelihoods(&mut model, &requests), &alone);
        let again = likelihoods(&mut model, &requests);
        assert_eq!(again, likelihoods(&mut model, &requests), "the same bits");
    }
}

/// Against the logits of the whole sequence under its adapter, with and without a window.
#[test]
fn likelihoods_are_those_of_whole_sequences() {
    for (_dir, mut model) in [tiny(), windowed(6)] {
        let requests = choices();
        let got = likelihoods(&mut model, &requests);
        let expected: Vec<Vec<f64>> = requests
            .iter()
            .map(|request| {
                let adapters: Vec<&str> = request.adapter.as_deref().into_iter().collect();
                let context = request.prompt.plain_text();
                let one = |continuation: &String| {
                    let tokens = model.tokenizer().encode_continuation(&context, continuation);
                    let (ids, next) = tokens.unwrap();
                    let whole = [ids.clone(), next].concat();
                    let logits = model.logits(&[&whole], Side::Right, &adapters).unwrap().get(0);
                    let log_p = logits.log_softmax(-1, tch::Kind::Double);
                    (ids.len()..whole.len())
                        .map(|t| log_p.double_value(&[t as i64 - 1, i64::from(whole[t])]))
                        .sum::<f64>()
                };
                request.continuations.iter().map(one).collect()
            })
            .collect();
        assert_close(&got, &expected);
    }
}

/// Against the argmax of a fresh pass for every token.
#[test]
fn answers_within_a_window_are_those_of_whole_sequences() {
    let (_dir, mut model) = windowed(6);
    let requests = questions();
    let got = answers(&mut model, &requests);
    for (request, answer) in requests.iter().zip(&got) {
        let adapters: Vec<&str> = request.adapter.as_deref().into_iter().collect();
        let mut ids = model.tokenizer().encode_prompt(&request.prompt).unwrap();
        let start = ids.len();
        while ids.len() < start + request.max_new_tokens {
            let logits = model.logits(&[&ids], Side::Right, &adapters).unwrap();
            let logits = floats(&logits.get(0).get(-1));
            let best = (0..logits.len())
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap() as u32;
            if model.tokenizer().eos_ids().contains(&best) {
                break;
            }
            ids.push(best);
        }
        assert_eq!(answer.text, model.tokenizer().decode(&ids[start..], true).unwrap());
    }
    // The window matters.
    let (_dir, mut whole) = tiny();
    assert_ne!(answers(&mut whole, &requests), got);
}

#[test]
fn nothing_asked_is_nothing_answered() {
    let (_dir, mut model) = tiny();
    assert_eq!(model.generate(&[], &Sampling::Greedy, &mut |_| ()).unwrap(), []);
    assert!(model.score(&[], &mut |_| ()).unwrap().is_empty());
    let mut requests = questions();
    requests[3].max_new_tokens = 0;
    let answers = answers(&mut model, &requests);
    assert_eq!((answers[3].tokens, answers[3].finish), (0, Finish::Length));
    assert_eq!(answers[3].text, "");
    let silent: Vec<GenerateRequest> = requests
        .into_iter()
        .map(|r| GenerateRequest { max_new_tokens: 0, ..r })
        .collect();
    let silent = model.generate(&silent, &Sampling::Greedy, &mut |_| ()).unwrap();
    assert!(silent.iter().all(|a| a.tokens == 0));
    let none = ScoreRequest {
        adapter: None,
        prompt: text(0),
        continuations: Vec::new(),
    };
    assert_eq!(model.score(&[none], &mut |_| ()).unwrap(), [vec![]]);
}
