//! Shards, interruptions and shared passes give what a single run gives.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod golden;

use golden::Counted;
use safetensors::SafeTensors;
use sst_fim::{Error, Estimate, FisherConfig, FisherProgress, Samples, Source, estimate, shard};
use sst_model::{BatchLimits, Encoded, LanguageModel};
use sst_subspace::{Estimator, FisherShard, SampleFisher, Shard, TokenWeighting, reduce};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ALL: [Estimator; 4] = [
    Estimator::DiagVariance,
    Estimator::Diag,
    Estimator::Kron,
    Estimator::Samples,
];

/// Eleven samples of 5 to 16 tokens: five batches.
fn setup() -> (tempfile::TempDir, LanguageModel, Vec<Encoded>) {
    let (dir, mut model) = golden::model("llama3_rope_untied");
    let counted = |prefix: &str| Counted {
        prefix: prefix.to_owned(),
        r: 2,
        lora_alpha: 6.0,
        range: [-0.2, 0.2],
    };
    for name in ["u", "s"] {
        let adapter = golden::adapter(&model, &counted(name));
        model.add_adapter(name, &adapter).unwrap();
    }
    model.set_limits(BatchLimits { rows: 3, tokens: 400 }).unwrap();
    let row = |i: usize| Encoded {
        id: format!("e{i}"),
        ids: (0..5 + i as u32).map(|t| (t * 7 + i as u32 * 3) % 40).collect(),
        scored_from: 2 + i % 3,
    };
    (dir, model, (0..11).map(row).collect())
}

fn estimates(folder: &Path) -> Vec<Estimate> {
    let of = |estimator: Estimator| Estimate {
        config: FisherConfig {
            estimator,
            weighting: TokenWeighting::GradientNorm,
            ..FisherConfig::default()
        },
        out: folder.join(estimator.name()),
    };
    ALL.into_iter().map(of).collect()
}

/// The tensors of every file of an artefact.
fn content(folder: &Path) -> Vec<(String, Vec<f64>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    let mut tensors = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let mut names = parsed.names();
        names.sort();
        for name in names {
            let view = parsed.tensor(name).unwrap();
            let values = match view.dtype() {
                safetensors::Dtype::F32 => {
                    let words = view.data().as_chunks::<4>().0.iter();
                    words.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
                }
                safetensors::Dtype::F64 => view
                    .data()
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| f64::from_le_bytes(*b))
                    .collect(),
                other => panic!("{other:?}"),
            };
            tensors.push((format!("{}/{name}", file.file_name().unwrap().display()), values));
        }
    }
    tensors
}

#[test]
fn any_number_of_shards_reduces_to_the_single_run() {
    let (_dir, model, rows) = setup();
    let out = tempfile::tempdir().unwrap();
    let source = Source::new(Samples::Encoded(&rows), &["u", "s"]);
    let whole = estimates(&out.path().join("whole"));
    estimate(&model, &source, &whole, &mut |_| ()).unwrap();
    for n in [1, 2, 3, 7] {
        let root = out.path().join(format!("{n}"));
        for place in Shard::all(n) {
            let part = estimates(&root.join(place.index().to_string()));
            shard(&model, &source, &part, place, &mut |_| ()).unwrap();
        }
        for e in &whole {
            let name = e.config.estimator.name();
            let shards: Vec<PathBuf> = (1..=n).map(|i| root.join(format!("{i}/{name}"))).collect();
            let reduced = root.join(name);
            let meta = reduce(&shards, &reduced).unwrap();
            assert_eq!((meta.samples, meta.stack.len()), (11, 2));
            let (got, expected) = (content(&reduced), content(&e.out));
            assert_eq!(got.len(), expected.len());
            for ((name, got), (same, expected)) in got.iter().zip(&expected) {
                assert_eq!((name, got.len()), (same, expected.len()));
                for (a, b) in got.iter().zip(expected) {
                    assert!(
                        (a - b).abs() <= 1e-6 * b.abs(),
                        "{n} shards, {name}: {a} instead of {b}"
                    );
                }
            }
        }
    }
}

/// Every file of a folder.
fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let read = |file: &PathBuf| (file.file_name().unwrap().into(), std::fs::read(file).unwrap());
    files.iter().map(read).collect()
}

