//! `sst eval`: cut off and gone on with, of several adapters, through a server.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bench;

use bench::{Bench, files, json, read_json};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use sst_eval::{Endpoint, EndpointConfig, EndpointScoring, Finish, GenerateRequest, Generator, Sampling, ScoreRequest};
use sst_model::{DeviceChoice, LanguageModel, Precision};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

impl Bench {
    /// The items of an evaluation.
    fn items(&self, folder: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(folder).join("items.jsonl")).unwrap();
        text.lines().map(json).collect()
    }
}

const EVAL: &str = "eval --model model --data data --shots 0 --max-new-tokens 12 --batch-rows 3 --chunk 5";

#[test]
fn killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes() {
    let bench = Bench::new(8);
    bench.succeed(&format!("{EVAL} --name base --out whole"));
    let expected = files(&bench.path("whole"));
    assert_eq!(expected.len(), 3, "{:?}", expected.keys());
    let journal = bench.path("cut/journal.jsonl");
    let size = || journal.metadata().map_or(0, |m| m.len());
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut kills, mut goal) = (0, 0);
    loop {
        goal += random.random_range(1..1200);
        let mut child = bench
            .sst(&format!("{EVAL} --name base --out cut"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if size() >= goal {
                // Anywhere between two writes, or within one.
                std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        match status {
            None => kills += 1,
            Some(status) => {
                assert!(status.success());
                break;
            }
        }
        assert!(kills < 100, "it makes no progress");
        goal = goal.max(size());
    }
    assert!(kills >= 3, "killed {kills} times");
    assert_eq!(files(&bench.path("cut")), expected);
    let all = std::fs::read_dir(bench.path("cut")).unwrap();
    assert_eq!(all.count(), 3, "nothing hidden is left either");
}

#[test]
fn the_answers_of_another_evaluation_are_not_mixed_in() {
    let bench = Bench::new(8);
    let folder = bench.path("out");
    std::fs::create_dir(&folder).unwrap();
    let header =
        r#"{"journal":1,"chunk":5,"of":{"order":["base"],"systems":{"base":{"config":{"suite":{"seed":7}}}}}}"#;
    std::fs::write(folder.join("journal.jsonl"), format!("{header}\n")).unwrap();
    let error = bench.error(&format!("{EVAL} --name base --out out"), 1);
    assert!(
        error.contains("journal.jsonl") && error.contains("there") && error.contains("delete the file"),
        "{error}"
    );
    assert!(folder.join("journal.jsonl").exists());
}

#[test]
fn adapters_in_one_run_score_as_each_alone() {
    let bench = Bench::new(8);
    for (name, dataset) in [("A5", "repliqa"), ("A7", "jailbreak")] {
        bench.succeed(&format!(
            "train --model model --data data --dataset {dataset} --epochs 4 --r 4 --alpha 8 --learning-rate 0.05 --out {name}"
        ));
    }
    let printed = bench.succeed(&format!(
        "{EVAL} --with-base --adapter A5 --adapter A7 --out all --json"
    ));
    let printed = json(&printed);
    let names: Vec<&str> = printed
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["base", "A5", "A7"]);
    assert_eq!(files(&bench.path("all")).len(), 3 * 3, "each has its folder");
    let mut compared = 0;
    for (name, adapter) in [("base", ""), ("A5", "--adapter A5"), ("A7", "--adapter A7")] {
        bench.succeed(&format!("{EVAL} {adapter} --out alone-{name}"));
        let (together, alone) = (
            bench.items(&format!("all/{name}")),
            bench.items(&format!("alone-{name}")),
        );
        assert_eq!(together.len(), alone.len());
        for (x, y) in together.iter().zip(&alone) {
            assert_eq!((&x["id"], &x["prompt"]), (&y["id"], &y["prompt"]));
            let likelihoods = |item: &Value| -> Vec<f64> {
                serde_json::from_value(item["log_likelihoods"].clone()).unwrap_or_default()
            };
            let (x, y) = (likelihoods(x), likelihoods(y));
            assert_eq!(x.len(), y.len(), "{name}");
            compared += x.len();
            for (a, b) in x.iter().zip(&y) {
                // f32 sums in another order, through two small layers.
                assert!((a - b).abs() < 1e-3, "{name}: {a} {b}");
            }
        }
    }
    assert!(compared > 0, "no item has likelihoods");
    let answers = |name: &str| -> Vec<String> {
        bench
            .items(&format!("all/{name}"))
            .iter()
            .map(|item| item["answer"].to_string())
            .collect()
    };
    assert_ne!(answers("base"), answers("A7"));
    assert_ne!(answers("A5"), answers("A7"));
    // A second run has nothing to do, and says the same.
    let again = bench.succeed(&format!(
        "{EVAL} --with-base --adapter A5 --adapter A7 --out all --json"
    ));
    assert_eq!(json(&again), printed);
    let error = bench.error(&format!("{EVAL} --adapter A5 --adapter alone-A5/../A5 --out twice"), 1);
    assert!(error.contains("two systems are named A5"), "{error}");
}

#[test]
fn a_classifier_judges() {
    let bench = Bench::new(8);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/model/encoder/roberta");
    bench.succeed(&format!(
        "{EVAL} --benchmarks jailbreak --judge classifier:{folder} --out judged"
    ));
    let read = |file: &str| read_json(&bench.path("judged").join(file));
    assert_eq!(read("scores.json")["judge"], format!("classifier:{folder}"));
    assert!(read("manifest.json")["inputs"]["judge"]["sha256"].is_string());
    let error = bench.error(
        &format!("{EVAL} --benchmarks jailbreak --judge classifier:{folder}?refuses=NO --out bad"),
        1,
    );
    assert!(error.contains("`NO`") && error.contains("NORMAL, REJECTION"), "{error}");
}

#[test]
fn a_temperature_leaves_the_protocol_its_top_p() {
    let bench = Bench::new(8);
    let eval = "eval --model model --data data --benchmarks jailbreak -n 1 --max-new-tokens 2";
    for (out, flags, temperature, top_p) in [
        ("study", "--protocol study-v1", 0.6, 0.9),
        ("hot", "--protocol study-v1 --temperature 0.7", 0.7, 0.9),
        ("wide", "--protocol study-v1 --temperature 0.7 --top-p 1", 0.7, 1.0),
        ("drawn", "--temperature 0.7", 0.7, 1.0),
    ] {
        bench.succeed(&format!("{eval} {flags} --out {out}"));
        let scores = read_json(&bench.path(out).join("scores.json"));
        let expected = serde_json::json!({ "sample": { "temperature": temperature, "top_p": top_p, "seed": 0 } });
        assert_eq!(scores["config"]["sampling"], expected, "{out}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let bench = Bench::new(8);
    let error = bench.error("eval --endpoint http://127.0.0.1:1/v1 --data data --out bad", 1);
    assert!(
        error.contains("http://127.0.0.1:1/v1/models") && error.contains("is the server running"),
        "{error}"
    );
    let error = bench.error(
        "eval --endpoint http://127.0.0.1:1/v1 --set concurrency=0 --data data --out bad",
        1,
    );
    assert!(error.contains("`concurrency` is 0"), "{error}");
    let error = bench.error(
        "eval --endpoint http://127.0.0.1:1/v1 --set speed=9 --data data --out bad",
        1,
    );
    assert!(error.contains("speed"), "{error}");
}

/// The server that `cargo xtask test` starts: llama.cpp's, with the GGUF file that the demo model was made from.
fn served(scoring: EndpointScoring) -> Endpoint {
    let url = std::env::var("SST_TEST_ENDPOINT").expect("`cargo xtask test` starts the server that this test asks");
    let config = EndpointConfig {
        url,
        scoring,
        concurrency: 2,
        ..EndpointConfig::default()
    };
    Endpoint::connect(&config.check().unwrap()).unwrap()
}

fn demo_model() -> LanguageModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.models/smollm2-135m-instruct");
    LanguageModel::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap()
}

#[test]
#[ignore = "needs the demo model and a server"]
fn a_served_model_answers_and_weighs_as_ours() {
    let (mut theirs, mut ours) = (served(EndpointScoring::NextToken), demo_model());
    let chat = |text: &str| sst_data::Prompt::user(text);
    let raw = |text: &str| sst_data::Prompt::Text(text.to_owned());
    let prompts = [
        chat("What is gravity?"),
        chat("Write one sentence about the sea."),
        chat("Name three colours."),
        raw("The capital of France is"),
        raw("Once upon a time, there was"),
        raw("Water is made of hydrogen and"),
    ];
    let requests: Vec<GenerateRequest> = prompts
        .iter()
        .map(|prompt| GenerateRequest {
            adapter: None,
            prompt: prompt.clone(),
            max_new_tokens: 16,
        })
        .collect();
    let answers =
        |generator: &mut dyn Generator| generator.generate(&requests, &Sampling::Greedy, &mut |_| {}).unwrap();
    let (theirs_said, ours_said) = (answers(&mut theirs), answers(&mut ours));
    let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let same = theirs_said
        .iter()
        .zip(&ours_said)
        .filter(|(a, b)| first(&a.text) == first(&b.text))
        .count();
    // The server computes with 8-bit activations on 4-bit weights, we in f32 on the same weights.
    assert!(same + 1 >= prompts.len(), "{theirs_said:?}\n{ours_said:?}");
    for answer in &theirs_said {
        assert_eq!((answer.tokens, answer.finish), (16, Finish::Length), "{answer:?}");
    }
    let requests: Vec<ScoreRequest> = [
        ("The capital of France is", [" Paris", " London"]),
        ("Water is made of hydrogen and", [" oxygen", " carbon"]),
        ("One, two, three,", [" four", " five"]),
    ]
    .map(|(prompt, continuations)| ScoreRequest {
        adapter: None,
        prompt: raw(prompt),
        continuations: continuations.map(str::to_owned).to_vec(),
    })
    .to_vec();
    let theirs_found = theirs.score(&requests, &mut |_| {}).unwrap();
    let ours_found = ours.score(&requests, &mut |_| {}).unwrap();
    for (a, b) in theirs_found.iter().flatten().zip(ours_found.iter().flatten()) {
        assert_eq!((a.tokens, b.tokens), (1, 1));
        // Log-probabilities of the two differ by 0.2 on average over the letters of MMLU; a shifted token's by far more.
        assert!((a.log_likelihood - b.log_likelihood).abs() < 0.75, "{a:?} {b:?}");
    }
    for scores in &theirs_found {
        assert!(scores[0].log_likelihood > scores[1].log_likelihood, "{scores:?}");
    }
    let error = served(EndpointScoring::Echo)
        .score(&requests, &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("echoes no log-probabilities") && error.contains("next-token"),
        "{error}"
    );
}
