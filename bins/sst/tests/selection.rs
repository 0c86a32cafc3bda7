//! A sweep that chooses on development items and judges once on test items; what its grid shares is computed once.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bench;

use bench::{Bench, files, json, read, read_json};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const RECIPE: &str = r#"
    variants = ["A5+A7"]
    adapters.A5 = { role = "utility", dataset = "repliqa", train = { epochs = 1, r = 2, learning_rate = 0.02 } }
    adapters.A7 = { role = "safety", dataset = "jailbreak", train = { epochs = 2, r = 2, learning_rate = 0.02 } }
    [fisher]
    samples = [4, 9]
    [[merge]]
    strategy = "v1"
    k = [3, 20]
    [[merge]]
    strategy = "v2"
    mode = "direct"
    [eval]
    benchmarks = ["jailbreak", "repliqa"]
    max_new_tokens = { jailbreak = 4, repliqa = 4 }
    [selection]
    dev = 0.5
"#;

/// The items that a system answered.
fn asked(run: &Path, system: &Value) -> BTreeSet<String> {
    let items = run.join(system["evaluation"].as_str().unwrap()).join("items.jsonl");
    let text = std::fs::read_to_string(items).unwrap();
    let id = |line: &str| json(line)["id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

#[test]
fn a_point_of_each_method_is_chosen_on_development_items_and_judged_once() {
    let bench = Bench::new(16);
    let write = |text: &str| std::fs::write(bench.path("grid.toml"), text).unwrap();
    let sweep = "sweep grid.toml --model model --data data --out run";
    write(RECIPE);
    // By hand as far as the test items, which have parts of their own.
    bench.succeed(&format!("{sweep} --stage evaluate"));
    let plan = bench.succeed(&format!("{sweep} --plan"));
    assert!(
        plan.contains("# base, A5, A7, chosen V1 A5+A7, chosen V2 A5+A7\n") && plan.contains("--stage test --part 1/1"),
        "{plan}"
    );
    assert!(!bench.path("run/selection.json").exists(), "a plan chooses nothing");
    bench.succeed(&format!("{sweep} --stage test --part 1/1"));
    let judged = files(&bench.path("run/evaluations"));
    let locked = read_json(&bench.path("run/selection.json"));
    let plan = bench.succeed(&format!("{sweep} --plan"));
    assert!(
        !plan.contains("--stage test") && plan.contains("--stage report"),
        "{plan}"
    );
    let table = bench.succeed(sweep);
    assert!(
        files(&bench.path("run/evaluations")) == judged,
        "the report asks nothing"
    );
    assert!(table.contains("Chosen on 50.0 % of the items"), "{table}");
    let run = bench.path("run");
    let results = read_json(&run.join("aggregated_results.json"));
    let systems = results["systems"].as_array().unwrap();
    assert_eq!(systems.len(), 3 + 2 * 3);
    let selection = read_json(&run.join("selection.json"));
    assert_eq!(results["selection"], selection);
    assert_eq!(locked, selection, "with test scores beside it a choice stands");
    let points = |i: usize| selection["methods"][i]["points"].as_array().unwrap().len();
    assert_eq!((points(0), points(1)), (4, 2), "k and the sample count are chosen");
    let tested = selection["test"].as_array().unwrap();
    let names: Vec<&str> = tested.iter().map(|system| system["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["base", "A5", "A7"]);
    let chosen = [0, 1].map(|i| selection["methods"][i]["chosen"].as_str().unwrap());
    assert_eq!(BTreeSet::from_iter(&names[3..]), BTreeSet::from_iter(&chosen));

    let (dev, test) = (asked(&run, &systems[0]), asked(&run, &tested[0]));
    assert!(dev.is_disjoint(&test));
    assert_eq!(dev.len() + test.len(), 16, "eight of either set");
    let folders = [&systems[0], &tested[0]].map(|s| format!("run/{}", s["evaluation"].as_str().unwrap()));
    let refusal = bench.error(&format!("compare {}", folders.join(" ")), 1);
    assert!(refusal.contains("dev:0.5") && refusal.contains("test:0.5"), "{refusal}");
    let evaluations = || std::fs::read_dir(run.join("evaluations")).unwrap().count();
    assert_eq!(evaluations(), 9 + 5, "only what was chosen is judged");

    let before = read(&run.join("selection.json"));
    assert_eq!(bench.succeed(sweep), table);
    bench.succeed(&format!("{sweep} --stage test --part 1/1"));
    assert_eq!(read(&run.join("selection.json")), before);

    // Whoever has seen the test scores does not choose anew without a word.
    write(&RECIPE.replace("k = [3, 20]", "k = [3, 10, 20]"));
    let table = bench.succeed(sweep);
    assert!(table.contains("seen with 2 choices, which stand"), "{table}");
    let kept = read_json(&run.join("selection.json"));
    assert_eq!(
        (&kept["methods"], &kept["test"]),
        (&selection["methods"], &selection["test"])
    );
    assert_eq!(kept["outdated"], true);
    assert_eq!(evaluations(), 9 + 5 + 2);
    let table = bench.succeed(&format!("{sweep} --choose-again"));
    assert!(table.contains("had been seen with 2 choices"), "{table}");
    let again = read_json(&run.join("selection.json"));
    assert_eq!(again["methods"][0]["points"].as_array().unwrap().len(), 6);
    assert_eq!(again["earlier"][0]["chosen"], serde_json::json!(chosen));
    assert_eq!(again["earlier"][0]["points"], 6);

    let page = bench.path("page");
    bench.succeed("report run --out page");
    let text = std::fs::read_to_string(page.join("report.md")).unwrap();
    assert!(
        text.contains("Chosen on development items") && text.contains("2 earlier choices"),
        "{text}"
    );
}

#[test]
fn what_a_grid_shares_is_computed_once_and_changes_no_byte() {
    let bench = Bench::new(16);
    let sweep = |name: &str, text: &str| {
        std::fs::write(bench.path(&format!("{name}.toml")), text).unwrap();
        bench.succeed(&format!("sweep {name}.toml --model model --data data --out {name}"));
        let results = read_json(&bench.path(name).join("aggregated_results.json"));
        results["systems"].as_array().unwrap().clone()
    };
    let all = sweep("all", RECIPE);
    let count = |kind: &str| std::fs::read_dir(bench.path("all").join(kind)).unwrap().count();
    assert_eq!(
        (count("fisher"), count("subspaces")),
        (2 * 2, 2),
        "one basis for both k"
    );

    for (samples, k) in [("4", "3"), ("9", "3"), ("9", "20")] {
        let name = format!("one-{samples}-{k}");
        let one = RECIPE.replace("[4, 9]", &format!("[{samples}]")).replace("[3, 20]", k);
        let systems = sweep(&name, &one);
        // A manifest names its inputs by where they are.
        let mut fishers = files(&bench.path(&name).join("fisher"));
        fishers.retain(|path, _| !path.ends_with("manifest.json"));
        let shared = files(&bench.path("all/fisher"));
        assert_eq!(fishers.len(), 2 * 2);
        for (path, bytes) in &fishers {
            assert!(shared.get(path) == Some(bytes), "{}", path.display());
        }
        for system in systems.iter().filter(|system| !system["strategy"].is_null()) {
            let same = all.iter().find(|other| other["name"] == system["name"]).unwrap();
            let weights = |run: &str, system: &Value| {
                let folder = bench.path(run).join(system["adapter"].as_str().unwrap());
                read(&folder.join("adapter_model.safetensors"))
            };
            assert!(weights(&name, system) == weights("all", same), "{}", system["name"]);
            assert_eq!(system["diagnostics"], same["diagnostics"]);
            assert_eq!(system["scores"], same["scores"]);
        }
    }
    // With one of two counts there, looking at what is left takes no pass for the other.
    let plan = bench.succeed("sweep all.toml --model model --data data --out one-9-3 --plan");
    assert!(plan.contains("--stage fisher"), "{plan}");
    assert_eq!(std::fs::read_dir(bench.path("one-9-3/fisher")).unwrap().count(), 2);
}

#[test]
fn several_seeds_are_the_runs_of_each_side_by_side() {
    let bench = Bench::new(16);
    let sweep = |name: &str, head: &str| {
        let recipe = RECIPE
            .replace("[4, 9]", "[4]")
            .replace("[eval]", "[eval]\n    seed = 0");
        std::fs::write(bench.path(&format!("{name}.toml")), format!("{head}\n{recipe}")).unwrap();
        bench.succeed(&format!("sweep {name}.toml --model model --data data --out {name}"))
    };
    let systems = |name: &str| {
        let results = read_json(&bench.path(name).join("aggregated_results.json"));
        results["systems"].as_array().unwrap().clone()
    };
    let table = sweep("both", "seeds = [0, 1]");
    assert!(
        table.contains("Over seeds") && table.contains("What each seed chose"),
        "{table}"
    );
    let markdown = std::fs::read_to_string(bench.path("both/comparison.md")).unwrap();
    for row in ["| A7 ", "| V1 k=20 alpha=1 aligned A5+A7 n=4 ", "| V1 A5+A7 "] {
        assert!(markdown.contains(row), "{row}: {markdown}");
    }
    let both = systems("both");
    assert_eq!(both.len(), 1 + 2 * (2 + 3));

    sweep("one", "seed = 1");
    let weights = |run: &str, system: &Value| {
        let folder = bench.path(run).join(system["adapter"].as_str().unwrap());
        read(&folder.join("adapter_model.safetensors"))
    };
    for system in systems("one").iter().filter(|system| !system["adapter"].is_null()) {
        let name = system["name"].as_str().unwrap();
        let seeded = name.replace("A5", "A5-seed1").replace("A7", "A7-seed1");
        let same = both.iter().find(|other| other["name"] == *seeded).unwrap();
        assert_eq!(same["seed"], 1);
        assert!(weights("one", system) == weights("both", same), "{name}");
        assert_eq!(
            (&system["scores"], &system["fisher"]),
            (&same["scores"], &same["fisher"]),
            "{name}"
        );
    }

    bench.succeed("report both --out page");
    let page = std::fs::read_to_string(bench.path("page/report.md")).unwrap();
    assert!(page.contains("## Over seeds"), "{page}");
}
