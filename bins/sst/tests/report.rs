//! `sst report` from the command line.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bench;

use bench::{Bench, json};

const STUDY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/llama-3.1-8b-study.toml");

#[test]
fn the_study_is_reported_in_both_languages() {
    let bench = Bench::empty();
    let text = bench.succeed(&format!("report {STUDY}"));
    assert!(text.starts_with("llama-3.1-8b-study-report/report.html\n"), "{text}");
    for part in ["+0.6, MMLU -2.3, RepliQA -6.4", "equal A5 alone", "missing data"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let printed = bench.succeed(&format!("report {STUDY} --lang ja --out ja --goal mmlu=50 --json"));
    let printed = json(&printed);
    assert_eq!(printed["html"], "ja/report.html");
    assert_eq!(printed["report"]["goals"]["mmlu"], 0.5);
    for file in [
        "report.html",
        "report.md",
        "report.json",
        "manifest.json",
        "charts/pareto-jailbreak-mmlu.svg",
    ] {
        assert!(bench.path("ja").join(file).exists(), "{file}");
    }
}

#[test]
fn faults_are_one_line_with_their_exit_code() {
    let bench = Bench::empty();
    for (arguments, code, part) in [
        ("nowhere.toml", 1, "nowhere.toml"),
        (&format!("{STUDY} --goal xstest-unsafe=0.9"), 1, "xstest-unsafe"),
        (&format!("{STUDY} --goal squad=1"), 2, "squad"),
        (&format!("{STUDY} --lang fr"), 2, "fr"),
    ] {
        bench.fail(&format!("report {arguments}"), code, &[part]);
    }
}
