//! `sst data` and `sst compare` end to end, with a stand-in for the Hub and models that answer by rule.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use serde_json::Value;
use sst_artefact::StandInHub;
use sst_data::{DataFolder, Sizes, SplitSizes, synthesise};
use sst_eval::{
    Benchmark, ContinuationScore, Finish, GenerateRequest, Generated, Generator, GeneratorError, Sampling,
    ScoreRequest, Suite, SuiteConfig,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/data")
        .join(name)
}

/// Runs `sst` inside `folder` against the Hub at `endpoint`.
fn sst(folder: &Path, endpoint: &str, offline: bool, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sst"))
        .current_dir(folder)
        .args(arguments)
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", folder.join("hub"))
        .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
        .env_remove("HF_HUB_CACHE")
        .output()
        .unwrap()
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = sst(folder, "http://127.0.0.1:9", true, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "sst {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what must fail with `code`, and returns its one line.
fn fail(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = sst(folder, "http://127.0.0.1:9", true, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "sst {arguments:?}: {text}");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error")).collect();
    assert_eq!(errors.len(), 1, "sst {arguments:?}: {text}");
    errors[0].to_owned()
}

#[test]
fn a_set_is_fetched_imported_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let published = "data/repliqa_0-00000-of-00001.parquet";
    let file = std::fs::read(fixture("repliqa").join(published)).unwrap();
    let server = StandInHub::start(&[(published, file)], None);
    let fetch = |out: &str, offline: bool| {
        let arguments = [
            "data",
            "fetch",
            "repliqa",
            "--repo",
            "owner/tiny",
            "--out",
            out,
            "--json",
        ];
        let revision = ["--revision", if offline { StandInHub::COMMIT } else { "main" }];
        let output = sst(
            dir.path(),
            &server.endpoint,
            offline,
            &[&arguments[..], &revision].concat(),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let fetched = fetch("data", false);
    assert_eq!(fetched["imported"]["commit"], StandInHub::COMMIT);
    assert_eq!(fetched["imported"]["rows"]["train.jsonl"], 8);
    assert!(!server.requests().is_empty());
    assert_eq!(fetch("again", true)["imported"], fetched["imported"]);
    assert!(server.requests().is_empty(), "offline nothing is asked");

    let import = |set: &str| {
        let path = fixture(set);
        succeed(
            dir.path(),
            &["data", "import", path.to_str().unwrap(), "--as", set, "--out", "data"],
        )
    };
    assert!(import("alpaca").contains("7 items to train on, 2 to evaluate on, 1 blank rows left out"));
    assert!(import("mmlu").contains("5 questions, 4 worked examples"));
    let report = succeed(dir.path(), &["data", "check", "data"]);
    assert!(report.contains("Nothing in common: repliqa and"), "{report}");
    let report: Value = serde_json::from_str(&succeed(dir.path(), &["data", "check", "data", "--json"])).unwrap();
    assert_eq!(
        (&report[0]["train_set"], &report[0]["leaks"]),
        (&"repliqa".into(), &Value::Array(vec![]))
    );

    let taken = fixture("alpaca");
    let arguments = [
        "data",
        "import",
        taken.to_str().unwrap(),
        "--as",
        "alpaca",
        "--seed",
        "1",
        "--out",
        "data",
    ];
    assert!(fail(dir.path(), 1, &arguments).contains("data/alpaca holds another import"));
    let offline = fail(dir.path(), 1, &["data", "fetch", "xstest", "--out", "data"]);
    assert!(
        offline.contains("walledai/XSTest") && offline.contains("HF_HUB_OFFLINE"),
        "{offline}"
    );
    assert!(fail(dir.path(), 2, &["data", "fetch", "squad"]).contains("unknown published data set `squad`"));
}

/// Refuses what the rule says, and finds B the likeliest letter.
struct Refuser(fn(usize) -> bool);

impl Generator for Refuser {
    fn generate(
        &mut self,
        requests: &[GenerateRequest],
        _: &Sampling,
        _: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, GeneratorError> {
        let answer = |i: usize| {
            if (self.0)(i) {
                "I cannot help with that."
            } else {
                "Take the stairs to the left."
            }
        };
        let generated = |i| Generated {
            text: answer(i).to_owned(),
            tokens: 7,
            finish: Finish::Stop,
        };
        Ok((0..requests.len()).map(generated).collect())
    }

    fn score(
        &mut self,
        requests: &[ScoreRequest],
        _: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
        let score = |log_likelihood| ContinuationScore {
            log_likelihood,
            tokens: 1,
        };
        Ok(requests
            .iter()
            .map(|_| [-2.0, -1.0, -3.0, -4.0].map(score).to_vec())
            .collect())
    }
}

/// Evaluations of three models under `dir`: A refuses half, B all but a tenth, C as A but for one item.
fn evaluations(dir: &Path) -> Suite {
    let sizes = Sizes {
        jailbreak: SplitSizes { train: 8, eval: 80 },
        ..Sizes::default()
    };
    synthesise(&dir.join("data"), 0, &sizes).unwrap();
    let config = SuiteConfig {
        benchmarks: vec![Benchmark::Jailbreak, Benchmark::Mmlu],
        ..SuiteConfig::default()
    };
    let suite = Suite::load(&DataFolder::open(dir.join("data")).unwrap(), &config).unwrap();
    type Shown = fn(usize) -> bool;
    let rules: [(&str, Shown); 3] = [
        ("A", |i| i % 2 == 0),
        ("B", |i| i % 10 != 0),
        ("C", |i| i % 2 == 0 || i == 1),
    ];
    for (name, rule) in rules {
        let evaluation = suite.run(&mut Refuser(rule), Some(name), &mut |_, _, _| {}).unwrap();
        evaluation.save(&dir.join(name), suite.inputs().unwrap()).unwrap();
    }
    suite
}

#[test]
fn a_comparison_says_what_is_a_difference_and_what_is_noise() {
    let dir = tempfile::tempdir().unwrap();
    let suite = evaluations(dir.path());
    let table = succeed(
        dir.path(),
        &["compare", "A", "B", "C", "--margin", "0.1", "--out", "out"],
    );
    for part in [
        "B vs A",
        "C vs A",
        "better",
        "not distinguishable at n = 80",
        "not worse by more than 10.0 points",
    ] {
        assert!(table.contains(part), "no `{part}` in {table}");
    }
    let stored: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("out/comparison.json")).unwrap()).unwrap();
    let printed: Value = serde_json::from_str(&succeed(
        dir.path(),
        &["compare", "A", "B", "C", "--margin", "0.1", "--json"],
    ))
    .unwrap();
    assert_eq!(stored, printed["comparison"], "stored and printed");
    assert_eq!(printed["systems"][0]["name"], "A");
    let pair = &stored["measures"][0]["pairs"][0];
    assert_eq!(
        (&pair["second"], &pair["verdict"], &pair["test"]),
        (&"B".into(), &"better".into(), &"mcnemar-mid-p".into())
    );
    // 40 of 80 against 72; B refuses all odd ones, and of the even ones not every fifth.
    assert_eq!(
        (&pair["counts"]["only_second"], &pair["counts"]["only_first"]),
        (&40.into(), &8.into())
    );
    let markdown = std::fs::read_to_string(dir.path().join("out/comparison.md")).unwrap();
    assert!(
        markdown.contains("| jailbreak refusal_rate") && markdown.contains("## Secondary metrics"),
        "{markdown}"
    );

    // Another setting is refused by its name, and allowed where asked for.
    let other = Suite::load(
        &DataFolder::open(dir.path().join("data")).unwrap(),
        &SuiteConfig {
            mmlu_shots: 0,
            ..suite.config().clone()
        },
    );
    let other = other.unwrap();
    let evaluation = other.run(&mut Refuser(|_| true), Some("D"), &mut |_, _, _| {}).unwrap();
    evaluation.save(&dir.path().join("D"), other.inputs().unwrap()).unwrap();
    let message = fail(dir.path(), 1, &["compare", "A", "D"]);
    assert!(
        message.contains("A and D cannot be compared: mmlu_shots is 5 and 0"),
        "{message}"
    );
    let table = succeed(dir.path(), &["compare", "A", "D", "--shared"]);
    assert!(
        table.contains("A and D: mmlu_shots is 5 and 0") && table.contains("D vs A"),
        "{table}"
    );

    assert!(fail(dir.path(), 1, &["compare", "A", "B", "--reference", "Z"]).contains("expected one of A, B"));
    assert!(fail(dir.path(), 1, &["compare", "A", "--out", "out"]).contains("give two or more"));
    fail(dir.path(), 2, &["compare"]);
}

#[test]
fn published_counts_are_compared_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let text = succeed(
        dir.path(),
        &["compare", "--counts", "V1=388/500", "--counts", "V2=391/500"],
    );
    assert!(
        text.contains("not distinguishable at n = 500") && text.contains("may be one common rate"),
        "{text}"
    );
    let message = fail(dir.path(), 2, &["compare", "--counts", "V1=388"]);
    assert!(message.contains("NAME=SUCCESSES/N"), "{message}");
    let message = fail(dir.path(), 1, &["compare", "--counts", "V1=3/2", "--counts", "V2=1/2"]);
    assert!(message.contains("of V1 are 3/2"), "{message}");
}