#[test]
fn counts_that_share_a_pass_have_the_bytes_of_their_own_runs() {
    let (_dir, model, _) = setup();
    // Three windows, the last one broken; one count ends with a window, the others inside one.
    let rows: Vec<Encoded> = (0..230usize)
        .map(|i| Encoded {
            id: format!("e{i}"),
            ids: (0..4 + (i * i % 13) as u32)
                .map(|t| (t * 7 + i as u32 * 3) % 40)
                .collect(),
            scored_from: 2 + i % 2,
        })
        .collect();
    let out = tempfile::tempdir().unwrap();
    let of = |folder: &Path, count: Option<usize>| -> Vec<Estimate> {
        let mut all = estimates(&folder.join(format!("{count:?}")));
        all.iter_mut().for_each(|e| e.config.samples = count);
        all
    };
    let counts = [Some(40), Some(100), Some(130), None];
    let source = Source::new(Samples::Encoded(&rows), &["u", "s"]);
    let together: Vec<Estimate> = counts
        .iter()
        .flat_map(|n| of(&out.path().join("together"), *n))
        .collect();
    let mut total = 0;
    let metas = estimate(&model, &source, &together, &mut |p| total = p.total).unwrap();
    // Each batch of a whole window once; of the broken windows' 40 and 30 samples those that are batched otherwise.
    assert!((230..=230 + 40 + 30).contains(&total), "{total}");
    let mut found = metas.iter();
    for count in counts {
        let alone = of(&out.path().join("alone"), count);
        let metas = estimate(&model, &source, &alone, &mut |_| ()).unwrap();
        let shared = of(&out.path().join("together"), count);
        for ((a, b), meta) in alone.iter().zip(&shared).zip(metas) {
            assert_eq!(meta.samples, count.unwrap_or(230) as u64);
            assert_eq!(found.next(), Some(&meta));
            assert!(bytes(&a.out) == bytes(&b.out), "{count:?} {}", a.config.estimator);
        }
    }
    let [few, many] = [0, 12].map(|i| content(&together[i].out));
    assert_ne!(few, many);
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let (_dir, model, rows) = setup();
    let out = tempfile::tempdir().unwrap();
    let source = Source {
        checkpoint_every: Duration::ZERO,
        ..Source::new(Samples::Encoded(&rows), &["s"])
    };
    let (whole, cut) = (estimates(&out.path().join("whole")), estimates(&out.path().join("cut")));
    estimate(&model, &source, &whole, &mut |_| ()).unwrap();
    // The panic of a progress callback stands for a kill: nothing after it runs.
    let mut calls = 0;
    let mut stop = |_: FisherProgress| {
        calls += 1;
        assert!(calls < 3, "stopped here");
    };
    let run = std::panic::AssertUnwindSafe(|| estimate(&model, &source, &cut, &mut stop));
    assert!(std::panic::catch_unwind(run).is_err());
    let begun = FisherShard::load(&cut[0].out.join("partial")).unwrap();
    assert!(
        begun.meta.batches_done > 0 && !begun.is_complete(),
        "{}",
        begun.meta.batches_done
    );
    estimate(&model, &source, &cut, &mut |_| ()).unwrap();
    for (a, b) in whole.iter().zip(&cut) {
        assert_eq!(content(&a.out), content(&b.out), "{}", a.config.estimator);
        assert!(!b.out.join("partial").exists());
    }
    // The checkpoint of another run is not taken up.
    let other = Source::new(Samples::Encoded(&rows[1..]), &["s"]);
    let half = Shard::new(1, 2).unwrap();
    shard(&model, &source, &cut[..1], half, &mut |_| ()).unwrap_err();
    let part = estimates(&out.path().join("part"));
    shard(&model, &source, &part, half, &mut |_| ()).unwrap();
    let message = shard(&model, &other, &part, half, &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("total_samples") && message.contains("11"), "{message}");
}

#[test]
fn the_store_holds_every_samples_gradient_and_the_diagonals_follow_from_it() {
    let (_dir, model, rows) = setup();
    let out = tempfile::tempdir().unwrap();
    let shared = estimates(out.path());
    estimate(
        &model,
        &Source::new(Samples::Encoded(&rows), &["u"]),
        &shared,
        &mut |_| (),
    )
    .unwrap();
    let store = SampleFisher::load(&shared[3].out).unwrap();
    let diag = sst_subspace::DiagonalFisher::load(&shared[1].out).unwrap();
    assert_eq!(store.layout(), &diag.layout);
    let mut values = diag.values.iter();
    for (module, width) in store.modules() {
        let gradients = store.rows(module, 0..11).unwrap().mapv(f64::from);
        assert_eq!(gradients.dim(), (11, width));
        let gram = store.gram(module).unwrap();
        for ((i, j), entry) in gram.indexed_iter() {
            let expected = gradients.row(i).dot(&gradients.row(j));
            let scale = (gram[[i, i]] * gram[[j, j]]).sqrt();
            assert!((entry - expected).abs() <= 1e-12 * scale, "{module} {i} {j}");
        }
        for column in gradients.columns() {
            let expected = column.dot(&column) / 11.0;
            let got = f64::from(*values.next().unwrap());
            // The diagonal is rounded to f32 once.
            assert!((got - expected).abs() <= 1e-7 * expected, "{got} instead of {expected}");
        }
    }
    assert_eq!(values.next(), None);
    // Sample i is row i: alone, it has the same gradient.
    let alone = out.path().join("alone");
    let samples = estimates(&alone).split_off(3);
    estimate(
        &model,
        &Source::new(Samples::Encoded(&rows[4..5]), &["u"]),
        &samples,
        &mut |_| (),
    )
    .unwrap();
    let alone = SampleFisher::load(&samples[0].out).unwrap();
    for (module, _) in alone.modules() {
        let (one, all) = (alone.rows(module, 0..1).unwrap(), store.rows(module, 4..5).unwrap());
        let largest = one.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(largest > 0.0);
        for (a, b) in one.iter().zip(&all) {
            assert!((a - b).abs() <= 1e-5 * largest, "{module}: {a} {b}");
        }
    }
}

