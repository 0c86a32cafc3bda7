//! `sst sweep`: killed, run twice at once, as printed commands, on Slurm; the bytes are always those of one quiet run.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bench;

use bench::{Bench, Files, files, json, read_json};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// A subspace, diagonals and a plain merge; one merge that fails.
const RECIPE: &str = r#"
    seed = 1
    variants = ["A5+A7"]
    adapters.A5 = { role = "utility", dataset = "repliqa", train = { epochs = 1, r = 2 } }
    adapters.A7 = { role = "safety", dataset = "jailbreak", train = { epochs = 1, r = 2 } }
    [fisher]
    samples = [8]
    [[merge]]
    strategy = "v1"
    k = [3, 99999999]
    [[merge]]
    strategy = "v2"
    weight = [0.7, 1.0]
    [[merge]]
    strategy = "fisher"
    [[merge]]
    strategy = "ties"
    [eval]
    n = { jailbreak = 3, mmlu = 3, repliqa = 3, alpaca = 3 }
    max_new_tokens = { jailbreak = 4, repliqa = 4, alpaca = 4 }
    mmlu_shots = 0
"#;
const SWEEP: &str = "sweep grid.toml --model model --data data --out run --fisher-shards 2";

fn bench() -> Bench {
    let bench = Bench::new(16);
    std::fs::write(bench.path("grid.toml"), RECIPE).unwrap();
    bench
}

/// What a quiet run leaves.
fn expected() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let bench = bench();
        let error = bench.error(SWEEP, 1);
        assert!(error.contains("1 merges failed"), "{error}");
        files(&bench.path("run"))
    })
}

fn assert_expected(bench: &Bench) {
    let (found, expected) = (files(&bench.path("run")), expected());
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected));
    for (name, content) in expected {
        assert!(found[name] == *content, "{} differs", name.display());
    }
}

/// Manifests of whole results, with the time they were written.
fn sealed(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    for kind in ["adapters", "fisher", "subspaces", "merges", "evaluations"] {
        let Ok(entries) = std::fs::read_dir(folder.join(kind)) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path().join("manifest.json")) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if serde_json::from_str::<Value>(&text).is_ok_and(|manifest| manifest["facts"]["request"].is_object()) {
                let time = std::fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path, time);
            }
        }
    }
    found
}

