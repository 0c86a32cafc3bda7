//! The packaged demo model against Hugging Face transformers and PEFT in float32; see fixtures/model/README.md.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod counted;

use counted::adapter;
use serde::Deserialize;
use sst_adapter::LoraConfig;
use sst_data::Prompt;
use sst_eval::{GenerateRequest, Generator, Sampling};
use sst_model::{DeviceChoice, LanguageModel, Precision, Side, floats, uniform};
use std::path::{Path, PathBuf};

/// The bound that the project promises.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    fixed_ids: Vec<usize>,
    prompts: Vec<GoldenPrompt>,
    base: Vec<Scores>,
    batches: Vec<Batch>,
    greedy: Vec<Greedy>,
    lora: Vec<Lora>,
}

#[derive(Deserialize)]
struct GoldenPrompt {
    prompt: Prompt,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Scores {
    logsumexp: Vec<f32>,
    next_logit: Vec<f32>,
    last: Last,
}

#[derive(Deserialize)]
struct Last {
    fixed: Vec<f32>,
    max: f32,
    argmax: usize,
}

#[derive(Deserialize)]
struct Batch {
    side: String,
    prompts: Vec<usize>,
    rows: Vec<Scores>,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: usize,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Lora {
    r: usize,
    lora_alpha: f64,
    use_rslora: bool,
    range: [f64; 2],
    rows: Vec<Scores>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> Golden {
    let text = std::fs::read_to_string(root().join("fixtures/model/packaged.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn model() -> LanguageModel {
    let folder = root().join(".models/smollm2-135m-instruct");
    LanguageModel::load(&folder, DeviceChoice::Cpu, Precision::F32).expect("run `cargo xtask setup` first")
}

fn close(got: f32, expected: f32, what: &str) {
    assert!(
        (got - expected).abs() < TOLERANCE,
        "{what}: {got} instead of {expected}"
    );
}

/// Compares one row of logits [seq, vocab], real positions only.
fn compare(logits: &tch::Tensor, ids: &[u32], expected: &Scores, fixed: &[usize], what: &str) {
    let sums = floats(&logits.logsumexp([-1i64].as_slice(), false));
    for (t, (a, b)) in sums.iter().zip(&expected.logsumexp).enumerate() {
        close(*a, *b, &format!("{what}: logsumexp at {t}"));
    }
    assert_eq!(sums.len(), expected.logsumexp.len(), "{what}");
    for (t, b) in expected.next_logit.iter().enumerate() {
        let a = logits.double_value(&[t as i64, i64::from(ids[t + 1])]) as f32;
        close(a, *b, &format!("{what}: next logit at {t}"));
    }
    let last = floats(&logits.get(-1));
    for (id, b) in fixed.iter().zip(&expected.last.fixed) {
        close(last[*id], *b, &format!("{what}: logit of {id}"));
    }
    close(
        last[expected.last.argmax],
        expected.last.max,
        &format!("{what}: largest logit"),
    );
    assert!(last.iter().all(|l| *l <= expected.last.max + TOLERANCE), "{what}");
}

#[test]
#[ignore = "needs the demo model"]
fn prompts_have_the_golden_tokens() {
    let model = model();
    for prompt in golden().prompts {
        assert_eq!(
            model.tokenizer().encode_prompt(&prompt.prompt).unwrap(),
            prompt.ids,
            "{:?}",
            prompt.prompt
        );
    }
}

#[test]
#[ignore = "needs the demo model"]
fn logits_equal_transformers() {
    let (golden, model) = (golden(), model());
    assert!(golden.prompts.len() >= 5);
    for (i, (prompt, expected)) in golden.prompts.iter().zip(&golden.base).enumerate() {
        let logits = model.logits(&[&prompt.ids], Side::Right, &[]).unwrap();
        compare(
            &logits.get(0),
            &prompt.ids,
            expected,
            &golden.fixed_ids,
            &format!("prompt {i}"),
        );
    }
}

#[test]
#[ignore = "needs the demo model"]
fn padded_batches_equal_transformers() {
    let (golden, model) = (golden(), model());
    for batch in &golden.batches {
        let side = if batch.side == "left" { Side::Left } else { Side::Right };
        let rows: Vec<&[u32]> = batch
            .prompts
            .iter()
            .map(|&i| golden.prompts[i].ids.as_slice())
            .collect();
        let longest = rows.iter().map(|r| r.len()).max().unwrap();
        let logits = model.logits(&rows, side, &[]).unwrap();
        for (i, (ids, expected)) in rows.iter().zip(&batch.rows).enumerate() {
            let from = if side == Side::Left { longest - ids.len() } else { 0 };
            let real = logits.get(i as i64).narrow(0, from as i64, ids.len() as i64);
            compare(
                &real,
                ids,
                expected,
                &golden.fixed_ids,
                &format!("{} padding, row {i}", batch.side),
            );
        }
    }
}

#[test]
#[ignore = "needs the demo model"]
fn adapters_equal_peft() {
    let (golden, mut model) = (golden(), model());
    let targets = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    assert!(golden.lora.iter().any(|l| l.use_rslora) && golden.lora.iter().any(|l| !l.use_rslora));
    for lora in &golden.lora {
        let mut config = LoraConfig::new(lora.r, lora.lora_alpha, targets);
        config.use_rslora = lora.use_rslora;
        let [low, high] = lora.range;
        let adapter = adapter(&model, config, |factor, i| {
            uniform(0, &format!("base_model.model.{factor}.weight"), i, low, high)
        });
        model.add_adapter("golden", &adapter).unwrap();
        for (i, (prompt, expected)) in golden.prompts.iter().zip(&lora.rows).enumerate() {
            let logits = model.logits(&[&prompt.ids], Side::Right, &["golden"]).unwrap();
            let what = format!("rslora {}, prompt {i}", lora.use_rslora);
            compare(&logits.get(0), &prompt.ids, expected, &golden.fixed_ids, &what);
        }
    }
}

#[test]
#[ignore = "needs the demo model"]
fn greedy_answers_equal_transformers_token_for_token() {
    let (golden, mut model) = (golden(), model());
    assert!(golden.greedy.len() >= 3);
    // All in one batch of prompts of different lengths: padding and the cache must change nothing.
    let requests: Vec<GenerateRequest> = golden
        .greedy
        .iter()
        .map(|g| GenerateRequest {
            adapter: None,
            prompt: golden.prompts[g.prompt].prompt.clone(),
            max_new_tokens: 40,
        })
        .collect();
    let answers = model.generate(&requests, &Sampling::Greedy, &mut |_| ()).unwrap();
    for (answer, expected) in answers.iter().zip(&golden.greedy) {
        let text = model.tokenizer().decode(&expected.ids, true).unwrap();
        assert_eq!(answer.text, text);
        let ended = expected
            .ids
            .last()
            .is_some_and(|id| model.tokenizer().eos_ids().contains(id));
        assert_eq!(answer.tokens, expected.ids.len() - usize::from(ended));
    }
}