#[test]
fn drawn_labels_depend_on_their_seed_alone_and_average_to_a_zero_gradient() {
    let (_dir, mut model, rows) = setup();
    let out = tempfile::tempdir().unwrap();
    // Many copies of one sample under other identifiers: many draws at the same positions.
    let copies: Vec<Encoded> = (0..600)
        .map(|i| Encoded {
            id: format!("copy {i}"),
            ..rows[6].clone()
        })
        .collect();
    let measure = |model: &LanguageModel, name: &str, labels| {
        let config = FisherConfig {
            estimator: Estimator::DiagVariance,
            labels,
            ..FisherConfig::default()
        };
        let folder = out.path().join(name);
        let estimates = [Estimate {
            config,
            out: folder.clone(),
        }];
        estimate(
            model,
            &Source::new(Samples::Encoded(&copies), &["u"]),
            &estimates,
            &mut |_| (),
        )
        .unwrap();
        let fisher = sst_subspace::DiagonalFisher::load(&folder).unwrap();
        let mean = sst_subspace::DiagonalFisher::load_mean(&folder).unwrap().unwrap();
        let square = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let variance: f64 = fisher.values.iter().map(|v| f64::from(*v)).sum();
        (fisher.values.clone(), square(&mean), variance)
    };
    use sst_subspace::Labels::{Given, Sampled};
    let (_, given, spread) = measure(&model, "given", Given);
    assert!(
        given > 0.0 && spread < 1e-6 * given,
        "the data's labels are the same in every copy"
    );
    let (one, mean, variance) = measure(&model, "one", Sampled { seed: 1 });
    // Under the model's own labels the expected gradient is zero: the squared mean of N is a variance over N, here within a
    // factor of three, far outside chance for a sum over thousands of entries.
    assert!(mean < 3.0 * variance / 600.0, "{mean} against {variance}");
    assert!(mean < given / 10.0);
    let (again, ..) = measure(&model, "again", Sampled { seed: 1 });
    assert_eq!(one, again);
    let (two, ..) = measure(&model, "two", Sampled { seed: 2 });
    assert_ne!(one, two);
    model.set_limits(BatchLimits { rows: 7, tokens: 400 }).unwrap();
    let (other_batches, ..) = measure(&model, "batches", Sampled { seed: 1 });
    let total: f64 = one.iter().map(|v| f64::from(*v)).sum();
    let gap: f64 = one
        .iter()
        .zip(&other_batches)
        .map(|(a, b)| f64::from(a - b).abs())
        .sum();
    assert!(gap <= 1e-5 * total, "{gap} of {total}: other batches drew other labels");
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let (_dir, model, rows) = setup();
    let out = tempfile::tempdir().unwrap();
    let attempt = |stack: &[&str], parameters: Option<&str>, config: FisherConfig| {
        let source = Source {
            parameters,
            ..Source::new(Samples::Encoded(&rows), stack)
        };
        let out = out.path().to_path_buf();
        estimate(&model, &source, &[Estimate { config, out }], &mut |_| ()).unwrap_err()
    };
    let kron = FisherConfig {
        estimator: Estimator::Kron,
        ..FisherConfig::default()
    };
    assert!(matches!(
        attempt(&[], None, FisherConfig::default()),
        Error::NoParameters { .. }
    ));
    assert!(matches!(attempt(&[], None, kron), Error::NoModules { .. }));
    let message = attempt(&["u"], Some("s"), FisherConfig::default()).to_string();
    assert!(message.contains("`s`") && message.contains("stack is u"), "{message}");
    let source = Source::new(Samples::Encoded(&rows), &["u"]);
    let mut two = estimates(out.path());
    two[1].config.seed = 5;
    let error = estimate(&model, &source, &two, &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::NotShared { setting: "seed" }), "{error}");
}