fn spawn(bench: &Bench, arguments: &str) -> Child {
    let mut command = bench.sst(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn killed_at_any_moment_it_goes_on_and_nothing_is_computed_twice() {
    let bench = bench();
    let run = bench.path("run");
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (mut kills, mut goal) = (0, 0);
    let mut before: BTreeMap<PathBuf, SystemTime> = BTreeMap::new();
    let code = loop {
        let mut child = spawn(&bench, SWEEP);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if sealed(&run).len() >= goal {
                // Within the step that follows, or the one after it.
                std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let now = sealed(&run);
        for (path, time) in &before {
            assert_eq!(now.get(path), Some(time), "{} was computed twice", path.display());
        }
        if let Some(status) = status {
            break status.code();
        }
        kills += 1;
        goal = now.len() + random.random_range(1..4);
        before = now;
    };
    assert!(kills >= 4, "killed {kills} times");
    assert_eq!(code, Some(1), "one merge fails");
    assert_expected(&bench);
}

#[test]
fn two_processes_in_one_folder_end_with_the_same_bytes() {
    let bench = bench();
    let children = [spawn(&bench, SWEEP), spawn(&bench, SWEEP)];
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
    assert_expected(&bench);
}

#[test]
fn the_commands_of_a_plan_do_what_the_sweep_does() {
    let bench = bench();
    let plan = |options: &str| bench.succeed(&format!("{SWEEP} --plan {options}"));
    let whole = plan("");
    let parts = json(&plan("--json"));
    assert!(!bench.path("run").exists(), "a plan computes nothing");
    let stages = parts["stages"].as_array().unwrap();
    let counts: Vec<_> = stages
        .iter()
        .map(|s| (s["stage"].as_str().unwrap(), s["parts"].as_array().unwrap().len()))
        .collect();
    let expected = [
        ("train", 2),
        ("fisher", 4),
        ("reduce", 2),
        ("merge", 5),
        ("evaluate", 2),
        ("report", 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(parts["stages"][1]["after"], "train");

    // The first stages by hand, then what the plan says is left.
    bench.succeed(&format!("{SWEEP} --stage train"));
    bench.succeed(&format!("{SWEEP} --stage fisher --part 3/4"));
    let rest = plan("");
    assert!(
        !rest.contains("--stage train") && !rest.contains("--part 3/4") && rest.contains("--part 4/4"),
        "{rest}"
    );
    let commands = |text: &str| text.lines().filter(|line| line.contains(" --stage ")).count();
    assert_eq!((commands(&whole), commands(&rest)), (16, 13));
    let status = Command::new("sh")
        .args(["-ec", &rest])
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "a merge that fails fails no part");
    assert_expected(&bench);
    assert_eq!(plan(""), "# Everything is done.\n");

    bench.fail_plan("--stage fisher --part 3/5", 1, "fisher has 4 parts, not 5");
    bench.fail_plan("--stage fsher", 2, "train, fisher, reduce");
    bench.fail_plan("--part 3/5", 2, "--stage");
    bench.fail_plan("--executor slurm --slurm array=3", 2, "the plan");
    bench.fail_plan("--executor local --retries 1", 1, "--retries is for");
    bench.fail_plan("--executor local --slurm time=1:00", 1, "--slurm is for");
}

#[test]
fn what_failed_is_tried_again_only_when_asked() {
    let bench = bench();
    std::fs::write(
        bench.path("grid.toml"),
        RECIPE.replace("samples = [8]", "samples = [1]"),
    )
    .unwrap();
    let sweep = SWEEP.replace(" --fisher-shards 2", "");
    let error = bench.error(&sweep, 1);
    // The variance of one gradient is none: everything with a subspace or diagonals fails, and the rest is there.
    assert!(error.contains("5 merges failed"), "{error}");
    let failures = |bench: &Bench| -> BTreeMap<PathBuf, SystemTime> {
        let entries = std::fs::read_dir(bench.path("run/failures")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap()))
            .collect()
    };
    let before = failures(&bench);
    assert_eq!(before.len(), 2 + 5, "two estimates, five merges");
    bench.error(&sweep, 1);
    assert_eq!(failures(&bench), before);
    bench.error(&format!("{sweep} --retry-failed"), 1);
    let after = failures(&bench);
    assert!(after.iter().all(|(path, time)| *time > before[path]));
    let results = read_json(&bench.path("run/aggregated_results.json"));
    assert_eq!(results["systems"].as_array().unwrap().len(), 4);
}

impl Bench {
    fn fail_plan(&self, options: &str, code: i32, part: &str) {
        let error = self.error(&format!("{SWEEP} {options}"), code);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn without_slurm_the_plan_is_named() {
    let bench = bench();
    let output = bench
        .sst(&format!("{SWEEP} --executor slurm"))
        .env("PATH", "")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("--plan"), "{error}");
}

/// Prints of one of Slurm's own commands.
fn slurm(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a running task of a stage: its number and its node.
fn running(stage: &str) -> (String, String) {
    let name = format!("--name=sst-{stage}");
    for _ in 0..600 {
        let arguments = ["--noheader", "--array", "--states=RUNNING", &name, "--format=%i %N"];
        if let Some((task, node)) = slurm("squeue", &arguments)
            .lines()
            .next()
            .and_then(|line| line.split_once(' '))
        {
            return (task.to_owned(), node.trim().to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no part of {stage} runs")
}

/// Kills a process that runs a part of a stage, as one that takes all memory is killed.
fn kill_part(bench: &Bench, stage: &str) {
    running(stage);
    let folder = bench.path("").canonicalize().unwrap();
    let wanted = format!("--stage\0{stage}\0");
    for _ in 0..600 {
        for entry in std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
            let is_in = |folder: &Path| std::fs::read_link(entry.join("cwd")).is_ok_and(|cwd| cwd == folder);
            let line = std::fs::read_to_string(entry.join("cmdline")).unwrap_or_default();
            if line.contains(&wanted) && is_in(&folder) {
                let process = entry.file_name().unwrap();
                assert!(
                    Command::new("kill")
                        .arg("-KILL")
                        .arg(process)
                        .status()
                        .unwrap()
                        .success()
                );
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no process runs a part of {stage}")
}

#[test]
#[ignore = "needs a Slurm of two nodes, named by SLURM_CONF"]
fn on_slurm_lost_nodes_and_killed_jobs_change_nothing() {
    assert!(
        std::env::var_os("SLURM_CONF").is_some(),
        "SLURM_CONF must name the configuration of a Slurm for tests"
    );
    let bench = bench();
    let sweep = format!("{SWEEP} --executor slurm");
    let mut first = spawn(&bench, &sweep);

    // A node is lost, and then the one who watches.
    let (_, node) = running("train");
    let node = format!("nodename={node}");
    slurm("scontrol", &["update", &node, "state=down", "reason=test"]);
    // It may have come back by itself.
    let _ = Command::new("scontrol")
        .args(["update", &node, "state=resume"])
        .output();
    running("train");
    first.kill().unwrap();
    first.wait().unwrap();

    // The next takes up what lives, and a job is killed.
    let second = bench
        .sst(&sweep)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    kill_part(&bench, "fisher");
    let output = second.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.ends_with("1 merges failed; mend what they name and run again with --retry-failed\n"),
        "{error}"
    );
    assert_expected(&bench);
    let again = bench.sst(&sweep).output().unwrap();
    assert_eq!(again.stdout, output.stdout, "the table is printed again");

    // An error is no loss: it is said, and what waits for it goes.
    let weights = bench.path("model/model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let error = bench.error(&sweep, 1);
    // Both parts fail, on a node each; whichever ends first is named.
    let named = ["1/2 (A5)", "2/2 (A7)"].map(|part| error.contains(&format!("train part {part} failed: ")));
    assert!(named.contains(&true) && error.contains("model.safetensors"), "{error}");
    assert_eq!(slurm("squeue", &["--noheader", "--states=PENDING"]), "");
}
