//! `sst report` from the command line.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn study() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama-3.1-8b-study.toml")
}

fn report(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sst"));
    command
        .current_dir(folder)
        .arg("report")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_study_is_reported_in_both_languages() {
    let dir = tempfile::tempdir().unwrap();
    let study = study();
    let study = study.to_str().unwrap();
    let output = report(dir.path(), &[study]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("llama-3.1-8b-study-report/report.html\n"), "{text}");
    for part in ["+0.6, MMLU -2.3, RepliQA -6.4", "equal A5 alone", "missing data"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let output = report(
        dir.path(),
        &[study, "--lang", "ja", "--out", "ja", "--goal", "mmlu=50", "--json"],
    );
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["html"], "ja/report.html");
    assert_eq!(printed["report"]["goals"]["mmlu"], 0.5);
    for file in [
        "report.html",
        "report.md",
        "report.json",
        "manifest.json",
        "charts/pareto-jailbreak-mmlu.svg",
    ] {
        assert!(dir.path().join("ja").join(file).exists(), "{file}");
    }
}

#[test]
fn faults_are_one_line_with_their_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let study = study();
    let study = study.to_str().unwrap();
    for (arguments, code, part) in [
        (vec!["nowhere.toml"], 1, "nowhere.toml"),
        (vec![study, "--goal", "xstest-unsafe=0.9"], 1, "xstest-unsafe"),
        (vec![study, "--goal", "squad=1"], 2, "squad"),
        (vec![study, "--lang", "fr"], 2, "fr"),
    ] {
        let output = report(dir.path(), &arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("error")).count(),
            1,
            "{text}"
        );
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}
