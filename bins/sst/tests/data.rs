//! `sst data` and `sst compare` end to end, with a stand-in for the Hub and models that answer by rule.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bench;

use bench::{Bench, json, read_json};
use serde_json::Value;
use sst_artefact::StandInHub;
use sst_data::{DataFolder, Sizes, SplitSizes, synthesise};
use sst_eval::{
    Benchmark, ContinuationScore, Finish, GenerateRequest, Generated, Generator, GeneratorError, Sampling,
    ScoreRequest, Suite, SuiteConfig,
};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/data")
        .join(name)
}

#[test]
fn a_set_is_fetched_imported_and_checked() {
    let bench = Bench::empty();
    let published = "data/repliqa_0-00000-of-00001.parquet";
    let file = std::fs::read(fixture("repliqa").join(published)).unwrap();
    let server = StandInHub::start(&[(published, file)], None);
    let fetch = |out: &str, offline: bool| {
        let revision = if offline { StandInHub::COMMIT } else { "main" };
        let arguments = format!("data fetch repliqa --repo owner/tiny --revision {revision} --out {out} --json");
        let output = bench
            .sst(&arguments)
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HUB_OFFLINE", if offline { "1" } else { "0" })
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let fetched = fetch("data", false);
    assert_eq!(fetched["imported"]["commit"], StandInHub::COMMIT);
    assert_eq!(fetched["imported"]["rows"]["train.jsonl"], 8);
    assert!(!server.requests().is_empty());
    assert_eq!(fetch("again", true)["imported"], fetched["imported"]);
    assert!(server.requests().is_empty(), "offline nothing is asked");

    let import = |set: &str| format!("data import {} --as {set} --out data", fixture(set).display());
    let imported = bench.succeed(&import("alpaca"));
    assert!(imported.contains("7 items to train on, 2 to evaluate on, 1 blank rows left out"));
    let imported = bench.succeed(&import("mmlu"));
    assert!(imported.contains("5 questions, 4 worked examples"));
    let report = bench.succeed("data check data");
    assert!(report.contains("Nothing in common: repliqa and"), "{report}");
    let report = json(&bench.succeed("data check data --json"));
    assert_eq!(
        (&report[0]["train_set"], &report[0]["leaks"]),
        (&"repliqa".into(), &Value::Array(vec![]))
    );

    let other = format!("{} --seed 1", import("alpaca"));
    bench.fail(&other, 1, &["data/alpaca holds another import"]);
    let offline = ["walledai/XSTest", "HF_HUB_OFFLINE"];
    bench.fail("data fetch xstest --out data", 1, &offline);
    bench.fail("data fetch squad", 2, &["unknown published data set `squad`"]);
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
    let bench = Bench::empty();
    let suite = evaluations(&bench.path(""));
    let table = bench.succeed("compare A B C --margin 0.1 --out out");
    for part in [
        "B vs A",
        "C vs A",
        "better",
        "not distinguishable at n = 80",
        "not worse by more than 10.0 points",
    ] {
        assert!(table.contains(part), "no `{part}` in {table}");
    }
    let stored = read_json(&bench.path("out/comparison.json"));
    let printed = json(&bench.succeed("compare A B C --margin 0.1 --json"));
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
    let markdown = std::fs::read_to_string(bench.path("out/comparison.md")).unwrap();
    assert!(
        markdown.contains("| jailbreak refusal_rate") && markdown.contains("## Secondary metrics"),
        "{markdown}"
    );

    // Another setting is refused by its name, and allowed where asked for.
    let other = Suite::load(
        &DataFolder::open(bench.path("data")).unwrap(),
        &SuiteConfig {
            mmlu_shots: 0,
            ..suite.config().clone()
        },
    );
    let other = other.unwrap();
    let evaluation = other.run(&mut Refuser(|_| true), Some("D"), &mut |_, _, _| {}).unwrap();
    evaluation.save(&bench.path("D"), other.inputs().unwrap()).unwrap();
    bench.fail("compare A D", 1, &["A and D cannot be compared: mmlu_shots is 5 and 0"]);
    let table = bench.succeed("compare A D --shared");
    assert!(
        table.contains("A and D: mmlu_shots is 5 and 0") && table.contains("D vs A"),
        "{table}"
    );

    bench.fail("compare A B --reference Z", 1, &["expected one of A, B"]);
    bench.fail("compare A --out out", 1, &["give two or more"]);
    bench.error("compare", 2);
}

#[test]
fn published_counts_are_compared_as_they_are() {
    let bench = Bench::empty();
    let compare = "compare --counts V1=388/500 --counts V2=391/500";
    let text = bench.succeed(compare);
    assert!(
        text.contains("not distinguishable at n = 500") && text.contains("may be one common rate"),
        "{text}"
    );
    bench.fail("compare --counts V1=388", 2, &["NAME=SUCCESSES/N"]);
    bench.fail("compare --counts V1=3/2 --counts V2=1/2", 1, &["of V1 are 3/2"]);
    // Counts tell no items apart, and have no benchmark.
    for flag in ["--margin 0.1", "--all-pairs", "--reference V1", "--goal-mmlu 52"] {
        let name = flag.split(' ').next().unwrap();
        bench.fail(&format!("{compare} {flag}"), 2, &[name, "cannot be used with"]);
    }
}
